"""Averaging: the published table, closed forms, invariants, conditions refused, gradients."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import EIGHT, connected, cut_grid, eight, fifty, relabelled, topology

from coordination.consensus import Averaging, both_ways, convergence_factor, mix, rounds_to, run
from coordination.consensus.links import edge_weights, opposite
from coordination.graph import Graph
from coordination.topology import Topology

FASTEST = (
    0.50255,
    0.43226,
    0.07502,
    0.3429,
    -0.03418,
    0.07502,
    0.21902,
    0.33811,
    0.21902,
    0.24391,
    0.14512,
    0.41934,
    0.33811,
)


@pytest.mark.parametrize(
    ("graph", "links", "expected"),
    [
        (eight(), 13, (0.7743, 0.7793, 0.7119)),
        (fifty(), 200, (0.9489, 0.9706, 0.9470)),
        (cut_grid(), 95, (0.9917, 0.9927, 0.9921)),
    ],
)
def test_the_published_table(graph, links, expected):
    """CVX, examples/graph_laplacian; the two optimal columns are in test_weights.py."""
    assert graph.num_edges == 2 * links
    factors = [convergence_factor(graph, kind) for kind in ("mh", "max_degree", "best_constant")]
    assert factors == pytest.approx(expected, abs=5e-5)


def test_the_two_metropolis_conventions_differ():
    assert convergence_factor(eight(), "metropolis") == pytest.approx(0.8126, abs=5e-5)


def exponential(n: int) -> Topology:
    hops = [2**k for k in range(math.ceil(math.log2(n)))]
    return Topology(np.array([[i, (i + h) % n] for i in range(n) for h in hops]).T, n)


@pytest.mark.parametrize(
    ("graph", "kind", "expected"),
    [
        (topology(nx.cycle_graph(10)), "metropolis", 1 / 3 + 2 / 3 * math.cos(2 * math.pi / 10)),
        (topology(nx.cycle_graph(100)), "metropolis", 0.998684),
        (topology(nx.hypercube_graph(4)), "best_constant", 0.6),
        (topology(nx.star_graph(9)), "best_constant", 9 / 11),
        (topology(nx.path_graph(10)), "best_constant", math.cos(math.pi / 10)),
        (topology(nx.petersen_graph()), "best_constant", 3 / 7),
        (exponential(64), "mean", 5 / 7),
        (topology(nx.complete_graph(7)), "metropolis", 0.0),
    ],
)
def test_closed_form_factors(graph, kind, expected):
    assert convergence_factor(graph, kind) == pytest.approx(expected, abs=1e-6)


def test_rounds_by_topology():
    ring = 1 / 3 + 2 / 3 * math.cos(2 * math.pi / 692)
    assert rounds_to(1e-3, ring) == pytest.approx(251_367, abs=1)
    assert rounds_to(1e-3, ring, accelerated=True) == pytest.approx(1_025, abs=1)
    assert rounds_to(1e-3, 0.0) == 1
    with pytest.raises(ValueError, match="0 <= factor < 1"):
        rounds_to(1e-3, 1.0)


def test_one_round_by_hand():
    line = topology(nx.path_graph(3))  # Metropolis weights 1/3 on both links
    x = torch.tensor([3.0, 0.0, 6.0])
    assert torch.allclose(run(Averaging(), x, line, rounds=1).value, torch.tensor([2.0, 3.0, 4.0]))
    lazy = run(Averaging(lazy=0.5), x, line, rounds=1).value
    assert torch.allclose(lazy, torch.tensor([2.5, 1.5, 5.0]))


def test_a_fixed_run_contracts_at_the_factor():
    ring, n = topology(nx.cycle_graph(10)), 10
    x = torch.cos(2 * torch.pi * torch.arange(n, dtype=torch.float64) / n)  # the slowest mode
    assert torch.allclose(run(Averaging(), x, ring, rounds=7).value, x * convergence_factor(ring) ** 7)


@given(connected(), st.integers(0, 2**31), st.sampled_from(["metropolis", "mh", "max_degree", "best_constant"]))
def test_the_average_stays_in_every_round_and_metropolis_stays_in_the_hull(graph, seed, kind):
    x = torch.randn(3, graph.num_agents, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    protocol = Averaging(kind)
    state = protocol.init(x, graph)
    for _ in range(5):
        state = protocol.step(state, graph)
        assert torch.allclose(state.value.mean(-2), x.mean(-2), atol=1e-12)
        if kind == "metropolis":
            assert (state.value <= x.amax(-2, keepdim=True) + 1e-12).all()


@given(connected(), st.integers(0, 2**31))
def test_lost_exchanges_keep_the_average_and_lost_messages_do_not(graph, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, graph.num_agents, 1, generator=generator, dtype=torch.float64)
    arrives = torch.rand(4, graph.num_edges, generator=generator) < 0.5
    protocol = Averaging()
    both = protocol.step(protocol.init(x, graph), graph, both_ways(arrives, graph)).value
    assert torch.allclose(both.mean(-2), x.mean(-2), atol=1e-12)
    one_way = torch.zeros(graph.num_edges, dtype=torch.bool)
    one_way[0] = True
    drifted = protocol.step(protocol.init(x, graph), graph, one_way).value
    source, receiver = graph.edges[:, 0]
    gain = edge_weights(graph, "metropolis")[0] * (x[:, source, 0] - x[:, receiver, 0])
    assert torch.allclose(drifted.sum(-2)[..., 0] - x.sum(-2)[..., 0], gain)


@given(connected(), st.integers(0, 2**31))
def test_links_that_are_down_do_not_exist(graph, seed):
    rng = np.random.default_rng(seed)
    keep = rng.random(graph.num_edges) < 0.7
    keep &= keep[opposite(graph).numpy()]
    x = torch.from_numpy(rng.normal(size=(2, graph.num_agents, 3)))
    live = torch.from_numpy(keep)
    smaller = Topology(graph.edges.numpy()[:, keep], graph.num_agents)
    for kind in ("metropolis", "max_degree"):
        by_mask = run(Averaging(kind), x, Graph(graph, live=live), rounds=3, feature_dims=1).value
        assert torch.allclose(by_mask, run(Averaging(kind), x, smaller, rounds=3, feature_dims=1).value)
    own = Graph.from_edges(graph.edges.expand(2, -1, -1), graph.num_agents, live=live.expand(2, -1))
    per_sample = run(Averaging(), x, own, rounds=3, feature_dims=1).value
    assert torch.allclose(per_sample, run(Averaging(), x, smaller, rounds=3, feature_dims=1).value)


@given(connected(3), connected(3), st.integers(0, 2**31))
def test_a_disjoint_union_equals_a_loop(first, second, seed):
    n, m = first.num_agents, second.num_agents
    x = torch.randn(n + m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    union = Topology(torch.cat([first.edges, second.edges + n], 1), n + m)
    together = run(Averaging(), x, union, rounds=4).value
    apart = [run(Averaging(), x[:n], first, rounds=4).value, run(Averaging(), x[n:], second, rounds=4).value]
    assert torch.allclose(together, torch.cat(apart))


@given(connected(), st.integers(0, 2**31))
def test_renaming_agents_renames_values_and_batches_are_loops(graph, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(graph.num_agents)
    x = torch.from_numpy(rng.normal(size=(3, 2, graph.num_agents)))
    moved = torch.empty_like(x)
    moved[..., order] = x
    value = run(Averaging(), x, graph, rounds=3).value
    assert torch.allclose(run(Averaging(), moved, relabelled(graph, order), rounds=3).value[..., order], value)
    assert torch.allclose(run(Averaging(), x[1, 0], graph, rounds=3).value, value[1, 0])


def test_own_weights_reproduce_the_fastest_iteration_of_the_small_graph():
    """Weights solved with cvxpy; the link 1-6 has a negative one, and clamping it would be slower."""
    optimal = dict(zip(EIGHT, FASTEST, strict=True))
    graph = eight()
    weights = torch.tensor([optimal[tuple(sorted(pair))] for pair in graph.edges.T.tolist()], dtype=torch.float64)
    assert weights.min() < 0
    assert convergence_factor(graph, weights) == pytest.approx(0.6433, abs=5e-5)
    assert convergence_factor(graph, weights.clamp(min=0)) > 0.6440
    result = run(Averaging(weights), torch.arange(8.0).double(), graph, tol=1e-9)
    assert torch.allclose(result.value, torch.tensor(3.5).double())


def test_gradients_reach_values_and_weights():
    graph = topology(nx.cycle_graph(4))
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 8, dtype=torch.float64, requires_grad=True)
    up = torch.tensor([True] * 6 + [False] * 2)
    assert torch.autograd.gradcheck(lambda v, w: mix(mix(v, graph, w), graph, w, up), (x, weights))
    assert torch.autograd.gradcheck(lambda v: run(Averaging(), v, graph, rounds=3, feature_dims=1).value, (x,))


def test_a_graph_that_is_not_connected_is_refused_where_agreement_is_asked_for():
    apart = topology(nx.Graph([(0, 1), (2, 3)]))
    x = torch.arange(4.0)
    assert run(Averaging(), x, apart, rounds=1).value.tolist() == [0.5, 0.5, 2.5, 2.5]
    with pytest.raises(ValueError, match="Averaging: the graph is not connected"):
        run(Averaging(), x, apart, tol=1e-3)
    joined = [apart, topology(nx.Graph([(0, 3), (1, 2)]))]  # neither connects all, both together do
    assert torch.allclose(run(Averaging(), x, joined, tol=1e-5).value, torch.tensor(1.5), atol=1e-5)
    with pytest.raises(ValueError, match="the graphs together do not connect"):
        run(Averaging(), x, [apart, apart], tol=1e-3)


@pytest.mark.parametrize("kind", ["mh", "max_degree"])
def test_periodic_weights_are_refused(kind):
    square, odd = topology(nx.cycle_graph(4)), topology(nx.cycle_graph(5))
    with pytest.raises(ValueError, match="eigenvalue -1 on this bipartite graph"):
        run(Averaging(kind), torch.arange(4.0), square, tol=1e-3)
    batched = Graph(square, live=torch.ones(2, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="eigenvalue -1 on this bipartite graph"):
        run(Averaging(kind), torch.rand(2, 4), batched, tol=1e-3)
    assert torch.allclose(run(Averaging(kind, lazy=0.1), torch.arange(4.0), square, tol=1e-5).value, torch.tensor(1.5))
    assert torch.allclose(run(Averaging(kind), torch.arange(5.0), odd, tol=1e-5).value, torch.tensor(2.0), atol=1e-5)


def test_weights_that_do_not_converge_are_refused():
    square = topology(nx.cycle_graph(4))
    with pytest.raises(ValueError, match=r"spectral radius of W - 11'/N is 1\.8"):
        run(Averaging(torch.full((8,), 0.7)), torch.arange(4.0), square, tol=1e-3)
    with pytest.raises(ValueError, match="cannot show that these weights converge"):
        run(Averaging(torch.full((2, 8), 0.7)), torch.rand(2, 4), square, tol=1e-3)
    with pytest.raises(ValueError, match=r"one an edge, \[\*, E\] with E = 8"):
        run(Averaging(torch.ones(5)), torch.arange(4.0), square, rounds=1)
    live = torch.tensor([False] + [True] * 7)
    with pytest.raises(ValueError, match="a link is up in one direction only"):
        run(Averaging(), torch.arange(4.0), Graph(square, live=live), tol=1e-3)
    one_way = Topology([[0, 1, 2, 3], [1, 2, 3, 0]], 4)
    for graph in (one_way, Graph(one_way, live=torch.ones(4).bool())):
        with pytest.raises(ValueError, match=r"'metropolis' needs? an undirected graph, 'custom' has one-way edges"):
            run(Averaging(), torch.arange(4.0), graph, rounds=1)
    with pytest.raises(ValueError, match="lazy"):
        Averaging(lazy=1.0)
    with pytest.raises(ValueError, match="need one topology with every link up"):
        run(Averaging("best_constant"), torch.rand(2, 4), Graph(square, live=torch.ones(2, 8).bool()), rounds=1)
