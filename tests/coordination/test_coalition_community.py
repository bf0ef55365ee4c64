from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch

from coordination.coalition import (
    Community,
    modularity,
)
from coordination.topology import Topology


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def karate() -> Topology:
    edges = np.array(nx.karate_club_graph().edges).T
    return Topology(np.hstack([edges, edges[::-1]]), 34, "karate")


def test_karate_club_reaches_the_optimal_modularity():
    found = Community(restarts=20).form(None, karate(), generator=generator())
    assert found.value.item() == pytest.approx(0.41979, abs=5e-6)  # igraph's exact optimum
    assert found.upper_bound.item() >= found.value.item()
    groups = [(found.label == c).nonzero().flatten().tolist() for c in range(int(found.num_coalitions))]
    reference = nx.community.modularity(nx.karate_club_graph(), groups, weight=None)
    assert found.value.item() == pytest.approx(reference, abs=1e-12)


def test_modularity_of_two_cliques_and_a_bridge():
    graph = nx.disjoint_union(nx.complete_graph(5), nx.complete_graph(5))
    graph.add_edge(0, 5)
    edges = np.array(graph.edges).T
    topology = Topology(np.hstack([edges, edges[::-1]]), 10)
    found = Community(restarts=2).form(None, topology, generator=generator())
    assert found.label.tolist() == [0] * 5 + [1] * 5
    assert found.value.item() == pytest.approx(20 / 21 - 1 / 2)


def test_the_resolution_limit_and_the_way_around_it():
    edges = []
    for c in range(30):
        edges += [(5 * c + a, 5 * c + b) for a in range(5) for b in range(a)]
        edges.append((5 * c, (5 * c + 6) % 150))
    edges = np.array(edges).T
    ring = Topology(np.hstack([edges, edges[::-1]]), 150)
    cliques = torch.arange(150) // 5
    assert modularity(torch.stack([cliques, cliques // 2]), ring).tolist() == pytest.approx(
        [0.87576, 0.88788], abs=1e-5
    )
    plain = Community(restarts=3).form(None, ring, generator=generator())
    assert plain.num_coalitions.item() < 30
    sharp = Community(resolution=4.0, restarts=3).form(None, ring, generator=generator())
    assert torch.equal(sharp.label, cliques)


def test_modularity_of_random_partitions_against_networkx():
    rng = np.random.default_rng(0)
    label = torch.from_numpy(rng.integers(0, 4, (3, 34)))
    graph = nx.karate_club_graph()
    for row, found in zip(label, modularity(label, karate(), 1.5), strict=True):
        groups = [(row == c).nonzero().flatten().tolist() for c in row.unique()]
        assert found.item() == pytest.approx(nx.community.modularity(graph, groups, weight=None, resolution=1.5))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Community().form(None, None), "needs a topology and a generator"),
        (lambda: Community().form(None, Topology([[0], [1]], 2), generator=generator()), "one-way edges"),
        (lambda: Community(restarts=0).form(None, karate(), generator=generator()), "restarts >= 1"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
