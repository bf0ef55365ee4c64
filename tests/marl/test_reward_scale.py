"""RewardScale: against a loop in numpy, over rollouts, cuts and fresh copies, with groups apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group
from marl.rewards.normalise import RewardScale

STEPS, COPIES, GAMMA = 7, 3, 0.9
SPACES = ObservationSpec.flat(1), ActionSpec.discrete(2)
AGENTS = AgentSpec((Group("a", 0, 1, *SPACES), Group("b", 1, 2, *SPACES)), ("x", "y", "z"))
GROUP_OF = np.array([0, 1, 1])


def rollout(seed: int, **shares: float) -> dict[str, Tensor]:
    """Random rewards, cuts, agents that count, and copies that begin afresh."""
    chance = {"cut": 0.3, "keep": 0.7, "fresh": 0.5} | shares
    seeded, shape = torch.Generator().manual_seed(seed), (STEPS, COPIES, 3)
    scale = torch.tensor([1.0, 10.0, 10.0])
    flags = {name: torch.rand(shape, generator=seeded) < share for name, share in chance.items()}
    return {"reward": scale * torch.randn(shape, generator=seeded), **flags, "fresh": flags["fresh"][0, :, 0]}


class ByHand:
    """The same in loops: every discounted return that counts is remembered."""

    def __init__(self) -> None:
        self.running = np.zeros((COPIES, 3))
        self.returns: dict[int, list[float]] = {0: [], 1: []}

    def scaled(self, reward: Tensor, cut: Tensor, keep: Tensor, fresh: Tensor) -> np.ndarray:
        for b in range(COPIES):
            for i in range(3):
                total = 0.0 if fresh[b] else self.running[b, i]
                for t in range(STEPS):
                    total = GAMMA * total + float(reward[t, b, i])
                    if keep[t, b, i]:
                        self.returns[GROUP_OF[i]].append(total)
                    total = 0.0 if cut[t, b, i] else total
                self.running[b, i] = total
        return reward.numpy() / np.array([np.std(self.returns[g]) for g in GROUP_OF])


def test_rewards_are_divided_by_the_deviation_of_their_groups_discounted_return() -> None:
    module, by_hand = RewardScale(AGENTS, COPIES, GAMMA), ByHand()
    for seed in range(4):
        given = rollout(seed)
        np.testing.assert_allclose(module(**given).numpy(), by_hand.scaled(**given), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(module.running.numpy(), by_hand.running, rtol=1e-4, atol=1e-5)


def test_what_does_not_count_leaves_the_moments_alone() -> None:
    module = RewardScale(AGENTS, COPIES, GAMMA)
    given = rollout(0, keep=0.5)
    given["keep"][..., 0] = False
    reward = module(**given)
    assert torch.equal(reward[..., 0], given["reward"][..., 0])  # nothing known of this group: a deviation of 1
    before = module.moments.var.clone()
    module(**rollout(1, keep=-1.0))
    assert torch.equal(module.moments.var, before)


@pytest.mark.parametrize("how", ["cut", "fresh"])
def test_nothing_is_remembered_across_the_end_of_an_episode(how: str) -> None:
    """Ended by a cut in the last step of a rollout, or known only by the first step of the next (after resuming)."""
    results = []
    for past in (0.0, 1e3):
        module = RewardScale(AGENTS, COPIES, GAMMA)
        first, second = rollout(0, cut=-1.0, keep=-1.0), rollout(1, cut=-1.0, fresh=-1.0)
        first["reward"] = first["reward"] + past
        if how == "cut":
            first["cut"][-1] = True
        else:
            second["fresh"][:] = True
        module(**first)
        results.append(module(**second))
    assert torch.equal(*results)


def test_a_restored_scale_goes_on_exactly() -> None:
    module, other = (RewardScale(AGENTS, COPIES, GAMMA) for _ in range(2))
    module(**rollout(0))
    other.load_state_dict({name: x.clone() for name, x in module.state_dict().items()})
    given = rollout(1, fresh=-1.0)
    assert torch.equal(module(**given), other(**given))
    assert torch.equal(module.running, other.running)
