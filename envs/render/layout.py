"""Places for the agents of a graph that has no geometry of its own."""

from __future__ import annotations

import networkx as nx
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh

FEW = 60  # agents of a graph in pieces that still stand on a circle
SOME = 300  # agents up to which places are sought by moving them step by step


def layout(edges: NDArray[np.int64], num_agents: int) -> NDArray[np.float64]:
    """Fixed places ``[N, 2]`` that show the shape of a graph; the same graph always gets the same places.

    Distances on the page follow distances in the graph where it is connected and has at most 300 agents (Kamada and
    Kawai 1989); of more agents the places are eigenvectors of the Laplacian (Koren 2005, "Drawing graphs by
    eigenvectors"). A graph in pieces is drawn by springs (Fruchterman and Reingold 1991) if it has 61 to 300 agents,
    else on a circle.

    Args:
        edges: ``[2, E]`` links, of either direction.
        num_agents: Number of agents N.
    """
    graph = nx.Graph()
    graph.add_nodes_from(range(num_agents))
    graph.add_edges_from(edges.T.tolist())
    connected = nx.is_connected(graph)
    if connected and num_agents > SOME:
        return _eigenvectors(graph)
    if connected:
        places = nx.kamada_kawai_layout(graph)
    elif FEW < num_agents <= SOME and graph.number_of_edges():
        places = nx.spring_layout(graph, iterations=30, seed=0)
    else:
        places = nx.circular_layout(graph)
    return np.array([places[i] for i in range(num_agents)])


def _eigenvectors(graph: nx.Graph) -> NDArray[np.float64]:
    """The two slowest modes of a connected graph, weighted by degree; the few agents far out are drawn in."""
    n = graph.number_of_nodes()
    adjacency = nx.to_scipy_sparse_array(graph, nodelist=range(n), format="csr", dtype=float)
    degree = sp.diags_array(np.asarray(adjacency.sum(axis=1)).ravel()).tocsc()
    start = np.linspace(-1, 1, n)  # fixed, so that the same graph gets the same places
    _, vectors = eigsh((degree - adjacency).tocsc(), k=3, M=degree, sigma=-1e-4, v0=start)
    places = vectors[:, 1:] / vectors[:, 1:].std(axis=0)
    radius = np.linalg.norm(places, axis=1, keepdims=True)
    return places / radius.clip(min=1e-12) * np.tanh(radius / np.quantile(radius, 0.75))
