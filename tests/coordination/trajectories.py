"""What the tests of reward signals share: contexts by hand and at random, and a stage applied under audit."""

from __future__ import annotations

import torch

from coordination.signals import (
    SharedReward,
    Trajectory,
)
from coordination.topology import Topology

LINE = Topology([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]], 4)
ONE_WAY = Topology([[0, 1, 2], [1, 2, 3]], 4)


def trajectory(reward, topology=LINE, **fields):
    """A context around ``reward [*, N]`` in which everybody lives, acts and goes on."""
    reward = torch.as_tensor(reward)
    plain = {"graph": topology, "action": torch.zeros(*reward.shape, 1, dtype=torch.long)}
    return Trajectory.of(reward, **(plain | fields))


def applied(stage, context, audit=True):
    bundle = SharedReward([stage], audit=audit)(context)
    assert bundle.violations == ()
    return bundle.reward


def random_context(seed, steps=7, copies=3, n=5, topology=None):
    """Random rewards, deaths, restarts and observations; dead slots hold NaN."""
    draw = torch.Generator().manual_seed(seed)
    topology = topology or Topology([[0, 1, 1, 2, 2, 3, 3, 4, 4, 0], [1, 0, 2, 1, 3, 2, 4, 3, 0, 4]], n)
    alive = torch.rand(steps, copies, n, generator=draw) < 0.8
    cut = torch.rand(steps, copies, n, generator=draw) < 0.3
    terminated = cut & (torch.rand(steps, copies, n, generator=draw) < 0.5)
    cut[:-1] |= ~alive[1:]
    obs = torch.randn(steps + 1, copies, n, 2, generator=draw)
    next_obs = torch.where(cut.unsqueeze(-1), torch.randn(obs[1:].shape, generator=draw), obs[1:])
    reward = torch.randn(steps, copies, n, generator=draw)
    dead = ~alive
    return trajectory(
        torch.where(dead, torch.nan, reward),
        topology,
        alive=alive,
        acting=alive & (torch.rand(steps, copies, n, generator=draw) < 0.7),
        terminated=terminated,
        cut=cut,
        obs=torch.where(dead.unsqueeze(-1), torch.nan, obs[:-1]),
        next_obs=torch.where((dead | terminated).unsqueeze(-1), torch.nan, next_obs),
        action=torch.randint(3, (steps, copies, n, 2), generator=draw),
        info={"coalition": torch.randint(-1, n, (steps, copies, n), generator=draw), "hits": reward[..., 0].abs()},
        team=torch.tensor([0, 1, 0, 1, 1]),
    )


def phi(obs):
    return obs.sum(-1).tanh()
