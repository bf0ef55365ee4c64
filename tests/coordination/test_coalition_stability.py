from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from value_distributions import partitions

from coordination.coalition import (
    AdditiveHedonic,
    Shares,
    blocking_coalition,
    core_excess,
    core_is_empty,
    is_stable,
    least_core,
    nucleolus,
    tempting_moves,
)
from coordination.credit import shapley
from coordination.games import TabularGame, coalition_masks

NOTIONS = ("rational", "nash", "individual", "contractual", "core")


def table_of(rule, n: int) -> TabularGame:
    return TabularGame(torch.tensor([float(rule([i for i in range(n) if s >> i & 1])) for s in range(1 << n)]).double())


MAJORITY = table_of(lambda s: len(s) >= 2, 3)
GLOVE = table_of(lambda s: min(0 in s, (1 in s) + (2 in s)), 3)
LEX = TabularGame(torch.tensor([0.0, 0, 0, 5, 0, 5, 8, 15, 0, 8, 9, 16, 10, 17, 0, 21]).double())


def estate(amount: float) -> TabularGame:
    claims = (100, 200, 300)
    return table_of(lambda s: max(0.0, amount - sum(claims[i] for i in range(3) if i not in s)), 3)


def test_the_stalker_game_has_no_nash_stable_partition():
    stalker = AdditiveHedonic(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    for partition in partitions(2):
        assert not is_stable(torch.tensor(partition), stalker, "nash")
    assert is_stable(torch.tensor([0, 1]), stalker, "individual")  # the fugitive does not accept
    assert is_stable(torch.tensor([0, 1]), stalker, "core")


def test_tempting_moves_by_hand():
    likes = AdditiveHedonic(torch.tensor([[0.0, 1, 2], [1, 0, 0], [0, 0, 0]]))
    agent, target, joined = tempting_moves(torch.tensor([0, 0, 1]), likes)
    assert agent.tolist() == [0]
    assert target.tolist() == [1]
    assert joined.tolist() == [[True, False, True]]


@given(st.integers(0, 10_000))
def test_nash_implies_individual_implies_contractual(seed):
    weight = torch.from_numpy(np.random.default_rng(seed).integers(-2, 3, (4, 4)).astype(float))
    hedonic = AdditiveHedonic(weight)
    for partition in partitions(4):
        stable = {notion: is_stable(torch.tensor(partition), hedonic, notion) for notion in NOTIONS}
        assert stable["nash"] <= stable["individual"] <= stable["contractual"]
        assert stable["individual"] <= stable["rational"]
        assert stable["core"] <= stable["rational"]


@given(st.integers(0, 10_000))
def test_stability_against_its_definition(seed):
    rng = np.random.default_rng(seed)
    weight = rng.integers(-2, 3, (4, 4)).astype(float)
    np.fill_diagonal(weight, 0)
    hedonic = AdditiveHedonic(torch.from_numpy(weight))
    for partition in partitions(4):
        groups = [{i for i in range(4) if partition[i] == c} for c in set(partition)]
        mine = {i: next(g for g in groups if i in g) for i in range(4)}

        def gets(i, group):
            return sum(weight[i, j] for j in group if j != i)

        wants = [
            (i, g) for i in range(4) for g in [*groups, set()] if g is not mine[i] and gets(i, g) > gets(i, mine[i])
        ]
        welcome = [(i, g) for i, g in wants if all(weight[j, i] >= 0 for j in g)]
        released = [(i, g) for i, g in welcome if all(weight[j, i] <= 0 for j in mine[i] - {i})]
        blocked = any(
            all(gets(i, s) > gets(i, mine[i]) for i in s)
            for s in ({i for i in range(4) if b >> i & 1} for b in range(1, 16))
        )
        label = torch.tensor(partition)
        assert is_stable(label, hedonic, "nash") == (not wants)
        assert is_stable(label, hedonic, "individual") == (not welcome)
        assert is_stable(label, hedonic, "contractual") == (not released)
        assert is_stable(label, hedonic, "core") == (not blocked)


def test_shares_of_a_game():
    equal = Shares(MAJORITY, "equal")
    everybody = torch.zeros(3, dtype=torch.long)
    assert equal.utility(torch.arange(3), torch.ones(3, 3).bool()).tolist() == pytest.approx([1 / 3] * 3)
    assert not is_stable(everybody, equal, "core")  # any two would have a half each
    block = blocking_coalition(everybody, equal)
    assert block is not None
    assert block.sum() == 2
    assert Shares(MAJORITY).utility(torch.tensor([0]), torch.tensor([[True, True, False]])).item() == 1.0


def test_sampled_search_finds_blocking_coalitions_of_many_agents():
    n = 24
    apart = AdditiveHedonic(torch.ones(n, n))
    found = blocking_coalition(torch.arange(n), apart, samples=100, generator=torch.Generator().manual_seed(0))
    assert found is not None
    assert found.sum() >= 2
    assert blocking_coalition(torch.zeros(n), apart, samples=100, generator=torch.Generator().manual_seed(0)) is None
    with pytest.raises(ValueError, match="at most 16; search by samples"):
        is_stable(torch.arange(n), apart, "core")
    with pytest.raises(ValueError, match="samples need a generator"):
        blocking_coalition(torch.arange(n), apart, samples=3)


def test_core_of_known_games():
    assert core_is_empty(MAJORITY)
    assert not core_is_empty(GLOVE)
    assert core_excess(GLOVE, torch.tensor([1.0, 0, 0]).double()).item() == 0
    assert core_excess(MAJORITY, torch.full((3,), 1 / 3).double()).item() == pytest.approx(1 / 3)
    payoff, epsilon = least_core(MAJORITY)
    assert epsilon == pytest.approx(1 / 3)
    assert payoff.tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("game", "expected"),
    [
        (GLOVE, [1, 0, 0]),
        (MAJORITY, [1 / 3] * 3),
        (estate(100), [100 / 3] * 3),
        (estate(200), [50, 75, 75]),
        (estate(300), [50, 100, 150]),
    ],
)
def test_nucleolus_of_known_games(game, expected):
    assert nucleolus(game).tolist() == pytest.approx(expected, abs=1e-6)


def test_nucleolus_of_the_lexicographic_game():
    # worths (0, 0, 0, 0, 5, 5, 8, 9, 10, 8, 13, 15, 16, 17, 21) by size, then lexicographically
    worth = {(0, 1): 5, (0, 2): 5, (0, 3): 8, (1, 2): 9, (1, 3): 10, (2, 3): 8}
    worth |= {(0, 1, 2): 13, (0, 1, 3): 15, (0, 2, 3): 16, (1, 2, 3): 17, (0, 1, 2, 3): 21}
    game = table_of(lambda s: worth.get(tuple(s), 0), 4)
    assert nucleolus(game).tolist() == pytest.approx([3.5, 4.5, 5.5, 7.5], abs=1e-6)
    expected = [3.9167, 5.25, 5.25, 6.5833]
    assert shapley(game, "exact").value.tolist() == pytest.approx(expected, abs=1e-4)


@given(st.integers(0, 10_000))
def test_convex_games_have_the_shapley_value_and_the_nucleolus_in_the_core(seed):
    rng = np.random.default_rng(seed)
    gains = np.where(np.arange(16) > 0, rng.exponential(size=16), 0)  # non-negative dividends make a convex game
    masks = coalition_masks(4).numpy()
    table = np.array([sum(gains[t] for t in range(16) if (masks[t] <= masks[s]).all()) for s in range(16)])
    game = TabularGame(table)
    assert not core_is_empty(game)
    assert core_excess(game, shapley(game, "exact").value).item() <= 1e-9
    assert core_excess(game, nucleolus(game)).item() <= 1e-6


@given(st.integers(0, 10_000))
def test_nucleolus_minimises_the_largest_complaint(seed):
    rng = np.random.default_rng(seed)
    table = rng.uniform(0, 5, 16)
    table[0] = 0
    table[[1, 2, 4, 8]] = 0  # the imputations are then all non-negative divisions
    table[15] = 8
    game = TabularGame(table)
    x = nucleolus(game)
    assert x.sum().item() == pytest.approx(8)
    assert (x >= -1e-7).all()
    mine = core_excess(game, x).item()
    others = torch.from_numpy(rng.dirichlet(np.ones(4), 500)) * 8
    masks = coalition_masks(4).double().T
    complaints = (game.values - others @ masks)[:, 1:-1].amax(1)
    assert mine <= complaints.min().item() + 1e-6


def test_reference_library_agrees_on_nucleoli():
    coopgame = pytest.importorskip("coopgame")
    rng = np.random.default_rng(0)
    for n in (3, 4, 5, 6):
        table = rng.uniform(0, 1, 1 << n)
        table[0] = 0
        table[1 << np.arange(n)] = 0
        table[-1] = 2
        reference = coopgame.nucleolus(coopgame.Game(table[1:].tolist()))["allocation"]
        assert nucleolus(TabularGame(table)).tolist() == pytest.approx(reference, abs=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: is_stable(torch.tensor([0, 0]), AdditiveHedonic(torch.zeros(2, 2)), "good"), "notion: one of"),
        (lambda: is_stable(torch.tensor([0, -1]), AdditiveHedonic(torch.zeros(2, 2)), "nash"), "a coalition for each"),
        (lambda: AdditiveHedonic(torch.zeros(2, 3)), r"expected \[N, N\]"),
        (lambda: nucleolus(TabularGame(torch.tensor([0.0, 2, 2, 1]))), "agents alone are worth 4"),
        (lambda: least_core(TabularGame(torch.ones(4))), "empty coalition must be worth 0"),
        (lambda: nucleolus(TabularGame(torch.zeros(1 << 15))), "at most 14 agents"),
        (lambda: core_is_empty(TabularGame(torch.zeros(2, 4))), "expected one game"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
