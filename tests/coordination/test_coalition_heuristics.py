from __future__ import annotations

from itertools import pairwise as pairwise_of

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from value_distributions import NAMES, draw

from coordination.coalition import (
    BestResponse,
    CLink,
    Coalitions,
    Community,
    EmbeddingClusters,
    MergeSplit,
    Shares,
    form_batch,
    is_stable,
    optimal_structure,
    structure_value,
)
from coordination.coalition.moving import move_to_rest, symmetric_links
from coordination.games import PairwiseGame, TabularGame, tabulate
from coordination.topology import Topology

HEURISTICS = [CLink(), MergeSplit(), BestResponse()]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def signed(n: int, seed: int) -> PairwiseGame:
    pairs = torch.combinations(torch.arange(n)).T
    weight = torch.randn(pairs.shape[1], generator=generator(seed), dtype=torch.float64)
    return PairwiseGame(torch.zeros(n, dtype=torch.float64), pairs, weight)


def planted(n: int, blocks: int, seed: int = 0) -> tuple[PairwiseGame, torch.Tensor]:
    block = torch.arange(n) % blocks
    pairs = torch.combinations(torch.arange(n)).T
    size = 0.5 + torch.rand(pairs.shape[1], generator=generator(seed), dtype=torch.float64)
    weight = torch.where(block[pairs[0]] == block[pairs[1]], size, -size)
    return PairwiseGame(torch.zeros(n, dtype=torch.float64), pairs, weight), block


@pytest.mark.parametrize("former", HEURISTICS, ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("name", NAMES)
def test_gaps_are_true_on_general_games(former, name):
    game = TabularGame(draw(name, 9, seed=5))
    best = optimal_structure(game).value.item()
    for topology in (None, Topology(np.stack([np.arange(9), (np.arange(9) + 1) % 9]), 9)):
        found = former.form(game, topology)
        assert found.value.item() == structure_value(game, found.label).item()
        assert found.value.item() <= best + 1e-9
        assert best <= found.upper_bound.item() + 1e-9


@given(st.integers(0, 10_000))
def test_gaps_are_true_on_signed_graphs(seed):
    game = signed(8, seed)
    best = optimal_structure(game).value.item()
    for former in HEURISTICS:
        found = former.form(game)
        assert found.value.item() <= best + 1e-9
        assert best <= found.upper_bound.item() + 1e-9


def test_heuristics_come_near_the_optimum_of_signed_graphs():
    # means on 25 games of 12 agents when written: C-Link .979, merge and split .985, best response .939
    ratio = {type(f).__name__: [] for f in HEURISTICS}
    for seed in range(10):
        game = signed(12, seed)
        best = optimal_structure(game).value.item()
        for former in HEURISTICS:
            ratio[type(former).__name__].append(former.form(game).value.item() / best)
    assert all(np.mean(r) > 0.92 for r in ratio.values()), {k: np.mean(r) for k, r in ratio.items()}
    assert all(min(r) > 0.7 for r in ratio.values())


@pytest.mark.parametrize("former", HEURISTICS, ids=lambda f: type(f).__name__)
def test_planted_blocks_are_found_at_scale(former):
    game, block = planted(60, 5)
    found = former.form(game)
    assert torch.equal(found.label, block)
    assert found.gap.item() == pytest.approx(0, abs=1e-9)  # every positive link is kept, no negative one


def test_c_link_on_links_equals_c_link_on_all_pairs():
    for seed in range(10):
        game = signed(9, seed)
        sparse = CLink().form(game)
        dense = CLink().form(TabularGame(tabulate(game)))
        assert torch.equal(sparse.label, dense.label)


def test_c_link_by_hand():
    # the heaviest link 1-2 goes first; then {1, 2} and 0 would gain 2 - 4 < 0
    game = PairwiseGame(torch.zeros(3), [[0, 1, 0], [1, 2, 2]], torch.tensor([2.0, 3.0, -4.0]))
    found = CLink().form(game)
    assert found.label.tolist() == [0, 1, 1]
    assert found.value.item() == 3.0
    assert found.upper_bound.item() == 3.0


def test_merging_along_links_keeps_coalitions_connected():
    line = Topology(np.stack([np.arange(8), np.arange(8) + 1]), 9, "line")
    table = draw("uniform", 9, seed=1)
    found = CLink().form(TabularGame(table), line)
    for c in range(int(found.num_coalitions)):
        agents = (found.label == c).nonzero().flatten()
        assert torch.equal(agents, torch.arange(agents[0], agents[-1] + 1))


@given(st.integers(0, 10_000))
def test_merge_and_split_ends_where_neither_helps(seed):
    table = np.random.default_rng(seed).normal(size=128)
    table[0] = 0
    game = TabularGame(table)
    found = MergeSplit().form(game)
    assert torch.equal(MergeSplit().form(game, previous=found).label, found.label)
    bits = [sum(1 << i for i in range(7) if found.label[i] == c) for c in range(int(found.num_coalitions))]
    for a in bits:
        for b in bits:
            assert a == b or table[a | b] <= table[a] + table[b] + 1e-9
        part = (a - 1) & a
        while part:
            assert table[part] + table[a ^ part] <= table[a] + 1e-9
            part = (part - 1) & a


def test_large_coalitions_lose_single_agents():
    game = PairwiseGame(torch.full((30,), -1.0), torch.zeros(2, 0), torch.zeros(0))
    everybody = Coalitions(torch.zeros(30, dtype=torch.long))
    costly = PairwiseGame(torch.zeros(30), *_star(30, -1.0))
    found = MergeSplit(split_limit=4).form(costly, previous=everybody)
    assert (found.label[1:] != found.label[0]).all()
    assert MergeSplit(split_limit=4).form(game, previous=everybody).num_coalitions.item() == 1  # nothing to gain


def _star(n: int, weight: float):
    edges = torch.stack([torch.zeros(n - 1, dtype=torch.long), torch.arange(1, n)])
    return edges, torch.full((n - 1,), weight)


@given(st.integers(0, 10_000))
def test_the_potential_rises_with_every_pass(seed):
    game = signed(20, seed)
    links = symmetric_links(game.edges, game.pair, 20)
    label, order = np.arange(20), torch.randperm(20, generator=generator(seed)).numpy()
    worth = [game.structure_value(torch.from_numpy(label)).item()]
    for _ in range(100):
        try:
            label = move_to_rest(links, label, order, max_passes=1)
            break
        except RuntimeError:  # one pass was not enough: take it and go on
            label = _one_pass(links, label, order)
        worth.append(game.structure_value(torch.from_numpy(label)).item())
    assert all(b > a for a, b in pairwise_of(worth))
    rest = BestResponse().form(game, generator=generator(seed))
    assert rest.value.item() == pytest.approx(worth[-1])


def _one_pass(links, label, order):
    from coordination.coalition import moving

    label = label.copy()
    count = np.bincount(label, minlength=label.size)
    empty = np.flatnonzero(count == 0)[::-1].copy()
    zero = np.zeros(label.size)
    awake = np.ones(label.size, dtype=bool)
    rows = links.indptr, links.indices, links.data, zero, order
    moving._pass(*rows, label, zero.copy(), count, zero.copy(), awake, empty, 0.0, 0.0)
    return label


@given(st.integers(0, 10_000))
def test_best_response_is_nash_stable(seed):
    game = signed(9, seed)
    assert is_stable(BestResponse().form(game).label, Shares(game), "nash")
    general = TabularGame(draw("agent_normal", 6, seed))
    assert is_stable(BestResponse().form(general, generator=generator(seed)).label, Shares(general), "nash")


def test_sparse_and_general_best_response_agree():
    for seed in range(10):
        game = signed(8, seed)
        assert torch.equal(BestResponse().form(game).label, BestResponse().form(TabularGame(tabulate(game))).label)


def test_best_response_starts_from_previous_and_warm_starts_rest():
    game, block = planted(30, 3)
    found = BestResponse().form(game, previous=Coalitions(block))
    assert torch.equal(found.label, block)


def test_communities_and_clusters_tell_the_worth_of_a_game():
    game, block = planted(12, 3)
    inside = game.edges[:, block[game.edges[0]] == block[game.edges[1]]]
    topology = Topology(torch.cat([inside, inside.flip(0)], 1), 12)
    x = torch.nn.functional.one_hot(block).double()
    for former in (Community(), EmbeddingClusters(3)):
        found = former.form(game, topology, features=x, generator=generator())
        assert torch.equal(found.label, block)
        assert found.value.item() == pytest.approx(optimal_structure(game).value.item())
        assert found.gap.item() == pytest.approx(0, abs=1e-9)


def test_formers_at_scale():
    n = 4_000
    rng = np.random.default_rng(0)
    edges = np.unique(np.sort(rng.integers(0, n, (2, 4 * n)), 0), axis=1)
    edges = edges[:, edges[0] != edges[1]]
    game = PairwiseGame(np.zeros(n), edges, rng.normal(size=edges.shape[1]))
    for former in (BestResponse(), CLink()):
        found = former.form(game)
        assert 0 < found.value.item() <= found.upper_bound.item() < float("inf")


def test_batched_formation_equals_the_loop():
    pairs = torch.combinations(torch.arange(6)).T
    pair = torch.randn(2, 2, 15, generator=generator(), dtype=torch.float64)
    batch = PairwiseGame(torch.zeros(2, 2, 6, dtype=torch.float64), pairs, pair)
    found = form_batch(BestResponse(), batch)
    assert found.label.shape == (2, 2, 6)
    one = BestResponse().form(PairwiseGame(torch.zeros(6, dtype=torch.float64), pairs, pair[1, 0]))
    assert torch.equal(found.label[1, 0], one.label)
    assert found.value[1, 0] == one.value


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MergeSplit(0).form(signed(4, 0)), r"split_limit: must be in 1\.\.20"),
        (lambda: BestResponse().form(signed(4, 0), previous=Coalitions(torch.zeros(3).long())), "previous: expected"),
        (lambda: CLink().form(_Opaque(3000)), "3000 coalitions have too many pairs"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


class _Opaque:
    def __init__(self, n: int):
        self.num_agents = n

    def value(self, mask):
        return mask.sum(-1).float()
