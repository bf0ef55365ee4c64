from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_games import random_factors

from coordination.credit import auto, banzhaf, difference, dividends, myerson, shapley
from coordination.games import (
    CriticGame,
    FactorGame,
    PairwiseGame,
    RestrictedGame,
    TabularGame,
    coalition_masks,
    tabulate,
)
from coordination.topology import Topology

seeds = st.integers(0, 10_000)


def table_of(rule, n: int) -> TabularGame:
    return TabularGame(torch.tensor([float(rule([i for i in range(n) if s >> i & 1])) for s in range(1 << n)]).double())


def voting(quota: int, weights: tuple[int, ...]) -> TabularGame:
    return table_of(lambda s: sum(weights[i] for i in s) >= quota, len(weights))


def random_table(seed: int, n: int = 5, batch: tuple[int, ...] = ()) -> torch.Tensor:
    table = torch.from_numpy(np.random.default_rng(seed).normal(size=(*batch, 1 << n)))
    table[..., 0] = 0
    return table


def renamed(table: torch.Tensor, order) -> torch.Tensor:
    n = len(order)
    index = torch.tensor([sum(1 << order[i] for i in range(n) if s >> i & 1) for s in range(1 << n)])
    result = torch.empty_like(table)
    result[index] = table
    return result


UN = table_of(lambda s: sum(i < 5 for i in s) == 5 and len(s) >= 9, 15)


@pytest.mark.parametrize(
    ("game", "expected"),
    [
        (table_of(lambda s: min(0 in s, (1 in s) + (2 in s)), 3), [2 / 3, 1 / 6, 1 / 6]),
        (voting(12, (4, 4, 4, 2, 2, 1)), [14 / 60] * 3 + [9 / 60] * 2 + [0]),
        (voting(4, (3, 2, 1, 1)), [1 / 2, 1 / 6, 1 / 6, 1 / 6]),
        (table_of(lambda s: max((1, 2, 4)[i] for i in s) if s else 0, 3), [1 / 3, 5 / 6, 17 / 6]),
        (UN, [421 / 2145] * 5 + [4 / 2145] * 10),
    ],
    ids=["glove", "eec-1958", "voting", "airport", "un-security-council"],
)
def test_shapley_of_known_games(game, expected):
    assert shapley(game, "exact").value.tolist() == pytest.approx(expected, abs=1e-12)


def test_banzhaf_of_known_games():
    swings = banzhaf(voting(12, (4, 4, 4, 2, 2, 1)), "exact").value
    assert (swings / swings.sum()).tolist() == pytest.approx([5 / 21] * 3 + [3 / 21] * 2 + [0])
    assert banzhaf(voting(4, (3, 2, 1, 1)), "exact").value.tolist() == pytest.approx([0.75, 0.25, 0.25, 0.25])


def test_myerson_on_a_path():
    pairs = table_of(lambda s: len(s) >= 2, 3)
    path = Topology([[0, 1, 1, 2], [1, 0, 2, 1]], 3)
    assert myerson(pairs, path).value.tolist() == pytest.approx([1 / 6, 2 / 3, 1 / 6])
    assert shapley(pairs).value.tolist() == pytest.approx([1 / 3] * 3)


@given(seeds)
def test_myerson_shares_each_component_exactly(seed):
    game = TabularGame(random_table(seed, 5))
    graph = Topology([[0, 1, 3], [1, 2, 4]], 5)  # {0, 1, 2} and {3, 4}
    value = myerson(game, graph).value
    assert value[:3].sum().item() == pytest.approx(game.values[0b00111].item())
    assert value[3:].sum().item() == pytest.approx(game.values[0b11000].item())
    complete = Topology(
        [[a for a in range(5) for b in range(5) if a != b], [b for a in range(5) for b in range(5) if a != b]], 5
    )
    assert torch.allclose(myerson(game, complete).value, shapley(game).value)
    assert tabulate(RestrictedGame(game, complete)).equal(game.values)


@given(seeds)
def test_efficiency(seed):
    table = random_table(seed, batch=(2, 3))
    table[..., 0] = 0.7  # what nobody earns is nobody's credit
    value = shapley(TabularGame(table), "exact").value
    assert value.shape == (2, 3, 5)
    assert torch.allclose(value.sum(-1), table[..., -1] - table[..., 0])


@given(seeds, st.permutations(range(5)))
def test_symmetry_and_equivariance(seed, order):
    table = random_table(seed)
    for rule in (shapley, banzhaf):
        value = rule(TabularGame(table), "exact").value
        moved = rule(TabularGame(renamed(table, order)), "exact").value
        assert torch.allclose(moved[torch.tensor(order)], value)
    swapped = renamed(table, [1, 0, 2, 3, 4])
    value = shapley(TabularGame((table + swapped) / 2), "exact").value  # agents 0 and 1 are alike
    assert value[0].item() == pytest.approx(value[1].item())


@given(seeds, st.floats(-3, 3))
def test_null_and_dummy_players(seed, alone):
    table = random_table(seed, 4)
    extended = torch.cat([table, table + alone])  # agent 4 adds `alone` to every coalition
    for rule in (shapley, banzhaf):
        value = rule(TabularGame(extended), "exact").value
        assert value[4].item() == pytest.approx(alone, abs=1e-9)
        assert torch.allclose(value[:4], rule(TabularGame(table), "exact").value)


@given(seeds)
def test_additivity_and_monotonicity(seed):
    first, second = random_table(seed), random_table(seed + 1)
    for rule in (shapley, banzhaf):
        both = rule(TabularGame(first + 2 * second), "exact").value
        parts = rule(TabularGame(first), "exact").value + 2 * rule(TabularGame(second), "exact").value
        assert torch.allclose(both, parts)
    raised = first.clone()
    raised[coalition_masks(5)[:, 2]] += torch.rand(16, generator=torch.Generator().manual_seed(seed)).double()
    before, after = (shapley(TabularGame(t), "exact").value[2] for t in (first, raised))
    assert after >= before  # agent 2 adds more to every coalition


@given(seeds)
def test_dividends_shared_equally_are_the_shapley_value(seed):
    table = random_table(seed)
    share = dividends(table)
    masks = coalition_masks(5).double()
    size = masks.sum(1).clamp(min=1)
    assert torch.allclose(share / size @ masks, shapley(TabularGame(table), "exact").value)
    inside = (masks.unsqueeze(0) <= masks.unsqueeze(1)).all(-1).double()
    assert torch.allclose(inside @ share, table)


@given(seeds)
def test_factor_by_factor_equals_enumeration(seed):
    game = random_factors(seed, batch=(2,))
    for rule in (shapley, banzhaf):
        local = rule(game, "factor")
        full = rule(TabularGame(tabulate(game)), "exact")
        assert torch.allclose(local.value, full.value, atol=1e-12)
        assert local.evaluations == 0
        assert (local.error == 0).all()


def test_twelve_agents_in_a_ring_of_triples():
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 8)))
    table[:, 0] = 0
    scopes = (torch.arange(12).unsqueeze(1) + torch.arange(3)) % 12
    game = FactorGame(scopes, table, 12)
    difference_to_full = shapley(game).value - shapley(TabularGame(tabulate(game)), "exact").value
    assert difference_to_full.abs().max() < 1e-14


def test_pairwise_games_share_every_pair():
    game = PairwiseGame(torch.tensor([1.0, 0, 0]), [[0, 1], [1, 2]], torch.tensor([2.0, -4.0]))
    for rule in (shapley, banzhaf):
        assert rule(game).value.tolist() == [2.0, -1.0, -2.0]


def test_a_hundred_thousand_agents_exactly():
    n = 100_000
    scopes = (torch.arange(n).unsqueeze(1) + torch.arange(3)) % n
    table = torch.zeros(n, 8)
    table[:, 7] = 3.0  # three in a row earn 3: everybody is in three such rows
    credit = shapley(FactorGame(scopes, table, n))
    assert credit.method == "factor"
    assert credit.value.tolist() == pytest.approx([3.0] * n)


def test_shapley_of_a_critic_carries_gradients():
    weight = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    present, absent = torch.ones(3, 1, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)

    def value(w: torch.Tensor) -> torch.Tensor:
        def critic(x: torch.Tensor) -> torch.Tensor:
            x = x.squeeze(-1)
            return torch.tanh(torch.einsum("mi,ij,mj->m", x, w, x))

        return shapley(CriticGame(critic, present, absent), "exact").value

    assert torch.autograd.gradcheck(value, weight)


def test_difference_rewards_by_hand_and_by_enumeration():
    game = PairwiseGame(torch.tensor([1.0, 0, 0]), [[0, 1], [1, 2]], torch.tensor([2.0, -4.0]))
    assert difference(game).tolist() == [3.0, -2.0, -4.0]
    assert torch.equal(difference(TabularGame(tabulate(game))), difference(game))
    factors = random_factors(3, batch=(2,))
    assert torch.allclose(difference(factors), difference(TabularGame(tabulate(factors))))


@given(seeds)
def test_difference_rewards_are_not_efficient(seed):
    rng = np.random.default_rng(seed)
    pairs = np.array([(a, b) for a in range(5) for b in range(a)]).T
    game = PairwiseGame(rng.normal(size=5), pairs, rng.normal(size=10))
    surplus = difference(game).sum() - tabulate(game)[-1]
    assert surplus.item() == pytest.approx(game.pair.sum().item())  # every pair is counted once too often


@pytest.mark.parametrize(
    ("game", "budget", "method"),
    [
        (PairwiseGame(torch.zeros(50), torch.zeros(2, 0), torch.zeros(0)), 10, "factor"),
        (TabularGame(torch.zeros(1 << 10)), 1024, "exact"),
        (TabularGame(torch.zeros(1 << 10)), 1000, "kernel"),
        (CriticGame(lambda x: x.sum((-1, -2)), torch.ones(70, 1), torch.zeros(70, 1)), 1000, "antithetic"),
        (CriticGame(lambda x: x.sum((-1, -2)), torch.ones(70, 1), torch.zeros(70, 1)), 100, "difference"),
    ],
)
def test_auto_says_what_it_chose(game, budget, method):
    credit = auto(game, budget, torch.Generator().manual_seed(0))
    assert credit.method == method
    assert credit.reason
    assert (credit.error == (math.inf if method == "difference" else 0)).all()
    assert credit.evaluations <= max(budget, 71)


def test_reference_libraries_agree():
    coopgame = pytest.importorskip("coopgame")
    for seed in range(50):
        n = 2 + seed % 7
        table = random_table(seed, n)
        reference = coopgame.Game(table[1:].tolist())
        assert shapley(TabularGame(table), "exact").value.tolist() == pytest.approx(
            coopgame.shapley(reference), abs=1e-9
        )
        assert banzhaf(TabularGame(table), "exact").value.tolist() == pytest.approx(
            coopgame.banzhaf(reference), abs=1e-9
        )


def test_shapiq_agrees():
    shapiq = pytest.importorskip("shapiq")
    for seed in range(50):
        n = 2 + seed % 7
        table = random_table(seed, n)

        def worth(x, table=table):
            return table[(torch.as_tensor(x).long() << torch.arange(x.shape[-1])).sum(-1)].numpy()

        computer = shapiq.ExactComputer(n_players=n, game=worth)
        reference = [float(computer("SV", order=1)[(i,)]) for i in range(n)]
        assert shapley(TabularGame(table), "exact").value.tolist() == pytest.approx(reference, abs=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: shapley(TabularGame(torch.zeros(4)), "kernal"), "did you mean 'kernel'"),  # type: ignore[arg-type]
        (lambda: shapley(TabularGame(torch.zeros(4)), "factor"), "needs a FactorGame or PairwiseGame"),
        (lambda: shapley(TabularGame(torch.zeros(4)), "kernel"), "give a generator"),
        (lambda: banzhaf(TabularGame(torch.zeros(4)), "paired"), "give a generator"),
        (lambda: banzhaf(TabularGame(torch.zeros(4)), "mean"), "unknown method 'mean'"),  # type: ignore[arg-type]
        (
            lambda: shapley(PairwiseGame(torch.zeros(21), torch.zeros(2, 0), torch.zeros(0)), "exact"),
            "at most 20 agents",
        ),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
