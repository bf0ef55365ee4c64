"""Random topologies: small worlds, scale-free, Erdos-Renyi, regular and geometric graphs.

The same arguments and seed give the same graph. Links go both ways. Time and memory are O(N + E): 100,000 agents with
eight neighbours take under two seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import networkx as nx
import numpy as np

from coordination.topology.base import Topology


def small_world(num_agents: int, k: int = 4, p: float = 0.1, seed: int = 0) -> Topology:
    """A ring of k nearest neighbours with some links rewired at random (Watts and Strogatz 1998).

    Args:
        num_agents: Number of agents N.
        k: Neighbours on the ring, even and below N.
        p: Probability that a link is rewired; 0 is a lattice, 1 nearly random.
        seed: Of the draw.
    """
    if k < 2 or k % 2 or k >= num_agents:
        raise ValueError(f"small_world: k must be even, at least 2 and below num_agents = {num_agents}, got {k}")
    _check_probability("small_world", p)
    graph = nx.watts_strogatz_graph(num_agents, k, p, seed=seed)
    return _from_links(graph.edges, num_agents, f"small_world(k={k}, p={p})")


def scale_free(num_agents: int, m: int = 2, seed: int = 0) -> Topology:
    """Growth with preferential attachment: hubs appear (Barabasi and Albert 1999).

    Args:
        num_agents: Number of agents N.
        m: Links each new agent brings, from 1 to N - 1; the mean degree is about 2 m.
        seed: Of the draw.
    """
    if not 1 <= m < num_agents:
        raise ValueError(f"scale_free: m must be in 1..{num_agents - 1} for {num_agents} agents, got {m}")
    graph = nx.barabasi_albert_graph(num_agents, m, seed=seed)
    return _from_links(graph.edges, num_agents, f"scale_free(m={m})")


def erdos_renyi(num_agents: int, p: float, seed: int = 0) -> Topology:
    """Every link is there with probability p, independently (Gilbert 1959).

    Drawn by skipping over the absent ones (Batagelj and Brandes 2005).

    Args:
        num_agents: Number of agents N.
        p: Probability of a link; the mean degree is p (N - 1). Below ``ln N / N`` expect isolated agents.
        seed: Of the draw.
    """
    _check_probability("erdos_renyi", p)
    pairs = num_agents * (num_agents - 1) // 2
    generator, expected = np.random.default_rng(seed), pairs * p
    chosen = np.zeros(0, dtype=np.int64)
    while p > 0 and (chosen.size == 0 or chosen[-1] < pairs):  # gaps between links are geometric
        gaps = np.minimum(generator.geometric(p, size=int(expected + 4 * expected**0.5) + 16), pairs + 1)
        chosen = np.append(chosen, (chosen[-1] if chosen.size else -1) + gaps.cumsum())
    chosen = chosen[chosen < pairs]
    high = ((1 + np.sqrt(1 + 8 * chosen)) // 2).astype(np.int64)  # pairs in the order 0-1, 0-2, 1-2, 0-3 ...
    return Topology.from_links(chosen - high * (high - 1) // 2, high, num_agents, f"erdos_renyi(p={p})")


def random_regular(num_agents: int, degree: int, seed: int = 0) -> Topology:
    """A random graph in which everybody has the same number of neighbours; almost surely an expander.

    Ends of links are paired at random; pairs that repeat a link or join an agent to itself are drawn again (Steger and
    Wormald 1999: nearly uniform over all such graphs).

    Args:
        num_agents: Number of agents N.
        degree: Neighbours of each, below N; N times degree must be even.
        seed: Of the draw.
    """
    if not 0 <= degree < num_agents or num_agents * degree % 2:
        raise ValueError(
            f"random_regular: degree must be in 0..{num_agents - 1} with num_agents * degree even, "
            f"got degree {degree} for {num_agents} agents"
        )
    generator, name = np.random.default_rng(seed), f"random_regular(degree={degree})"
    if 2 * degree >= num_agents:  # dense: choose whom not to hear
        absent = _pairing(num_agents, num_agents - 1 - degree, generator)
        low, high = np.triu_indices(num_agents, 1)
        kept = ~np.isin(low * num_agents + high, absent)
        return Topology.from_links(low[kept], high[kept], num_agents, name)
    key = _pairing(num_agents, degree, generator)
    return Topology.from_links(key // num_agents, key % num_agents, num_agents, name)


def random_geometric(num_agents: int, radius: float, seed: int = 0) -> Topology:
    """Agents scattered in the unit square hear those within a radius; they stand at :func:`uniform_positions`.

    Args:
        num_agents: Number of agents N.
        radius: Reach, positive; the mean degree is about ``pi radius^2 N``.
        seed: Of the positions.
    """
    if not radius > 0:
        raise ValueError(f"random_geometric: radius must be positive, got {radius}")
    from scipy.spatial import KDTree  # a tenth of a second that importing coordination.topology need not cost

    near = KDTree(uniform_positions(num_agents, seed)).query_pairs(radius, output_type="ndarray")
    return Topology.from_links(near[:, 0], near[:, 1], num_agents, f"random_geometric(radius={radius})")


def uniform_positions(num_agents: int, seed: int = 0) -> np.ndarray:
    """``[N, 2]`` places in the unit square: where the agents of :func:`random_geometric` stand."""
    return np.random.default_rng(seed).random((num_agents, 2))


def _pairing(num_agents: int, degree: int, generator: np.random.Generator) -> np.ndarray:
    """Links ``low * N + high`` of a random regular graph."""
    while True:
        links, ends = np.zeros(0, dtype=np.int64), np.repeat(np.arange(num_agents), degree)
        while ends.size:
            a, b = generator.permutation(ends).reshape(2, -1)
            low, high = np.minimum(a, b), np.maximum(a, b)
            key = low * num_agents + high
            first = np.zeros(key.size, dtype=bool)
            first[np.unique(key, return_index=True)[1]] = True
            good = first & (low != high) & ~np.isin(key, links)
            if not good.any() and not _pairable(np.unique(ends), links, num_agents):
                break
            links = np.append(links, key[good])
            ends = np.append(a[~good], b[~good])
        else:
            return links


def _pairable(agents: np.ndarray, links: np.ndarray, num_agents: int) -> bool:
    """Whether two of these agents are not linked yet."""
    low, high = np.triu_indices(agents.size, 1)
    return not np.isin(agents[low] * num_agents + agents[high], links).all()


def _check_probability(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p must be in [0, 1], got {p}")


def _from_links(links: Iterable[tuple[int, int]], num_agents: int, name: str) -> Topology:
    pairs = np.fromiter(chain.from_iterable(links), dtype=np.int64).reshape(-1, 2)
    return Topology.from_links(pairs[:, 0], pairs[:, 1], num_agents, name)
