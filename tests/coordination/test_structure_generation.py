from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from value_distributions import NAMES, draw, partitions, worth_of

from coordination.coalition import (
    Exact,
    interval_structure,
    members,
    optimal_structure,
    pruned_structure,
    size_structure,
    supporting_prices,
    upper_bound,
)
from coordination.coalition.optimal import exact
from coordination.games import FactorGame, PairwiseGame, TabularGame, tabulate


def by_integer_program(table: np.ndarray) -> float:
    n = len(table).bit_length() - 1
    member = (np.arange(1, len(table)) >> np.arange(n)[:, None] & 1).astype(float)
    result = milp(
        -table[1:],
        integrality=np.ones(len(table) - 1),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(sp.csc_array(member), 1, 1),
        options={"mip_rel_gap": 0.0},
    )
    return -float(result.fun)


@pytest.mark.parametrize(
    ("name", "value", "sizes"),
    [
        ("uniform", 9.840955, [6, 4]),
        ("ndcs", 21.647739, [3, 2, 2, 2, 1]),
        ("modified_uniform", 212.172803, None),
        ("agent_uniform", 98.067154, None),
    ],
)
def test_frozen_instances(name, value, sizes):
    for method in ("dp", "bound"):
        found = Exact(method).form(TabularGame(draw(name, 10)))
        assert found.value.item() == pytest.approx(value, abs=1e-6)
        if sizes:
            assert sorted(members(found.label).sum(1).tolist(), reverse=True) == sizes


@pytest.mark.parametrize("name", NAMES)
def test_both_methods_equal_brute_force(name):
    for n in range(1, 8 if name != "uniform" else 9):
        table = draw(name, n, seed=n)
        best = max(worth_of(table, p) for p in partitions(n))
        for method in ("dp", "bound"):
            found = Exact(method).form(TabularGame(table))
            assert found.value.item() == pytest.approx(best, rel=1e-12)
            assert worth_of(table, found.label.tolist()) == pytest.approx(best, rel=1e-12)
            assert found.gap.item() == 0


@pytest.mark.parametrize("name", NAMES)
def test_both_methods_equal_the_integer_program(name):
    for n in (8, 10):
        table = draw(name, n, seed=3)
        best = by_integer_program(table)
        assert optimal_structure(TabularGame(table)).value.item() == pytest.approx(best, rel=1e-9)
        assert pruned_structure(TabularGame(table)).value.item() == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_pruned_search_equals_dynamic_programming_on_fourteen_agents(name):
    game = TabularGame(draw(name, 14, seed=1))
    found = pruned_structure(game)
    assert found.value.item() == pytest.approx(optimal_structure(game).value.item(), rel=1e-12)
    assert found.gap.item() == 0


@pytest.mark.parametrize("name", ["uniform", "ndcs", "gamma"])
def test_a_search_cut_short_tells_the_truth(name):
    game = TabularGame(draw(name, 12, seed=2))
    best = optimal_structure(game).value.item()
    for beam in (1, 3, 30):
        found = pruned_structure(game, beam=beam)
        assert found.value.item() <= best + 1e-9
        assert found.upper_bound.item() >= best - 1e-9
    assert pruned_structure(game, beam=1).gap.item() > 0


def test_pruned_search_on_degenerate_games():
    n = 13
    additive = TabularGame(tabulate(PairwiseGame(torch.arange(1.0, n + 1), torch.zeros(2, 0), torch.zeros(0))))
    assert pruned_structure(additive).gap.item() == 0  # every structure is optimal, every reduced cost zero
    size = tabulate(PairwiseGame(torch.ones(n), torch.zeros(2, 0), torch.zeros(0)))
    grand = pruned_structure(TabularGame(size**2))
    assert grand.value.item() == n**2
    assert grand.num_coalitions.item() == 1
    alone = pruned_structure(TabularGame(-(size**2)))
    assert alone.value.item() == -n
    assert alone.gap.item() == 0


def test_numba_and_numpy_fill_the_same_table():
    table = draw("exponential", 9)
    plain, fast = np.zeros(256), np.zeros(256)
    exact._fill(table, plain)  # the loop that numba compiles
    exact._fill_vectorised(table, fast)
    assert np.array_equal(plain, fast)


def test_compiled_dynamic_programming_equals_plain():
    pytest.importorskip("numba")
    table = draw("gamma", 13)
    assert exact.compiled(exact._fill) is not None
    best = np.zeros(len(table) // 2)
    exact._fill_vectorised(table, best)
    assert optimal_structure(TabularGame(table)).value.item() == worth_of(table, exact._backtrack(table, best))


@given(st.permutations(range(6)), st.integers(0, 100))
def test_renaming_agents_renames_coalitions(order, seed):
    table = draw("normal", 6, seed)
    renamed = np.empty_like(table)
    for s in range(64):
        renamed[sum(1 << order[i] for i in range(6) if s >> i & 1)] = table[s]
    before, after = (optimal_structure(TabularGame(t)).label for t in (table, renamed))
    same = torch.tensor([[before[i] == before[j] for i in range(6)] for j in range(6)])
    moved = torch.tensor([[after[order[i]] == after[order[j]] for i in range(6)] for j in range(6)])
    assert torch.equal(same, moved)  # continuous worths: the optimum is unique


def test_planted_blocks_are_found():
    block = torch.tensor([0, 1, 0, 2, 1, 2, 0, 1, 2])
    pairs = torch.combinations(torch.arange(9)).T
    inside = block[pairs[0]] == block[pairs[1]]
    game = PairwiseGame(torch.zeros(9), pairs, torch.where(inside, 1.0, -1.0))
    for found in (optimal_structure(game), pruned_structure(game)):
        assert found.label.tolist() == block.tolist()
        assert found.value.item() == 9.0  # three triangles


@given(st.integers(0, 1000))
def test_prices_support_every_coalition_and_bound_every_structure(seed):
    table = np.random.default_rng(seed).normal(size=128)
    table[0] = 0.0
    prices = supporting_prices(table)
    member = np.arange(128)[:, None] >> np.arange(7) & 1
    assert (member @ prices >= table - 1e-9).all()
    assert prices.sum() >= optimal_structure(TabularGame(table)).value.item() - 1e-9
    early = supporting_prices(table, rounds=1)
    assert (member @ early >= table - 1e-9).all()
    assert early.sum() >= prices.sum() - 1e-6


def test_the_fractional_optimum_of_majority():
    table = np.array([0.0, 0, 0, 1, 0, 1, 1, 1])  # three pairs at weight one half
    assert supporting_prices(table).sum() == pytest.approx(1.5)


@given(st.integers(0, 10_000))
def test_structural_bounds_hold(seed):
    rng = np.random.default_rng(seed)
    pairs = np.array([(a, b) for a in range(7) for b in range(a + 1, 7)]).T
    graph = PairwiseGame(rng.normal(size=7), pairs, rng.normal(size=21))
    scopes = np.stack([rng.choice(7, 3, replace=False) for _ in range(5)])
    tables = rng.normal(size=(5, 8))
    tables[:, 0] = 0
    from coordination.coalition.optimal import factor_bound, pairwise_bound

    best = optimal_structure(graph).value.item()
    assert best <= pairwise_bound(graph) + 1e-9
    factors = FactorGame(scopes, tables, 7)
    assert optimal_structure(factors).value.item() <= factor_bound(factors) + 1e-9


def test_bounds_by_hand():
    # a triangle with two positive links and a negative one loses the least of the three
    triangle = PairwiseGame(torch.zeros(40), [[0, 1, 0], [1, 2, 2]], torch.tensor([5.0, 2.0, -3.0]))
    assert upper_bound(triangle) == 5.0
    # the best partition of the factor is {0}, {1, 2}: 1 + 6, against 5 for all three together
    factor = FactorGame([[0, 1, 2]], [[0.0, 1, 1, 2, 1, 2, 6, 5]], 40)
    assert upper_bound(factor) == 7.0

    class Opaque:
        num_agents = 40

        def value(self, mask):
            return mask.sum(-1).float()

    assert upper_bound(Opaque()) == float("inf")


def reference_intervals(value: np.ndarray) -> float:
    n, cap = value.shape
    best = [0.0]
    for j in range(n):
        best.append(max(best[j + 1 - i] + float(value[j, i - 1]) for i in range(1, min(cap, j + 1) + 1)))
    return best[-1]


def test_intervals_at_a_hundred_thousand_agents():
    value = np.random.default_rng(0).normal(size=(100_000, 4))
    found = interval_structure(value)
    assert found.value.item() == pytest.approx(reference_intervals(value), rel=1e-12)
    assert found.gap.item() == 0
    length = torch.bincount(found.label)
    end = length.cumsum(0) - 1
    assert found.value.item() == pytest.approx(value[end, length - 1].sum(), rel=1e-9)


def test_planted_intervals_at_a_hundred_thousand_agents():
    rng = np.random.default_rng(1)
    length = rng.integers(1, 6, 40_000)
    length = length[: np.searchsorted(length.cumsum(), 100_000)]
    n = int(length.sum())
    value = np.full((n, 5), -1.0)
    value[length.cumsum() - 1, length - 1] = 1.0 * length
    found = interval_structure(value)
    assert np.array_equal(found.label.numpy(), np.repeat(np.arange(len(length)), length))
    assert found.value.item() == n


def test_intervals_equal_dynamic_programming_over_all_subsets():
    rng = np.random.default_rng(2)
    value = rng.normal(size=(2, 8, 3))
    found = interval_structure(value)
    for b in range(2):
        table = np.full(256, -100.0)
        table[0] = 0.0
        for j in range(8):
            for i in range(1, min(3, j + 1) + 1):
                table[sum(1 << k for k in range(j - i + 1, j + 1))] = value[b, j, i - 1]
        best = optimal_structure(TabularGame(table))
        assert found.value[b].item() == pytest.approx(best.value.item())
        assert torch.equal(found.label[b], best.label)


def test_sizes_equal_dynamic_programming_over_all_subsets_and_scale():
    value = np.random.default_rng(3).normal(size=9).cumsum()
    size = (np.arange(512)[:, None] >> np.arange(9) & 1).sum(1)
    table = np.r_[0.0, value][size]
    assert size_structure(value, 9).value.item() == pytest.approx(optimal_structure(TabularGame(table)).value.item())
    large = size_structure(torch.tensor([0.0, 1.0, 1.9]), 100_000)  # threes are best: 33,332 of them and two pairs
    assert large.value.item() == pytest.approx(33_332 * 1.9 + 2)
    assert torch.bincount(torch.bincount(large.label)).tolist() == [0, 0, 2, 33_332]


def test_forbidden_sizes():
    assert size_structure(torch.tensor([-torch.inf, 1.0]), 4).value.item() == 2.0
    with pytest.raises(ValueError, match="every partition holds an interval of worth -inf"):
        size_structure(torch.tensor([-torch.inf, 1.0]), 5)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="method: one of auto, dp, bound"):
        Exact("milp").form(TabularGame(torch.zeros(4)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at most 18 agents \(24 with numba"):
        optimal_structure(PairwiseGame(torch.zeros(25), torch.zeros(2, 0), torch.zeros(0)))
    with pytest.raises(ValueError, match="beam: must be at least 1"):
        pruned_structure(TabularGame(torch.zeros(4)), beam=0)
    with pytest.raises(ValueError, match=r"expected \[\*, N, K\]"):
        interval_structure(torch.zeros(3))


def test_large_optimum_of_a_known_game():
    # fifty-fifty planted cliques on 20 agents: dynamic programming is out of reach without numba, prices are not
    block = torch.arange(20) % 5
    pairs = torch.combinations(torch.arange(20)).T
    inside = block[pairs[0]] == block[pairs[1]]
    rng = torch.Generator().manual_seed(0)
    weight = torch.where(inside, 1.0, -1.0) * (0.5 + torch.rand(190, generator=rng, dtype=torch.float64))
    found = Exact().form(PairwiseGame(torch.zeros(20, dtype=torch.float64), pairs, weight))
    assert found.label.tolist() == block.tolist()
    assert found.gap.item() == 0
