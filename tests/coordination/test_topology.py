from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import eight

from coordination.topology import MIXING, SparseOperator, Topology, exponential, from_networkx, path, ring, star


def hypercube(dimension: int) -> Topology:
    return from_networkx(nx.hypercube_graph(dimension))


def dense(topology: Topology) -> np.ndarray:
    a = np.zeros((topology.num_agents,) * 2)
    for sender, receiver in topology.edges.T.tolist():
        a[receiver, sender] = 1
    return a


@st.composite
def graphs(draw: st.DrawFn, undirected: bool = False) -> Topology:
    n = draw(st.integers(1, 8))
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b and (a < b or not undirected)]
    kept = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    kept += [(b, a) for a, b in kept] if undirected else []
    return Topology(np.array(kept, dtype=np.int64).reshape(-1, 2).T, n)


# -- edges -------------------------------------------------------------------------------------------------------------


def test_edges_are_sorted_by_receiver_then_sender():
    t = Topology([[2, 0, 1, 0], [1, 2, 0, 1]], 3)
    assert t.edges.tolist() == [[1, 0, 2, 0], [0, 1, 1, 2]]
    assert t.row_start.tolist() == [0, 1, 3, 4]
    assert t.in_degree.tolist() == [1, 2, 1]
    assert t.order.tolist() == [2, 3, 0, 1]


@given(graphs())
def test_order_carries_edge_values_along(t: Topology):
    shuffled = t.edges[:, torch.randperm(t.num_edges, generator=torch.Generator().manual_seed(0))]
    again = Topology(shuffled, t.num_agents)
    assert torch.equal(again.edges, t.edges)
    assert torch.equal(shuffled[:, again.order], t.edges)


@given(graphs())
def test_reverse_turns_every_edge_round(t: Topology):
    assert np.array_equal(dense(t.reverse), dense(t).T)
    assert torch.equal(t.edges.flip(0)[:, t.reverse.order], t.reverse.edges)


@given(graphs())
def test_facts_agree_with_networkx(t: Topology):
    directed = nx.DiGraph()
    directed.add_nodes_from(range(t.num_agents))
    directed.add_edges_from(t.edges.T.tolist())
    assert t.is_connected == nx.is_strongly_connected(directed)
    assert t.is_undirected == all(directed.has_edge(b, a) for a, b in directed.edges)
    assert t.to_networkx().is_directed() != t.is_undirected
    assert set(nx.DiGraph(t.to_networkx()).edges) == set(directed.edges)


@pytest.mark.parametrize(
    ("edges", "n", "match"),
    [
        ([[0], [3]], 3, r"edges: agents are 0\.\.2, got 0\.\.3"),
        ([[-1], [0]], 3, r"edges: agents are 0\.\.2, got -1\.\.0"),
        ([[1], [1]], 3, "edges: 1 self-loops"),
        ([[0, 0], [1, 1]], 3, "the same edge is listed twice"),
        ([[0, 1], [1, 2], [2, 0]], 3, r"edges: expected \[2, E\].*got shape \(3, 2\)"),
        (np.array([[0.5], [1.0]]), 3, "edges: expected integers, got float64"),
        ([[], []], 0, "num_agents: must be at least 1, got 0"),
    ],
)
def test_bad_edges_are_refused(edges, n, match):
    with pytest.raises(ValueError, match=match):
        Topology(edges, n)


def test_node_order_must_name_everyone():
    with pytest.raises(ValueError, match="node_order: expected 3 names, got 2"):
        Topology([[0], [1]], 3, node_order=["a", "b"])


def test_from_links_joins_both_ways_once():
    t = Topology.from_links(np.array([0, 1, 2, 2]), np.array([1, 0, 2, 0]), 3)
    assert sorted(map(tuple, t.edges.T.tolist())) == [(0, 1), (0, 2), (1, 0), (2, 0)]
    with pytest.raises(ValueError, match=r"agents are 0\.\.2, got 0\.\.3"):
        Topology.from_links(np.array([0]), np.array([3]), 3)


# -- operators ---------------------------------------------------------------------------------------------------------


@given(graphs(), st.integers(0, 2))
def test_operators_act_along_the_agent_axis(t: Topology, feature_dims: int):
    x = torch.randn(2, t.num_agents, *(3,) * feature_dims, generator=torch.Generator().manual_seed(1))
    expected = torch.einsum("ij,bj...->bi...", torch.from_numpy(dense(t)).float(), x)
    torch.testing.assert_close(t.adjacency()(x, feature_dims), expected)


@given(graphs(undirected=True))
def test_laplacian_equals_networkx(t: Topology):
    expected = nx.laplacian_matrix(t.to_networkx(), nodelist=range(t.num_agents)).toarray()
    assert np.array_equal(t.laplacian().dense().numpy(), expected)


def test_operator_gradients():
    op = eight().mixing("mh")
    x = torch.randn(2, 8, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: op(v, 1), x)
    torch.testing.assert_close(torch.autograd.functional.jacobian(op, x[0, :, 0]), op.dense())


def test_operators_without_mkl_give_the_same(monkeypatch):
    op, x = exponential(6).adjacency(), torch.randn(4, 6, requires_grad=True)
    (op(x) ** 2).sum().backward()
    expected, x.grad = (op(x).detach(), x.grad), None
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    y = op(x)
    (y**2).sum().backward()
    torch.testing.assert_close((y, x.grad), expected)


def test_operators_refuse_other_sizes_and_integers():
    op = ring(4).mixing()
    with pytest.raises(ValueError, match=r"x: expected 4 agents on axis -1, got \(2, 5\)"):
        op(torch.zeros(2, 5))
    with pytest.raises(TypeError, match="x: expected floating point values, got int64"):
        op(torch.ones(4, dtype=torch.int64))


def test_operator_powers_and_transposes():
    op = exponential(6).mixing("mean")
    torch.testing.assert_close(op.power(3).dense(), torch.linalg.matrix_power(op.dense(), 3))
    torch.testing.assert_close(op.T.dense(), op.dense().T)
    assert op.is_doubly_stochastic()
    assert not star(5).mixing("mean").is_doubly_stochastic()


def test_an_operator_leaves_the_given_matrix_alone():
    matrix = eight().adjacency().matrix.copy()
    matrix.data[:] = 2
    SparseOperator(matrix).matrix.data[:] = 0
    assert (matrix.data == 2).all()


@given(graphs(undirected=True), st.sampled_from([k for k in MIXING if k not in {"mean", "fdla", "fmmc"}]))
def test_mixing_keeps_the_mean(t: Topology, kind: str):
    assert t.mixing(kind).is_doubly_stochastic()
    w = t.mixing(kind).matrix.toarray()
    assert np.allclose(w, w.T)
    linked = dense(t) + np.eye(t.num_agents)
    assert (w[linked == 0] == 0).all()


def test_mixing_refuses_unknown_kinds_and_one_way_edges():
    with pytest.raises(ValueError, match="unknown mixing 'metropolys'; did you mean 'metropolis'"):
        ring(4).mixing("metropolys")
    with pytest.raises(ValueError, match="mixing 'mh' needs an undirected graph, 'exponential' has one-way edges"):
        exponential(5).mixing("mh")


def test_hops_weigh_by_distance():
    t = path(5)
    assert t.hops(2).dense()[0].tolist() == [1, 1, 1, 0, 0]
    assert t.hops(2, decay=0.5).dense()[2].tolist() == [0.25, 0.5, 1, 0.5, 0.25]
    assert t.hops(1, mode="mean").dense()[0].tolist() == [0.5, 0.5, 0, 0, 0]
    assert torch.equal(t.hops(0).dense(), torch.eye(5, dtype=torch.float64))
    assert torch.equal(t.hops(10**9).dense(), t.hops(4).dense())  # everyone is reached: no hop more is taken
    with pytest.raises(ValueError, match="hops: need k >= 0"):
        t.hops(-1)


@given(graphs(), st.integers(0, 4))
def test_hops_reach_as_far_as_shortest_paths(t: Topology, k: int):
    directed = nx.DiGraph(t.to_networkx())
    expected = np.zeros((t.num_agents,) * 2)
    for source, lengths in nx.all_pairs_shortest_path_length(directed, cutoff=k):
        for target, length in lengths.items():
            expected[target, source] = 0.5**length
    assert np.array_equal(t.hops(k, decay=0.5).dense().numpy(), expected)


# -- spectra, against published tables and closed forms ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "published"), [("best_constant", 0.7119), ("mh", 0.7743), ("max_degree", 0.7793), ("metropolis", 0.8126)]
)
def test_slem_of_the_eight_node_graph(kind, published):
    assert eight().slem(kind) == pytest.approx(published, abs=5e-5)  # CVX, examples/graph_laplacian


@pytest.mark.parametrize(
    ("topology", "kind", "expected"),
    [
        (ring(10), "metropolis", 1 / 3 + 2 / 3 * math.cos(2 * math.pi / 10)),
        (ring(100), "metropolis", 1 / 3 + 2 / 3 * math.cos(2 * math.pi / 100)),
        (hypercube(4), "best_constant", 0.6),
        (star(10), "best_constant", 9 / 11),
        (path(10), "best_constant", math.cos(math.pi / 10)),
        (from_networkx(nx.petersen_graph()), "best_constant", 3 / 7),
        (exponential(64), "mean", 5 / 7),
        (exponential(24), "mean", 4 / 6),
        (ring(6), "mh", 1.0),  # bipartite: never settles
        (Topology(np.zeros((2, 0), dtype=int), 4), "best_constant", 1.0),
        (Topology(np.zeros((2, 0), dtype=int), 1), "metropolis", 0.0),
    ],
)
def test_slem_closed_forms(topology, kind, expected):
    assert topology.slem(kind) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        (ring(12), 2 - 2 * math.cos(2 * math.pi / 12)),
        (from_networkx(nx.complete_graph(7)), 7.0),
        (from_networkx(nx.karate_club_graph()), 0.46853),
        (from_networkx(nx.disjoint_union(nx.complete_graph(3), nx.complete_graph(3))), 0.0),
        (Topology(np.zeros((2, 0), dtype=int), 1), 0.0),
        (ring(3000), 2 - 2 * math.cos(2 * math.pi / 3000)),  # clustered eigenvalues: by factorisation
        (star(2000), 1.0),  # far from clustered: by Lanczos
    ],
)
def test_lambda2_closed_forms(topology, expected):
    assert topology.lambda2() == pytest.approx(expected, rel=1e-4 if topology.num_agents == 34 else 1e-7, abs=1e-12)


def test_slem_of_large_graphs():
    big = ring(1200)
    assert big.slem() == pytest.approx(1 / 3 + 2 / 3 * math.cos(2 * math.pi / 1200), abs=1e-10)
    assert exponential(2048).slem("mean") == pytest.approx(10 / 12, abs=1e-8)
    two = from_networkx(nx.disjoint_union(nx.cycle_graph(600), nx.cycle_graph(600)))
    assert two.lambda2() == 0.0
    assert two.slem() == pytest.approx(1.0)


def test_one_way_graphs_have_no_laplacian_spectrum():
    with pytest.raises(ValueError, match="needs an undirected graph, 'exponential'"):
        exponential(5).lambda2()
