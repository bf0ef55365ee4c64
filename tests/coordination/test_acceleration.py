"""Chebyshev within its bound in every round; finite-time and one-peer averaging exact."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import connected, topology

from coordination.consensus import Averaging, Chebyshev, FiniteTime, leja_order, one_peer_exponential, run


def deviation(x: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(x - x.mean(-2, keepdim=True)))


def test_chebyshev_keeps_its_bound_in_every_round_of_a_long_ring():
    ring = topology(nx.cycle_graph(100))
    sigma = 1 / 3 + 2 / 3 * math.cos(2 * math.pi / 100)
    x = torch.randn(100, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    protocol = Chebyshev()
    state = protocol.init(x, ring)
    for k in range(1, 301):
        state = protocol.step(state, ring)
        assert deviation(state.value) <= deviation(x) / math.cosh(k * math.acosh(1 / sigma)) * (1 + 1e-9)
        assert state.value.mean().item() == pytest.approx(x.mean().item(), abs=1e-12)
    assert deviation(state.value) < 1e-6 * deviation(x)  # plain averaging needs about 30 times the rounds
    assert deviation(run(Averaging(), x, ring, rounds=3000, feature_dims=1).value) > 1e-3 * deviation(x)


@given(connected(3), st.integers(0, 2**31), st.sampled_from(["metropolis", "best_constant"]))
def test_chebyshev_keeps_its_bound_on_any_graph(graph, seed, kind):
    sigma = max(graph.slem(kind), 1e-3)
    x = torch.randn(2, graph.num_agents, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    protocol = Chebyshev(kind)
    state = protocol.init(x, graph)
    for k in range(1, 9):
        state = protocol.step(state, graph)
        for before, after in zip(x, state.value, strict=True):
            bound = deviation(before) / math.cosh(k * math.acosh(1 / sigma))
            assert deviation(after) <= bound * (1 + 1e-6) + 1e-12


def test_overestimated_sigma_still_converges():
    ring = topology(nx.cycle_graph(12))
    x = torch.arange(12.0, dtype=torch.float64)
    assert torch.allclose(run(Chebyshev(sigma=0.99), x, ring, rounds=200).value, x.mean())


@pytest.mark.parametrize(
    ("graph", "rounds"),
    [
        (nx.hypercube_graph(4), 4),
        (nx.petersen_graph(), 2),
        (nx.star_graph(9), 2),
        (nx.complete_bipartite_graph(3, 5), 3),
        (nx.complete_graph(6), 1),
    ],
)
def test_finite_time_is_exact_after_one_round_per_eigenvalue(graph, rounds):
    graph = topology(graph)
    x = torch.randn(3, graph.num_agents, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = x.mean(-1, keepdim=True).expand_as(x)
    assert torch.allclose(run(FiniteTime(), x, graph, rounds=rounds).value, exact, atol=1e-12)
    assert not torch.allclose(run(FiniteTime(), x, graph, rounds=rounds - 1).value, exact, atol=1e-3)
    assert torch.allclose(run(FiniteTime(), x, graph, rounds=rounds + 3).value, exact, atol=1e-12)


def test_finite_time_takes_known_eigenvalues():
    cube = topology(nx.hypercube_graph(3))
    x = torch.arange(8.0, dtype=torch.float64)
    assert torch.allclose(run(FiniteTime((2.0, 4.0, 6.0)), x, cube, rounds=3).value, x.mean())


def test_leja_order_by_hand():
    # 6 is farthest from 0; then |4-0||4-6| = 8 = |2-0||2-6|, the first listed wins; then the last
    assert leja_order((2.0, 4.0, 6.0)) == (6.0, 4.0, 2.0)
    assert leja_order((1.0, 5.0, 9.0, 10.0))[:2] == (10.0, 5.0)


@pytest.mark.parametrize("n", [2, 16, 64])
def test_one_peer_rounds_average_exactly_at_powers_of_two(n):
    graphs = one_peer_exponential(n)
    assert len(graphs) == math.log2(n)
    assert all(graph.num_edges == n for graph in graphs)
    x = torch.randn(n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    result = run(Averaging("mean"), x, graphs, rounds=len(graphs))
    assert torch.allclose(result.value, x.mean(), atol=1e-12)
    assert result.residual < 1e-12
    if n > 2:
        assert run(Averaging("mean"), x, graphs, rounds=len(graphs) - 1).residual > 1e-2


def test_one_peer_rounds_converge_for_other_numbers():
    x = torch.arange(6.0, dtype=torch.float64)
    graphs = one_peer_exponential(6)
    assert run(Averaging("mean"), x, graphs, rounds=3).residual > 1e-3
    assert torch.allclose(run(Averaging("mean"), x, graphs, tol=1e-10).value, x.mean())


def test_conditions_that_fail_are_named():
    apart, square = topology(nx.Graph([(0, 1), (2, 3)])), topology(nx.cycle_graph(4))
    x = torch.arange(4.0)
    for protocol in (Chebyshev(), FiniteTime()):
        with pytest.raises(ValueError, match="the graph is not connected"):
            run(protocol, x, apart, rounds=1)
        with pytest.raises(ValueError, match="belong to one graph, got a sequence of 2"):
            run(protocol, x, [square, square], rounds=1)
        with pytest.raises(ValueError, match="lost messages would break it"):
            protocol.step(protocol.init(x.unsqueeze(1), square), square, torch.ones(8, dtype=torch.bool))
        with pytest.raises(ValueError, match="needs one topology shared by all samples"):
            run(protocol, x, square, rounds=1, alive=torch.tensor([True, True, True, False]))
    with pytest.raises(ValueError, match=r"'mh' weights do not converge on this graph \(factor 1"):
        run(Chebyshev("mh"), x, square, rounds=1)
    with pytest.raises(ValueError, match="not symmetric"):
        Chebyshev("mean")
    with pytest.raises(ValueError, match="49 distinct nonzero eigenvalues; above 20"):
        run(FiniteTime(), torch.rand(50), topology(nx.path_graph(50)), rounds=1)
