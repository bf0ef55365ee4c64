"""RunningMoments: equal to numpy's over everything seen, by group, whatever dead slots hold; fading; inverse."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group
from marl.networks.layers.normalise import RunningMoments

SPACES = ObservationSpec.flat(1), ActionSpec.discrete(2)
AGENTS = AgentSpec((Group("a", 0, 2, *SPACES), Group("b", 2, 1, *SPACES)), ("x", "y", "z"))
MEMBERS = ([0, 1], [2])
DIM = 2


def batch(seed: int, alive: float = 0.7) -> tuple[Tensor, Tensor]:
    """``x [5, 4, N, D]`` with NaN where ``mask [5, 4, N]`` does not hold."""
    seeded = torch.Generator().manual_seed(seed)
    mask = torch.rand(5, 4, 3, generator=seeded) < alive
    x = 3 + (seed + 1) * torch.randn(5, 4, 3, DIM, generator=seeded)
    return torch.where(mask.unsqueeze(-1), x, torch.nan), mask


def seen(batches: list[tuple[Tensor, Tensor]], group: int) -> list[np.ndarray]:
    """``[K, D]`` of each batch that the agents of a group contributed."""
    return [x[..., MEMBERS[group], :][mask[..., MEMBERS[group]]].double().numpy() for x, mask in batches]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=4), st.floats(0.2, 1.0))
def test_moments_are_those_of_everything_seen_in_the_group(seeds: list[int], alive: float) -> None:
    moments, batches = RunningMoments(AGENTS, DIM), [batch(seed, alive) for seed in seeds]
    for x, mask in batches:
        moments.update(x, mask)
    for group in range(2):
        rows = np.concatenate(seen(batches, group))
        np.testing.assert_allclose(moments.mean[group], rows.mean(0), rtol=1e-4)
        np.testing.assert_allclose(moments.var[group], rows.var(0), rtol=1e-3)
        assert moments.count[group] == len(rows)


def test_old_batches_fade_by_the_decay_at_each_update() -> None:
    decay, batches = 0.5, [batch(seed) for seed in range(3)]
    moments = RunningMoments(AGENTS, DIM, decay)
    for x, mask in batches:
        moments.update(x, mask)
    for group in range(2):
        parts = seen(batches, group)
        weight = np.concatenate([np.full(len(rows), decay ** (2 - k)) for k, rows in enumerate(parts)])
        mean = np.average(np.concatenate(parts), axis=0, weights=weight)
        var = np.average((np.concatenate(parts) - mean) ** 2, axis=0, weights=weight)
        np.testing.assert_allclose(moments.mean[group], mean, rtol=1e-4)
        np.testing.assert_allclose(moments.var[group], var, rtol=1e-4)


def test_a_group_of_which_nobody_was_seen_stays_as_it_was() -> None:
    moments = RunningMoments(AGENTS, DIM, 0.5)
    moments.update(*batch(0))
    before = {name: x.clone() for name, x in moments.state_dict().items()}
    x, mask = batch(1)
    mask[..., 2] = False
    moments.update(x, mask)
    for name, old in before.items():
        assert torch.equal(getattr(moments, name)[1], old[1])
        assert not torch.equal(getattr(moments, name)[0], old[0])


def test_normalising_is_undone_and_uses_each_agents_own_group() -> None:
    moments = RunningMoments(AGENTS, DIM)
    for seed in range(3):
        moments.update(*batch(seed))
    x = 20 * torch.randn(6, 3, DIM, generator=torch.Generator().manual_seed(9))
    scaled = moments.normalise(x, limit=None)
    torch.testing.assert_close(moments.denormalise(scaled), x)
    for group in range(2):
        expected = (x[:, MEMBERS[group]] - moments.mean[group]) / moments.var[group].sqrt()
        torch.testing.assert_close(scaled[:, MEMBERS[group]], expected)
    torch.testing.assert_close(moments.normalise(x, limit=2.0), scaled.clamp(-2, 2))
    assert scaled.abs().max() > 2


def test_a_column_that_never_changes_is_centred_and_not_blown_up() -> None:
    moments, yes = RunningMoments(AGENTS, DIM), torch.ones(8, 3, dtype=torch.bool)
    moments.update(torch.full((8, 3, DIM), 5.0), yes)
    assert torch.equal(moments.normalise(torch.full((1, 3, DIM), 5.0)), torch.zeros(1, 3, DIM))
    assert torch.equal(moments.normalise(torch.full((1, 3, DIM), 6.0)), torch.full((1, 3, DIM), 10.0))  # the limit
