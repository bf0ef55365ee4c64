"""Gossip: the known decay on complete graphs, conserved sums, whole numbers that end one apart."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import connected, topology

from coordination.consensus import Gossip, gossip_rate, gossip_rounds, run
from coordination.consensus.links import opposite
from coordination.topology import Topology


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_squared_deviation_on_a_complete_graph_decays_at_the_exact_rate():
    complete, runs = topology(nx.complete_graph(10)), 20_000
    x = torch.zeros(runs, 10, dtype=torch.float64)
    x[:, 0] = 1.0
    before = (x - x.mean(-1, keepdim=True)).square().sum(-1)
    value = run(Gossip(), x, complete, rounds=20, generator=rng(0)).value
    ratio = (value - value.mean(-1, keepdim=True)).square().sum(-1) / before
    error = float(ratio.std()) / runs**0.5
    assert abs(float(ratio.mean()) - 0.09483) < 3 * error  # (1 - 1/9)^20


def expected_exchange(graph: Topology) -> np.ndarray:
    """Mean over callers and callees of the averaging matrix of their exchange."""
    n = graph.num_agents
    total = np.zeros((n, n))
    for source, receiver in graph.edges.T.tolist():
        swap = np.eye(n)[source] - np.eye(n)[receiver]
        total += (np.eye(n) - np.outer(swap, swap) / 2) / (n * int(graph.in_degree[receiver]))
    return total


@given(connected(3))
def test_rate_is_the_second_eigenvalue_of_the_expected_exchange(graph):
    values = np.linalg.eigvalsh(expected_exchange(graph))
    assert gossip_rate(graph) == pytest.approx(values[-2], abs=1e-9)


def test_bounds_on_the_averaging_time():
    complete = topology(nx.complete_graph(10))
    assert gossip_rate(complete) == pytest.approx(8 / 9)
    low, high = gossip_rounds(complete, 0.01)
    assert low == pytest.approx(0.5 * np.log(100) / np.log(9 / 8))
    assert high == pytest.approx(6 * low)
    with pytest.raises(ValueError, match="not connected, no number of rounds"):
        gossip_rounds(topology(nx.Graph([(0, 1), (2, 3)])), 0.01)


@given(connected(), st.integers(0, 2**31), st.sampled_from(["pair", "matching"]))
def test_every_exchange_keeps_the_sum_and_makes_pairs_equal(graph, seed, pairs):
    x = torch.randn(4, graph.num_agents, 2, generator=rng(seed), dtype=torch.float64)
    protocol = Gossip(pairs)
    value = protocol.step(protocol.init(x, graph), graph, generator=rng(seed)).value
    assert torch.allclose(value.sum(-2), x.sum(-2))
    for before, after in zip(x, value, strict=True):
        changed = (before != after).any(-1).nonzero().squeeze(-1).tolist()
        assert len(changed) == 2 or (pairs == "matching" and len(changed) % 2 == 0 and changed)
        for agent in changed:
            partners = [j for j in changed if j != agent and torch.equal(after[j], after[agent])]
            assert len(partners) == 1
            assert torch.allclose(after[agent], (before[agent] + before[partners[0]]) / 2)
            assert [agent, partners[0]] in graph.edges.T.tolist()


@pytest.mark.parametrize("pairs", ["pair", "matching"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_whole_numbers_end_as_the_average_rounded_down_or_up(pairs, dtype):
    numbers = torch.from_numpy(np.random.default_rng(3).integers(0, 100, size=(5, 12))).to(dtype)
    circle = topology(nx.cycle_graph(12))
    result = run(
        Gossip(pairs, quantised=True), numbers, circle, rounds=5000 if pairs == "pair" else 800, generator=rng(1)
    )
    assert result.value.dtype == dtype
    assert torch.equal(result.value.sum(-1), numbers.sum(-1))
    mean = numbers.double().mean(-1, keepdim=True)
    assert ((result.value == mean.floor()) | (result.value == mean.ceil())).all()


@given(connected(), st.integers(0, 2**31))
def test_a_failed_link_carries_no_exchange(graph, seed):
    x = torch.randn(3, graph.num_agents, 1, generator=rng(seed))
    up = torch.rand(3, graph.num_edges, generator=rng(seed + 1)) < 0.5
    for pairs in ("pair", "matching"):
        protocol = Gossip(pairs)
        value = protocol.step(protocol.init(x, graph), graph, up, rng(seed)).value
        for b in range(3):
            for agent in (value[b] != x[b]).any(-1).nonzero().squeeze(-1).tolist():
                into = (graph.edges[1] == agent) & up[b] & up[b, opposite(graph)]
                assert into.any()


def test_same_generator_same_run_and_conditions_are_named():
    circle = topology(nx.cycle_graph(6))
    x = torch.rand(2, 6)
    first, second = (run(Gossip(), x, circle, rounds=30, generator=rng(5)).value for _ in range(2))
    assert torch.equal(first, second)
    assert torch.allclose(run(Gossip("matching"), x, circle, tol=1e-4, generator=rng(5)).value.mean(-1), x.mean(-1))
    with pytest.raises(ValueError, match=r"pass a torch\.Generator"):
        run(Gossip(), x, circle, rounds=1)
    with pytest.raises(ValueError, match="needs whole numbers"):
        run(Gossip(quantised=True), x, circle, rounds=1, generator=rng(0))
    with pytest.raises(ValueError, match="has one-way edges"):
        run(Gossip(), x, Topology([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]], 6), rounds=1, generator=rng(0))
    with pytest.raises(ValueError, match="'pair' or 'matching'"):
        Gossip("broadcast")  # type: ignore[arg-type]
