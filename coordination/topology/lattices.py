"""Topologies without chance: lattices, trees, the complete and the exponential graph.

Links go both ways except in :func:`exponential`. Time and memory are O(N + E).
"""

from __future__ import annotations

import math

import numpy as np

from coordination.topology.base import Topology

MAX_COMPLETE = 10_000  # 10^8 edges, 1.6 GB


def empty(num_agents: int) -> Topology:
    """Nobody hears anybody."""
    return Topology(np.zeros((2, 0), dtype=np.int64), num_agents, "empty")


def complete(num_agents: int) -> Topology:
    """Everybody hears everybody: N (N - 1) edges.

    Raises:
        ValueError: Above 10,000 agents, whose edges fill the memory of a usual machine.
    """
    if num_agents > MAX_COMPLETE:
        raise ValueError(
            f"complete: at most {MAX_COMPLETE} agents, got {num_agents}; choose a sparse topology, e.g. random_regular"
        )
    pairs = np.indices((num_agents, num_agents)).reshape(2, -1)
    return Topology(pairs[:, pairs[0] != pairs[1]], num_agents, "complete")


def ring(num_agents: int) -> Topology:
    """A closed chain: agent i hears i - 1 and i + 1 modulo N."""
    agents = np.arange(num_agents)
    return Topology.from_links(agents, (agents + 1) % num_agents, num_agents, "ring")


def path(num_agents: int) -> Topology:
    """An open chain: agent i hears i - 1 and i + 1."""
    agents = np.arange(num_agents)
    return Topology.from_links(agents[:-1], agents[1:], num_agents, "path")


def star(num_agents: int) -> Topology:
    """Agent 0 hears everybody, everybody else hears agent 0."""
    others = np.arange(1, num_agents)
    return Topology.from_links(np.zeros_like(others), others, num_agents, "star")


def grid(num_agents: int, rows: int | None = None, cols: int | None = None) -> Topology:
    """A rectangle in which agent ``r * cols + c`` hears its four neighbours (fewer at the border).

    Args:
        num_agents: Number of agents N = rows * cols.
        rows, cols: Shape; what is left out follows from N, both as square as N's divisors allow.

    Raises:
        ValueError: If rows and cols do not multiply to N.
    """
    place = np.arange(num_agents).reshape(_shape("grid", num_agents, rows, cols))
    across, down = (place[:, :-1], place[:, 1:]), (place[:-1], place[1:])
    sender, receiver = (np.concatenate([a.ravel(), b.ravel()]) for a, b in zip(across, down, strict=True))
    return Topology.from_links(sender, receiver, num_agents, "grid")


def torus(num_agents: int, rows: int | None = None, cols: int | None = None) -> Topology:
    """A grid whose borders are joined; arguments as in :func:`grid`."""
    place = np.arange(num_agents).reshape(_shape("torus", num_agents, rows, cols))
    receiver = np.concatenate([np.roll(place, -1, axis).ravel() for axis in (0, 1)])
    return Topology.from_links(np.tile(place.ravel(), 2), receiver, num_agents, "torus")


def tree(num_agents: int, branching: int = 2) -> Topology:
    """A balanced tree filled level by level: the parent of agent i is ``(i - 1) // branching``.

    Args:
        num_agents: Number of agents N.
        branching: Children of each agent, at least 1; raising it makes the tree flatter.
    """
    if branching < 1:
        raise ValueError(f"tree: branching must be at least 1, got {branching}")
    child = np.arange(1, num_agents)
    return Topology.from_links((child - 1) // branching, child, num_agents, f"tree(branching={branching})")


def exponential(num_agents: int) -> Topology:
    """The static exponential graph: agent i is heard by i + 2^j modulo N for every 2^j < N; one-way links.

    Degree ``ceil(log2 N)``; with plain means the contraction per round is ``1 - 2 / (ceil(log2 N) + 1)`` for even N
    (Ying et al. 2021, arXiv:2110.13363), far better than any other graph of so few links.
    """
    agents = np.arange(num_agents)
    jumps = [1 << j for j in range((num_agents - 1).bit_length())]
    receiver = np.concatenate([(agents + jump) % num_agents for jump in jumps] or [agents[:0]])
    return Topology(np.stack([np.tile(agents, len(jumps)), receiver]), num_agents, "exponential")


def _shape(name: str, num_agents: int, rows: int | None, cols: int | None) -> tuple[int, int]:
    """Rows and columns of a rectangle of N agents."""
    if num_agents < 1:
        raise ValueError(f"num_agents: must be at least 1, got {num_agents}")
    known = rows if rows is not None else cols
    if known is None:
        known = next(d for d in range(math.isqrt(num_agents), 0, -1) if num_agents % d == 0)
    other = num_agents // max(known, 1)
    shape = (known, other) if rows is not None or cols is None else (other, known)
    if cols not in (None, shape[1]) or known < 1 or known * other != num_agents:
        raise ValueError(f"{name}: rows * cols must be num_agents = {num_agents}, got rows {rows}, cols {cols}")
    return shape
