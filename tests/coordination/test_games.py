from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.games import (
    CriticGame,
    EnvGame,
    FactorGame,
    Game,
    PairwiseGame,
    RestrictedGame,
    TabularGame,
    coalition_masks,
    evaluate,
    pack_bits,
    tabulate,
)
from coordination.topology import Topology


def random_factors(seed: int, n: int = 6, factors: int = 7, batch: tuple[int, ...] = ()) -> FactorGame:
    rng = np.random.default_rng(seed)
    scopes = np.full((factors, 3), -1)
    for f in range(factors):
        width = rng.integers(1, 4)
        scopes[f, :width] = rng.choice(n, width, replace=False)
    tables = rng.normal(size=(*batch, factors, 8))
    tables[..., 0] = 0.0
    return FactorGame(scopes, tables, n)


def test_masks_and_numbers_are_inverse():
    masks = coalition_masks(5)
    assert masks.shape == (32, 5)
    assert torch.equal(pack_bits(masks), torch.arange(32))
    assert masks[6].tolist() == [False, True, True, False, False]


def test_factor_game_by_hand():
    # two factors: {2, 0} pays 3 when both are there and 1 for agent 2 alone; {1} pays 10
    game = FactorGame.from_factors([([2, 0], [0, 1, 0, 3]), ([1], [0, 10])], 3)
    worth = game.value(torch.tensor([[1, 0, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1]]).bool())
    assert worth.tolist() == [0.0, 1.0, 3.0, 13.0]


def test_pairwise_game_equals_its_factors():
    edges = torch.tensor([[0, 1, 3], [1, 2, 0]])
    pair, unary = torch.tensor([1.0, -2.0, 4.0]), torch.tensor([0.5, 0.0, 1.0, 2.0])
    as_factors = FactorGame.from_factors(
        [([i], [0, float(u)]) for i, u in enumerate(unary)]
        + [((int(a), int(b)), [0, 0, 0, float(w)]) for (a, b), w in zip(edges.T, pair, strict=True)],
        4,
    )
    assert torch.allclose(tabulate(PairwiseGame(unary, edges, pair)).double(), tabulate(as_factors))


@given(st.integers(0, 1000))
def test_structure_value_without_masks_equals_the_sum_over_coalitions(seed):
    rng = np.random.default_rng(seed)
    game = random_factors(seed)
    pairs = np.array([(a, b) for a in range(6) for b in range(a + 1, 6)]).T
    graph = PairwiseGame(rng.normal(size=6), pairs, rng.normal(size=15))
    label = torch.from_numpy(rng.integers(-1, 4, 6))
    masks = torch.stack([label == c for c in range(4)])
    for g in (game, graph):
        assert torch.allclose(g.structure_value(label), g.value(masks).sum(), atol=1e-12)


def test_factors_worth_something_empty_count_once_a_coalition():
    game = FactorGame([[0, 1]], [[2.0, 3.0, 4.0, 9.0]], 3)
    label = torch.tensor([0, 1, 2])
    assert game.structure_value(label).item() == 3.0 + 4.0 + 2.0  # {0}, {1}, {2}


def test_batches_equal_loops():
    game = random_factors(1, batch=(2, 3))
    masks = coalition_masks(6)
    together = game.value(masks)
    assert together.shape == (2, 3, 64)
    for b in range(2):
        one = FactorGame(game.scopes, game.tables[b, 1], 6)
        assert torch.equal(together[b, 1], one.value(masks))


def test_critic_game_replaces_absent_agents():
    present = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])  # [B=2, N=2, D=1]
    game = CriticGame(lambda x: x.prod(-2).squeeze(-1), present, torch.tensor([[10.0], [20.0]]))
    assert game.value(torch.tensor([[True, False], [False, False]])).tolist() == [[20.0, 200.0], [60.0, 200.0]]


def test_critic_game_carries_gradients():
    weight = torch.tensor([2.0, 3.0], requires_grad=True)
    game = CriticGame(lambda x: (x.squeeze(-1) * weight).sum(-1), torch.ones(2, 1), torch.zeros(2, 1))
    evaluate(game, torch.tensor([[True, False]])).sum().backward()
    assert weight.grad.tolist() == [1.0, 0.0]


def test_env_game_passes_a_function_of_the_coalition():
    game = EnvGame(lambda mask: mask.sum(-1).float() ** 2, 3)
    assert isinstance(game, Game)
    assert game.value(coalition_masks(3)).tolist() == [0, 1, 1, 4, 1, 4, 4, 9]


def test_env_game_refuses_what_is_no_function_of_the_coalition():
    generator = torch.Generator().manual_seed(0)
    noisy = EnvGame(lambda mask: mask.sum(-1) + torch.rand(len(mask), generator=generator), 3)
    with pytest.raises(ValueError, match="not a function of its coalition"):
        noisy.value(coalition_masks(3))
    by_position = EnvGame(lambda mask: torch.arange(len(mask)).float(), 3)
    with pytest.raises(ValueError, match="not a function of its coalition"):
        by_position.value(coalition_masks(3))
    calls = []
    drifting = EnvGame(lambda mask: (calls.append(1), mask.sum(-1).float() + len(calls))[1], 3)
    with pytest.raises(ValueError, match="not a function of its coalition"):
        drifting.value(coalition_masks(3)[:1])


def test_restricted_game_sums_over_components():
    table = torch.rand(16, dtype=torch.float64)
    game = RestrictedGame(TabularGame(table), Topology([[0, 1], [1, 2]], 4))  # 0 -> 1 -> 2, 3 alone; one-way links join
    worth = game.value(torch.tensor([[1, 1, 0, 1], [1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool())
    expected = [table[0b0011] + table[0b1000], table[1] + table[4], table[7] + table[8], torch.tensor(0.0)]
    assert torch.allclose(worth, torch.stack([torch.as_tensor(x).double() for x in expected]))


def test_large_sums_never_need_a_table():
    n = 2000
    game = PairwiseGame(torch.ones(n), torch.stack([torch.arange(n - 1), torch.arange(1, n)]), torch.ones(n - 1))
    assert game.value(torch.ones(1, n, dtype=torch.bool)).item() == 2 * n - 1
    with pytest.raises(ValueError, match=r"2000 agents have 2\^2000 coalitions"):
        tabulate(game)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TabularGame(torch.zeros(6)), r"expected 2\^N worths"),
        (lambda: FactorGame([[0, 0]], [[0.0] * 4], 2), "stands twice"),
        (lambda: FactorGame([[-1, 0]], [[0.0] * 4], 2), "padding"),
        (lambda: FactorGame([[0, 5]], [[0.0] * 4], 2), r"agents are 0\.\.1"),
        (lambda: FactorGame([[0, 1]], [[0.0] * 3], 2), "expected scopes"),
        (lambda: FactorGame.from_factors([([0], [0.0])], 2), "1 agents need 2 worths"),
        (lambda: PairwiseGame(torch.zeros(3), [[0, 1], [1, 0]], torch.ones(2)), "stands twice"),
        (lambda: PairwiseGame(torch.zeros(3), [[1], [1]], torch.ones(1)), "to itself"),
        (lambda: PairwiseGame(torch.zeros(3), [[1], [2]], torch.ones(2)), "expected unary"),
        (lambda: TabularGame(torch.zeros(4)).value(torch.zeros(1, 3).bool()), r"expected \[M, N\] with N = 2"),
        (lambda: evaluate(TabularGame(torch.tensor([0.0, torch.nan])), coalition_masks(1)), "finite"),
        (lambda: RestrictedGame(TabularGame(torch.zeros(4)), Topology([[0], [1]], 3)), "expected 2 agents"),
        (lambda: CriticGame(lambda x: x, torch.zeros(2, 1), torch.zeros(3, 1)), "expected present"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_mask_must_be_boolean():
    with pytest.raises(TypeError, match="expected bool"):
        TabularGame(torch.zeros(4)).value(torch.zeros(1, 2))


def test_worths_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="every worth must be finite"):
        tabulate(TabularGame(torch.tensor([0.0, torch.nan])))
