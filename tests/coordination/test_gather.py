from __future__ import annotations

import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coordination import gather, tree
from coordination.gather import (
    at_links,
    carrying,
    is_complete,
    neighbour_count,
    neighbour_mean,
    neighbour_sum,
    num_links,
    sum_links,
)
from coordination.graph import Graph
from coordination.topology import Topology, complete, exponential, path, ring, star

SHARED = [exponential(6), star(6), complete(6), complete(12), path(3), ring(2), complete(1), Topology([[0], [1]], 4)]


def dense(graph: Graph, batch: int) -> Tensor:
    """``[batch, N, N]`` weights from each sender (column) to each receiver (row), edge by edge."""
    n = graph.num_agents
    edges = graph.topology.edges.expand(batch, 2, -1) if graph.edges is None else graph.edges
    matrix = torch.zeros(batch, n, n, dtype=torch.float64)
    for b in range(batch):
        for e, (sender, receiver) in enumerate(edges[b].T.tolist()):
            if sender < n and (graph.live is None or graph.live[b, e]):
                matrix[b, receiver, sender] += 1 if graph.weight is None else graph.weight[b, e].double()
    return matrix


@st.composite
def graphs(draw: st.DrawFn, batch: int = 3) -> tuple[Graph, torch.Generator]:
    """Shared or per-sample edges, some padded, with or without links that are down and weights."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    fields = {}
    if draw(st.booleans()):
        topology = draw(st.sampled_from(SHARED))
        graph, count = Graph(topology), topology.num_edges
    else:
        n, count = draw(st.integers(1, 6)), draw(st.integers(0, 12))
        graph = Graph.from_edges(torch.randint(0, n + 1, (batch, 2, count), generator=generator), n)
    if draw(st.booleans()):
        fields["live"] = torch.rand(batch, count, generator=generator) < 0.7
    if draw(st.booleans()):
        fields["weight"] = torch.rand(batch, count, generator=generator)
    return Graph(graph.topology, graph.edges, graph.row_start, **fields), generator


@given(graphs(), st.sampled_from([1, 3]))
def test_sum_equals_the_dense_product(made, features):
    graph, generator = made
    x = torch.randn(3, graph.num_agents, features, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(neighbour_sum(x, graph), dense(graph, 3) @ x)


@given(graphs())
def test_gradients_equal_the_transposed_product(made):
    graph, generator = made
    x = torch.randn(3, graph.num_agents, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, graph.num_agents, 2, generator=generator, dtype=torch.float64)
    neighbour_sum(x, graph).backward(upstream)
    torch.testing.assert_close(x.grad, dense(graph, 3).mT @ upstream)


@pytest.mark.parametrize("n", [3, 10, 11, 40])
def test_complete_graphs_small_and_large(n):
    x = torch.randn(2, n, 3, dtype=torch.float64, requires_grad=True)
    summed = neighbour_sum(x, Graph(complete(n)))
    torch.testing.assert_close(summed, dense(Graph(complete(n)), 2) @ x)
    upstream = torch.randn(2, n, 3, dtype=torch.float64)
    summed.backward(upstream)
    torch.testing.assert_close(x.grad, upstream.sum(1, keepdim=True) - upstream)


@pytest.mark.parametrize("shared", [True, False])
def test_gradients_of_features_and_weights(shared):
    topology = exponential(5)
    own = Graph.from_edges(topology.edges.expand(2, 2, -1), 5)
    live = torch.rand(2, topology.num_edges, generator=torch.Generator().manual_seed(0)) < 0.7

    def summed(x: Tensor, weight: Tensor) -> Tensor:
        graph = Graph(topology, live=live, weight=weight) if shared else tree_with(own, live, weight)
        return neighbour_sum(x, graph)

    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, topology.num_edges, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(summed, (x, weight))
    assert torch.autograd.gradgradcheck(summed, (x, weight))


def tree_with(graph: Graph, live: Tensor, weight: Tensor) -> Graph:
    return Graph(edges=graph.edges, row_start=graph.row_start, live=live, weight=weight)


@given(graphs())
def test_batched_equals_looped(made):
    graph, generator = made
    x = torch.randn(3, graph.num_agents, 2, generator=generator)
    looped = [neighbour_sum(x[b], tree.index(graph, b)) for b in range(3)]
    torch.testing.assert_close(neighbour_sum(x, graph), torch.stack(looped))


@given(graphs())
def test_disjoint_union_equals_the_batch(made):
    graph, generator = made
    x = torch.randn(3, graph.num_agents, 2, generator=generator)
    edge_index, weight, _ = graph.flat(3)
    union = Graph.from_edges(edge_index, 3 * graph.num_agents, weight=weight)  # the sink is out of range: padding
    torch.testing.assert_close(neighbour_sum(x.flatten(0, 1), union), neighbour_sum(x, graph).flatten(0, 1))


@given(st.integers(0, 1000), st.booleans())
def test_permutation_equivariance(seed, weighted):
    generator = torch.Generator().manual_seed(seed)
    n, topology = 6, exponential(6)
    weight = torch.rand(2, topology.num_edges, generator=generator) if weighted else None
    name = torch.randperm(n, generator=generator)  # agent i is now called name[i]
    moved = Graph.from_edges(name[topology.edges].expand(2, 2, -1), n, weight=weight)
    x = torch.randn(2, n, 3, generator=generator)
    renamed = torch.empty_like(x)
    renamed[:, name] = x
    torch.testing.assert_close(neighbour_sum(renamed, moved)[:, name], neighbour_sum(x, Graph(topology, weight=weight)))


def test_leading_axes_broadcast():
    generator = torch.Generator().manual_seed(0)
    topology = exponential(5)
    x = torch.randn(4, 2, 5, 3, generator=generator)
    live = torch.rand(2, topology.num_edges, generator=generator) < 0.5
    for graph in (Graph(topology, live=live), Graph.from_edges(topology.edges.expand(2, 2, -1), 5, live=live)):
        expected = torch.stack([neighbour_sum(x[i], graph) for i in range(4)])
        torch.testing.assert_close(neighbour_sum(x, graph), expected)


def test_no_links_and_no_samples():
    bare = Graph(ring(4)).without_links()
    x = torch.randn(2, 4, 3, requires_grad=True)
    assert (neighbour_sum(x, bare) == 0).all()
    assert (neighbour_mean(x, bare) == 0).all()
    neighbour_sum(x, bare).sum().backward()
    assert (x.grad == 0).all()
    assert neighbour_sum(torch.zeros(0, 4, 3), Graph(ring(4))).shape == (0, 4, 3)
    assert (neighbour_sum(x, Graph.from_neighbours(torch.zeros(2, 4, 0), 4)) == 0).all()


@given(graphs(), st.integers(0, 1000))
def test_the_dead_change_nothing(made, seed):
    graph, generator = made
    n = graph.num_agents
    alive = torch.rand(3, n, generator=torch.Generator().manual_seed(seed)) < 0.6
    x = torch.randn(3, n, 2, generator=generator, dtype=torch.float64)
    broken = torch.where(alive.unsqueeze(-1), x, torch.nan).requires_grad_()
    mean = neighbour_mean(broken, graph, alive)
    weight = dense(graph, 3) * alive.unsqueeze(1)
    total = weight.sum(-1, keepdim=True)
    expected = torch.where(total > 0, weight @ x / total, 0.0)
    torch.testing.assert_close(mean, expected)
    mean.sum().backward()
    assert (broken.grad[~alive] == 0).all()
    assert broken.grad.isfinite().all()


def test_mean_by_hand():
    x = torch.tensor([[1.0], [2.0], [6.0]])
    hub = Graph(star(3))
    assert neighbour_mean(x, hub).flatten().tolist() == [4, 1, 1]
    assert neighbour_mean(x, hub, torch.tensor([True, False, True])).flatten().tolist() == [6, 1, 1]
    assert neighbour_count(x, hub).flatten().tolist() == [2, 1, 1]
    light = Graph(star(3), weight=torch.tensor([0.1, 0.3, 1.0, 1.0]))  # edges into agent 0 first, from 1 and from 2
    assert neighbour_mean(x, light)[0].item() == pytest.approx((0.1 * 2 + 0.3 * 6) / 0.4)


def test_count_is_shared_where_samples_agree():
    x = torch.zeros(4, 5, 2)
    assert neighbour_count(x, Graph(ring(5))).shape == (5, 1)
    assert neighbour_count(x, Graph(ring(5)), torch.ones(4, 5, dtype=torch.bool)).shape == (4, 5, 1)


def test_is_complete():
    assert is_complete(complete(4))
    assert is_complete(complete(1))
    assert not is_complete(ring(4))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"x: expected 5 agents on axis -2, got \(2, 4, 3\)"):
        neighbour_sum(torch.zeros(2, 4, 3), Graph(ring(5)))
    own = Graph.from_edges(ring(5).edges.expand(3, 2, -1), 5)
    with pytest.raises(ValueError, match=r"x: leading axes \(2,\) do not fit those of the graph's links, \(3,\)"):
        neighbour_sum(torch.zeros(2, 5, 3), own)


def test_index_lists_are_kept_for_few_batch_sizes_and_go_with_their_topology():
    topology = ring(5)
    for batch in range(1, 12):
        neighbour_sum(torch.zeros(batch, 5, 1), Graph(topology))
    assert len(gather._SHARED[topology]) == gather.CACHED_BATCHES
    gone = weakref.ref(topology)
    del topology
    gc.collect()
    assert gone() is None


@given(graphs(), st.sampled_from([0, 1]))
def test_links_hold_what_their_ends_hold_and_are_summed_at_receivers(made, end):
    graph, generator = made
    n, count = graph.num_agents, num_links(graph)
    edges = graph.topology.edges.expand(3, 2, -1) if graph.edges is None else graph.edges
    x, message = (torch.randn(3, size, 2, generator=generator) for size in (n, count))
    alive = torch.rand(3, n, generator=generator) < 0.7
    carries, held = carrying(graph, alive), at_links(x, graph, end)
    expected = torch.zeros(3, n, 2)
    for b in range(3):
        for e, (sender, receiver) in enumerate(edges[b].T.tolist()):
            up = sender < n and (graph.live is None or bool(graph.live[b, e]))
            assert bool(carries[b, e]) == (up and bool(alive[b, sender]) and bool(alive[b, receiver]))
            if sender < n:
                assert torch.equal(held[b, e], x[b, (sender, receiver)[end]])
            if up:
                expected[b, receiver] += message[b, e]
    counted = message if graph.up() is None else torch.where(graph.up().unsqueeze(-1), message, 0.0)
    torch.testing.assert_close(sum_links(counted, graph), expected)
    everyone = carrying(graph, None)
    assert (everyone is None and graph.up() is None) or torch.equal(everyone, graph.up())


@given(graphs(), st.sampled_from([0, 1]))
def test_gradients_of_links(made, end):
    graph, generator = made
    x, message = (
        torch.randn(3, size, 2, generator=generator, dtype=torch.float64, requires_grad=True)
        for size in (graph.num_agents, num_links(graph))
    )
    assert torch.autograd.gradcheck(lambda x: at_links(x, graph, end), (x,))
    if message.numel():
        assert torch.autograd.gradcheck(lambda m: sum_links(m, graph), (message,))
