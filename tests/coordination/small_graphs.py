"""Graphs for the tests of this folder: from networkx, and random ones for hypothesis."""

from __future__ import annotations

import networkx as nx
import numpy as np
from hypothesis import strategies as st

from coordination.topology import Topology


def topology(graph: nx.Graph) -> Topology:
    """A networkx graph with its nodes numbered in order; undirected links in both directions."""
    numbered = nx.convert_node_labels_to_integers(graph, ordering="sorted")
    edges = np.array(list(nx.to_directed(numbered).edges), dtype=np.int64).reshape(-1, 2)
    return Topology(edges.T, len(numbered))


def relabelled(graph: Topology, permutation: np.ndarray) -> Topology:
    """The same graph with agent i called ``permutation[i]``."""
    return Topology(permutation[graph.edges.numpy()], graph.num_agents)


@st.composite
def connected(draw: st.DrawFn, low: int = 2, high: int = 9) -> Topology:
    """A connected undirected graph: a random tree and some further links."""
    n = draw(st.integers(low, high))
    pairs = {(draw(st.integers(0, i - 1)), i) for i in range(1, n)}
    others = [(i, j) for j in range(n) for i in range(j) if (i, j) not in pairs]
    if others:
        pairs |= set(draw(st.lists(st.sampled_from(others), max_size=6)))
    one_way = np.array(sorted(pairs), dtype=np.int64).T
    return Topology(np.concatenate([one_way, one_way[::-1]], 1), n)
