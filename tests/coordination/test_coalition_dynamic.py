from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.coalition import BestResponse, Dynamic, Exact, align, canonical
from coordination.games import PairwiseGame

PAIRS = torch.combinations(torch.arange(8)).T


def blocks(label, noise: float = 0.0, seed: int = 0) -> PairwiseGame:
    label = torch.tensor(label)
    weight = torch.where(label[PAIRS[0]] == label[PAIRS[1]], 1.0, -1.0).double()
    jitter = torch.randn(len(weight), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return PairwiseGame(torch.zeros(8, dtype=torch.float64), PAIRS, weight + noise * jitter)


EVEN, LATE = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 0]


def test_a_game_that_stays_causes_no_moves():
    dynamic = Dynamic(Exact(), switching_cost=0.1)
    state = dynamic.init(blocks(EVEN))
    for _ in range(5):
        state = dynamic.step(state, blocks(EVEN))
        assert not state.moved.any()
    assert state.coalitions.label.tolist() == EVEN
    assert state.dwell.tolist() == [5] * 8


def test_a_planted_switch_is_found_at_once_and_moves_as_few_as_possible():
    dynamic = Dynamic(BestResponse(), switching_cost=0.5)
    state = dynamic.init(blocks(EVEN))
    state = dynamic.step(state, blocks(LATE))
    assert state.moved.tolist() == [False, False, False, True, False, False, False, True]
    assert canonical(state.coalitions.label).tolist() == LATE
    assert state.coalitions.value.item() == 12.0
    assert state.coalitions.gap.item() >= 0


def test_switching_costs_more_than_it_gains():
    # under LATE, staying in EVEN is worth 2 * (3 - 3) = 0 and moving two agents gains 12: up to 6 a move it pays
    state = Dynamic(Exact(), switching_cost=6.1).init(blocks(EVEN))
    assert not Dynamic(Exact(), switching_cost=6.1).step(state, blocks(LATE)).moved.any()
    assert Dynamic(Exact(), switching_cost=5.9).step(state, blocks(LATE)).moved.sum() == 2


def test_agents_stay_for_the_least_time():
    dynamic = Dynamic(Exact(), min_dwell=3)
    state = dynamic.init(blocks(EVEN))
    games = [LATE, EVEN, EVEN, EVEN, EVEN]
    moved = []
    for label in games:
        state = dynamic.step(state, blocks(label))
        moved.append(int(state.moved.sum()))
    assert moved == [2, 0, 0, 0, 2]  # back only when three steps have passed in the new place
    assert canonical(state.coalitions.label).tolist() == EVEN


def test_hysteresis_lowers_churn_under_noise():
    def moves(cost):
        dynamic = Dynamic(Exact(), switching_cost=cost)
        state = dynamic.init(blocks(EVEN, 1.0))
        total = 0
        for seed in range(1, 15):
            state = dynamic.step(state, blocks(EVEN, 1.0, seed))
            total += int(state.moved.sum())
        return total

    assert moves(0.0) > moves(1.0) >= moves(10.0) == 0


@given(st.integers(0, 10_000))
def test_align_keeps_the_partition_and_as_many_names_as_possible(seed):
    from itertools import permutations

    rng = np.random.default_rng(seed)
    new, old = (torch.from_numpy(rng.integers(0, 3, 5)) for _ in range(2))
    found = align(new, old)
    assert torch.equal(canonical(found), canonical(new))
    assert found.min() >= 0
    assert found.max() < 5
    first = canonical(new)
    best = max(
        sum(int(name[c] == o) for c, o in zip(first.tolist(), old.tolist(), strict=True))
        for name in permutations(range(5), int(first.max()) + 1)
    )
    assert int((found == old).sum()) == best


def test_align_with_agents_of_no_coalition():
    assert align(torch.tensor([0, -1, 1]), torch.tensor([2, 2, -1])).tolist() == [2, -1, 0]


def test_align_of_many_changed_coalitions_keeps_the_partition():
    rng = np.random.default_rng(0)
    new, old = (torch.from_numpy(rng.integers(0, 4000, 10_000)) for _ in range(2))
    found = align(new, old)
    assert torch.equal(canonical(found), canonical(new))
    assert (found == old).sum() > 2000  # every name of old is used where it overlaps


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="switching_cost >= 0"):
        Dynamic(Exact(), switching_cost=-1.0).init(blocks(EVEN))
