"""Robustness: the known table against a search of all pairs of sets, certificates, and graphs built robust."""

from __future__ import annotations

from itertools import product

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import connected, topology

from coordination.topology import Topology
from coordination.topology.robustness import (
    Certificate,
    max_robustness,
    robust_topology,
    robustness,
    violating_sets,
)


def two_cliques_and_a_matching() -> nx.Graph:
    return nx.Graph(
        [*[(i, j) for k in (0, 4) for i in range(k, k + 4) for j in range(k, i)], *[(i, i + 4) for i in range(4)]]
    )


@pytest.mark.parametrize(
    ("graph", "r"),
    [
        *[(nx.complete_graph(n), (n + 1) // 2) for n in range(2, 9)],
        (nx.cycle_graph(7), 1),
        (nx.path_graph(5), 1),
        (nx.star_graph(5), 1),
        (nx.hypercube_graph(3), 1),
        (nx.petersen_graph(), 1),
        (nx.grid_2d_graph(3, 3), 1),
        (nx.complete_bipartite_graph(4, 4), 2),
        *[(nx.circulant_graph(10, range(1, k + 1)), k) for k in range(1, 5)],
        (two_cliques_and_a_matching(), 1),
        (nx.Graph([(0, 1), (2, 3)]), 0),
    ],
)
def test_known_robustness(graph, r):
    assert max_robustness(topology(graph)) == r


def test_connectivity_is_not_enough():
    assert nx.node_connectivity(two_cliques_and_a_matching()) == 4
    assert robustness(topology(two_cliques_and_a_matching()), 2).witness == ((0, 1, 2, 3), (4, 5, 6, 7))


@pytest.mark.parametrize(
    ("graph", "r", "s", "holds"),
    [
        *[(nx.complete_graph(n), 2, 2, True) for n in (3, 4, 5)],
        (nx.circulant_graph(8, [1, 2]), 2, 2, True),
        (nx.hypercube_graph(3), 2, 2, False),
        (nx.petersen_graph(), 2, 2, False),
        (nx.complete_graph(7), 3, 3, True),
    ],
)
def test_known_two_parameter_robustness(graph, r, s, holds):
    certificate = robustness(topology(graph), r, s)
    assert (certificate.holds, certificate.kind) == (holds, "exact")


def violates(graph: Topology, r: int, s: int, first: set[int], second: set[int]) -> bool:
    """The definition, for one pair of sets."""
    heard = [set(graph.edges[0, graph.edges[1] == i].tolist()) for i in range(graph.num_agents)]
    reach = [sum(len(heard[i] - part) >= r for i in part) for part in (first, second)]
    return reach[0] < len(first) and reach[1] < len(second) and sum(reach) < s


def robust_by_definition(graph: Topology, r: int, s: int) -> bool:
    for sides in product(range(3), repeat=graph.num_agents):  # 0 in neither, 1 and 2 in one of the two
        first, second = ({i for i, side in enumerate(sides) if side == k} for k in (1, 2))
        if first and second and violates(graph, r, s, first, second):
            return False
    return True


@given(st.integers(2, 6), st.floats(0.2, 0.9), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**31))
def test_the_answer_on_directed_graphs_is_that_of_the_definition(n, density, r, s, seed):
    links = np.random.default_rng(seed).random((n, n)) < density
    np.fill_diagonal(links, False)
    graph = Topology(np.stack(np.nonzero(links)), n)
    certificate = robustness(graph, r, s)
    assert certificate.kind == "exact"
    assert certificate.holds == robust_by_definition(graph, r, s)
    if certificate.witness is not None:
        assert violates(graph, r, s, *map(set, certificate.witness))
    assert (violating_sets(graph, r, s) is None) == certificate.holds


@given(connected(4, 8), st.integers(1, 3), st.integers(1, 3))
def test_sufficient_conditions_are_never_wrong(graph, r, s):
    """The two bounds for large graphs, asked on small ones where the truth is known."""
    from coordination.topology import robustness as module

    truth = violating_sets(graph, r, s) is None
    assert truth or module._kernel(graph, r, s) is None
    assert truth or graph.lambda2() <= 2 * (r + s - 2) + 1e-9


@pytest.mark.parametrize(("r", "s"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 3)])
@pytest.mark.parametrize("seed", [None, 0])
def test_grown_graphs_are_robust_and_say_why_at_any_size(r, s, seed):
    assert robustness(robust_topology(12, r, s, seed), r, s).holds
    large = robustness(robust_topology(2000, r, s, seed), r, s)
    assert large.holds
    assert large.kind == ("exact" if r == s == 1 else "lower_bound")


def test_large_graphs_are_decided_bounded_or_unknown():
    expander = topology(nx.random_regular_graph(16, 300, seed=0))
    by_gap = robustness(expander, 3)
    assert (by_gap.holds, by_gap.kind) == (True, "lower_bound")
    assert "lambda_2" in by_gap.reason
    ring = topology(nx.cycle_graph(120))
    assert robustness(ring, 1).kind == "exact"
    assert robustness(ring, 2) == Certificate(
        2, 1, None, "unknown", "too large to examine, and no sufficient condition holds"
    )
    refused = robustness(ring, 3)
    assert (refused.holds, refused.kind) == (False, "exact")
    assert refused.reason == "agent 0 hears 2 agents, fewer than r = 3"
    assert robustness(ring, 61).reason == "r = 61 exceeds ceil(N / 2) = 60"
    with pytest.raises(ValueError, match="r and s must be at least 1"):
        robustness(ring, 0)
    with pytest.raises(ValueError, match="up to 18 agents, got 120"):
        max_robustness(ring)
    with pytest.raises(ValueError, match="num_agents >= 5"):
        robust_topology(4, 3)
