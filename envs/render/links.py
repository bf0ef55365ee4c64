"""Links of one copy at one moment, as pictures need them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordination.graph import Graph


def open_links(graph: Graph, alive: NDArray[np.bool_], copy: int = 0) -> NDArray[np.int64]:
    """``[L, 2]`` sender and receiver of every link that is up, between two of the first agents that are alive.

    Args:
        graph: Of a batch of copies.
        alive: ``[n]`` of the first n agents of this copy; links of all others are left out.
        copy: Which one.
    """
    if graph.topology is not None:
        pairs = graph.topology.edges.T.numpy()
    else:
        assert graph.edges is not None, "a graph has a topology or edges"
        pairs = (graph.edges if graph.edges.ndim == 2 else graph.edges[copy]).T.cpu().numpy()
    up = graph.up()
    if up is not None:
        pairs = pairs[(up if up.ndim == 1 else up[copy]).cpu().numpy()]
    pairs = pairs[(pairs < len(alive)).all(axis=1)]
    return pairs[alive[pairs].all(axis=1)]


def lines(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Links as lines, one for both directions: ``[K, 2]``, and ``[K]`` whether the link goes one way, first to second.

    Args:
        pairs: ``[L, 2]`` sender and receiver, each pair once.
    """
    if not len(pairs):
        return pairs, np.zeros(0, dtype=bool)
    base = int(pairs.max()) + 1
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    _, first, count = np.unique(low * base + high, return_index=True, return_counts=True)
    return pairs[first], count == 1
