"""Graphs for the tests of this folder: from networkx, and random ones for hypothesis."""

from __future__ import annotations

import networkx as nx
import numpy as np
from hypothesis import strategies as st

from coordination.topology import Topology

# CVX, examples/graph_laplacian: the links of small_example.m; those cut from the grid of cut_grid_data.m; and, for each
# node, the later nodes linked with it in larger_example.m, whose points come from MATLAB's rand('state', 209)
EIGHT = ((0, 1), (0, 4), (1, 2), (1, 3), (1, 6), (1, 7), (2, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 6), (6, 7))
CUT = "49-41 50-42 16-8 24-16 15-7 23-15 21-13 13-5 22-14 14-6 51-43 52-44 53-45 54-46 42-41 34-33 26-25"
FIFTY = (
    "15 18 19 20 31 37/3 7 9 12 25 34 41/14 22 24 39 40 42 43 44/7 9 12 25 28 34 41/6 27 32 36 37 48/"
    "10 11 13 15 17 21 39 42 46/23 27 30 32 35 36 48/9 12 25 26 29 33 41 47/11 16 28 34 38/"
    "12 25 26 28 29 33 34 41/13 17 21 39 42 49/15 16 20 21 28 33 38 46/25 26 29 33 34 41 47/"
    "17 21 23 32 39 42 43 49/22 24 38 39 40 42 44/16 20 21 33 46/21 25 28 33 38 41 46/21 23 32 39 49/"
    "19 31 45/20 26 29 47/25 26 33 46 47/42 46/24 40 44/27 30 32 35 43 49/40 44/"
    "26 28 29 33 34 41 46 47/29 33 41 46 47/32 35 36 37 48/34 41/33 41 47/35/36 37 45 48/35 36 37 49/"
    "41 46 47/41/49/37 48/48/42 44/40 42 43 49/42 44/47/44/49"
)


def eight() -> Topology:
    """8 nodes, 13 links."""
    return topology(nx.Graph(EIGHT))


def cut_grid() -> Topology:
    """64 nodes, 95 links: nodes 1..64 in columns of eight, linked with those beside them but for the links cut."""
    grid = nx.Graph()
    grid.add_nodes_from(range(1, 65))
    grid.add_edges_from((8 * c + r, 8 * c + r + 1) for c in range(8) for r in range(1, 8))
    grid.add_edges_from((8 * c + r, 8 * c + r + 8) for c in range(7) for r in range(1, 9))
    grid.remove_edges_from(tuple(map(int, pair.split("-"))) for pair in CUT.split())
    return topology(grid)


def fifty() -> Topology:
    """50 nodes, 200 links."""
    return topology(nx.Graph((i, int(j)) for i, row in enumerate(FIFTY.split("/")) for j in row.split()))


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
