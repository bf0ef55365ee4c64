"""Shaping by potentials: it telescopes, keeps optimal policies, and an audit finds what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trajectories import applied, phi, random_context, trajectory

from coordination.signals import (
    Potential,
    SharedReward,
    Team,
)
from coordination.topology import Topology


def episode(values, gamma, ends):
    """One agent walking through states of the given potentials; ``ends`` is terminated, truncated or neither."""
    states = torch.tensor(values).reshape(-1, 1, 1)
    steps = len(values) - 1
    terminated = torch.zeros(steps, 1, dtype=torch.bool)
    cut = terminated.clone()
    cut[-1], terminated[-1] = ends != "neither", ends == "terminated"
    one = Topology(torch.zeros(2, 0), 1)
    context = trajectory(
        torch.zeros(steps, 1), one, obs=states[:-1], next_obs=states[1:], terminated=terminated, cut=cut
    )
    bundle = SharedReward([Potential(lambda obs: obs[..., 0], gamma)], audit=True)(context)
    assert bundle.violations == ()
    return (bundle.reward[:, 0] * gamma ** torch.arange(steps)).sum().item()


@given(values=st.lists(st.floats(-9, 9, width=32), min_size=2, max_size=12), gamma=st.floats(0, 1))
def test_shaping_of_an_episode_telescopes(values, gamma):
    ended = episode(values, gamma, "terminated")
    assert ended == pytest.approx(-values[0], abs=1e-4)  # -Phi(s_0): nothing is worth anything after the end
    for ends in ("truncated", "neither"):  # there the learner bootstraps, so the last state counts
        left = gamma ** (len(values) - 1) * values[-1]
        assert episode(values, gamma, ends) == pytest.approx(left - values[0], abs=1e-4)


def test_shaping_keeps_optimal_policies_and_shifts_their_values_by_the_potential():
    """Ng et al. 1999 on random tabular problems: Q*' = Q* - Phi, by value iteration on rewards from the stage."""
    draw = torch.Generator().manual_seed(0)
    states, actions, gamma = 6, 3, 0.9
    follow = torch.randint(states, (states, actions), generator=draw)
    over = torch.rand(states, actions, generator=draw) < 0.2
    reward = torch.randn(states, actions, generator=draw)
    potential = torch.randn(states, generator=draw) * 3
    s = torch.arange(states).repeat_interleave(actions)
    context = trajectory(
        reward.reshape(-1, 1),
        Topology(torch.zeros(2, 0), 1),
        obs=s.reshape(-1, 1, 1).float(),
        next_obs=follow.reshape(-1, 1, 1).float(),
        terminated=over.reshape(-1, 1),
        cut=over.reshape(-1, 1),
    )
    shaped = applied(Potential(lambda obs: potential[obs[..., 0].long()], gamma), context).reshape(states, actions)

    def solve(r):
        q = torch.zeros(states, actions)
        for _ in range(400):
            q = r + gamma * torch.where(over, 0.0, q.max(1).values[follow])
        return q

    plain, with_shaping = solve(reward), solve(shaped)
    torch.testing.assert_close(with_shaping, plain - potential.unsqueeze(1), atol=1e-4, rtol=1e-4)
    assert torch.equal(with_shaping.argmax(1), plain.argmax(1))


def test_shaping_between_turns_telescopes_once_per_turn():
    """Turns at 0 and 3; rewards in between add to the turn, so their sum must be gamma Phi(s_3) - Phi(s_0)."""
    states = torch.tensor([2.0, -1.0, 3.0, 7.0, 5.0]).reshape(-1, 1, 1)
    acting = torch.tensor([True, False, False, True]).unsqueeze(1)
    context = trajectory(
        torch.zeros(4, 1), Topology(torch.zeros(2, 0), 1), obs=states[:-1], next_obs=states[1:], acting=acting
    )
    added = applied(Potential(lambda obs: obs[..., 0], 0.9), context)
    assert added[:3].sum().item() == pytest.approx(0.9 * 7 - 2)
    assert added[3].item() == pytest.approx(0.9 * 5 - 7)


def test_audit_finds_a_potential_that_is_no_function_and_a_sum_that_changed():
    draw = torch.Generator().manual_seed(0)
    noisy = Potential(lambda obs: torch.rand(obs.shape[:-1], generator=draw), 0.9)
    context = random_context(0)
    (violation,) = [v for v in SharedReward([noisy], audit=True)(context).violations if "same observations" in v]
    assert violation.startswith("potential: phi gives different values")

    class Wrong(Team):
        name = "wrong"
        conserves_sum = True

    assert "declares conserves_sum" in SharedReward([Wrong()], audit=True)(context).violations[0]
    assert SharedReward([Wrong()])(context).violations == ()


def test_audit_finds_shaping_that_forgets_the_discount():
    class Undiscounted(Potential):
        def _shaping(self, now, following, context):
            return following - now

    context = random_context(1)
    context = replace(context, acting=context.alive)
    found = SharedReward([Undiscounted(phi, 0.9)], audit=True)(context).violations
    assert any("does not telescope" in v for v in found)
    assert SharedReward([Potential(phi, 0.9)], audit=True)(context).violations == ()
