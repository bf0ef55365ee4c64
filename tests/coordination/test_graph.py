from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination import tree
from coordination.graph import Graph
from coordination.topology import Topology, exponential, ring

PAD = 9  # an index outside the four agents of these tests
EDGES = torch.tensor([[[0, 3, 2, PAD], [1, 1, 0, PAD]], [[1, 0, 2, 3], [2, 3, 3, 0]]])  # two samples


def hears(graph: Graph, sample: int) -> list[tuple[int, int]]:
    """(sender, receiver) of every edge that carries something."""
    up = graph.up()
    edges = graph.edges if graph.edges is not None else graph.topology.edges.expand(sample + 1, 2, -1)
    kept = torch.ones_like(edges[sample, 0], dtype=torch.bool) if up is None else up[sample]
    return sorted(map(tuple, edges[sample][:, kept].T.tolist()))


def test_from_edges_sorts_by_receiver_and_pads_at_the_end():
    graph = Graph.from_edges(EDGES, 4)
    assert graph.num_agents == 4
    assert graph.edges[0].tolist() == [[2, 0, 3, 4], [0, 1, 1, 4]]
    assert graph.row_start.tolist() == [[0, 1, 3, 3, 3], [0, 1, 1, 2, 4]]
    assert hears(graph, 0) == [(0, 1), (2, 0), (3, 1)]
    assert graph.up().sum(-1).tolist() == [3, 4]


def test_from_edges_carries_edge_values_along():
    number = torch.arange(8).reshape(2, 4)
    graph = Graph.from_edges(
        EDGES, 4, live=number != 1, weight=number.float(), attr=number.unsqueeze(-1).expand(2, 4, 3)
    )
    assert graph.weight.tolist() == [[2, 0, 1, 3], [7, 4, 5, 6]]
    assert torch.equal(graph.attr, graph.weight.long().unsqueeze(-1).expand(2, 4, 3))
    assert hears(graph, 0) == [(0, 1), (2, 0)]


def test_from_edges_without_leading_axes():
    graph = Graph.from_edges(EDGES[0], 4)
    assert graph.row_start.tolist() == [0, 1, 3, 3, 3]
    assert tree.lead(graph) == ()


def test_from_neighbours_keeps_a_slot_for_every_neighbour():
    graph = Graph.from_neighbours(torch.tensor([[[1, 2], [PAD, 0], [PAD, -1]]]), 3)
    assert hears(graph, 0) == [(0, 1), (1, 0), (2, 0)]
    assert graph.row_start.tolist() == [[0, 2, 4, 6]]
    assert graph.edges[0, 1].tolist() == [0, 0, 1, 1, 2, 2]


def test_from_neighbours_wants_a_list_for_every_agent():
    with pytest.raises(ValueError, match=r"neighbours: expected \[\*, N, K\] with N = 3, got \(2, 4, 1\)"):
        Graph.from_neighbours(torch.zeros(2, 4, 1), 3)


def test_a_graph_needs_edges_or_a_topology():
    with pytest.raises(ValueError, match="Graph: needs a topology, or edges with row_start"):
        _ = Graph().num_agents


def test_without_links_keeps_the_agents():
    bare = Graph.from_edges(EDGES, 4).without_links()
    assert bare.num_agents == 4
    assert bare.flat(3)[0].shape == (2, 0)
    assert tree.stack([bare, Graph(ring(4)).without_links()]).topology is bare.topology


def test_graphs_are_indexed_and_stacked_like_views():
    graph = Graph.from_edges(EDGES, 4)
    assert hears(tree.index(graph, slice(1, 2)), 0) == hears(graph, 1)
    assert tree.lead(tree.stack([graph, graph])) == (2, 2)
    with pytest.raises(ValueError, match=r"Graph\.topology: is shared by all samples"):
        tree.stack([Graph(ring(4)), Graph(ring(4))])


def test_flat_is_the_disjoint_union():
    edge_index, weight, attr = Graph(Topology([[0, 1], [1, 2]], 3)).flat(2)
    assert sorted(map(tuple, edge_index.T.tolist())) == [(0, 1), (1, 2), (3, 4), (4, 5)]
    assert weight is None
    assert attr is None


def test_flat_moves_padding_links_that_are_down_and_the_dead_to_the_sink():
    live = torch.tensor([[True, False, True, True], [True] * 4])
    graph = Graph.from_edges(EDGES, 4, live=live)
    alive = torch.tensor([[True] * 4, [True, True, True, False]])
    edge_index, _, _ = graph.flat(2, alive)
    assert edge_index.shape == (2, 8)
    kept = edge_index[:, edge_index[0] != 8]
    assert sorted(map(tuple, kept.T.tolist())) == [(0, 1), (2, 0), (5, 6)]
    assert (edge_index[:, edge_index[0] == 8] == 8).all()


@given(st.integers(1, 4), st.integers(0, 1000))
def test_flat_of_a_shared_topology_equals_flat_of_its_copies(batch, seed):
    generator = torch.Generator().manual_seed(seed)
    topology = exponential(6)
    live = torch.rand(batch, topology.num_edges, generator=generator) < 0.7
    weight = torch.rand(batch, topology.num_edges, generator=generator)
    alive = torch.rand(batch, 6, generator=generator) < 0.8
    shared = Graph(topology, live=live, weight=weight, attr=weight.unsqueeze(-1))
    own = Graph.from_edges(topology.edges.expand(batch, 2, -1), 6, live, weight, weight.unsqueeze(-1))
    for a, b in zip(shared.flat(batch, alive), own.flat(batch, alive), strict=True):
        assert torch.equal(a, b)


def test_flat_gives_every_sample_what_has_no_leading_axes():
    topology = Topology([[0, 1], [1, 2]], 3)
    graph = Graph(topology, live=torch.tensor([True, False]), weight=torch.tensor([0.5, 2.0]))
    edge_index, weight, _ = graph.flat(2)
    assert edge_index.T.tolist() == [[0, 1], [6, 6], [3, 4], [6, 6]]
    assert weight.tolist() == [0.5, 2.0, 0.5, 2.0]
    assert Graph.from_edges(topology.edges, 3).flat(2)[0].T.tolist() == [[0, 1], [1, 2], [3, 4], [4, 5]]
