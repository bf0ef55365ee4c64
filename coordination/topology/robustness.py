"""(r, s)-robustness: the graph property that resilient consensus needs, decided, bounded or admitted unknown.

A graph is (r, s)-robust if for every two disjoint nonempty sets of agents S1, S2, with X_k the members of S_k that
hear at least r agents outside S_k: X_1 = S1, or X_2 = S2, or |X_1| + |X_2| >= s (LeBlanc, Zhang, Koutsoukos and
Sundaram 2013, Definition 13). r-robust means (r, 1)-robust. Deciding it is coNP-complete, so an answer comes with its
ground.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from scipy.sparse import csgraph

from coordination.topology.base import Topology

EXACT_AGENTS = 18  # 2^N subsets: a quarter of a second; each agent more doubles that
KERNEL_AGENTS = 12  # size of the seeds that a constructive certificate grows from
KERNEL_SEEDS = 8  # how many are tried
SPECTRAL_AGENTS = 20_000  # algebraic bound: its eigenvalue takes seconds here, minutes at 100,000 agents


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What is known about a graph being (r, s)-robust.

    Attributes:
        r, s: The property asked about.
        holds: True, False, or None where neither could be shown.
        kind: ``exact``: decided; ``lower_bound``: shown to hold by a sufficient condition; ``unknown``.
        reason: The ground, in words.
        witness: Two sets of agents that violate the definition, where it fails and they are known.
    """

    r: int
    s: int
    holds: bool | None
    kind: Literal["exact", "lower_bound", "unknown"]
    reason: str
    witness: tuple[tuple[int, ...], tuple[int, ...]] | None = None


def robustness(topology: Topology, r: int, s: int = 1) -> Certificate:
    """Whether a graph is (r, s)-robust, with the ground for the answer.

    Exactly, by subsets up to 18 agents in O(2^N N), and at any size where a counting argument decides: more than half
    of the agents (r > ceil(N/2)), an agent that hears fewer than r, complete graphs, r = s = 1. Otherwise two
    sufficient conditions are tried: growth from a small robust kernel by agents that hear r + s - 1 of those before
    (LeBlanc et al., Theorem 5), O(E); and ``lambda_2 > 2 (r + s - 2)`` on undirected graphs of up to 20,000 agents
    (after Zhang, Fata and Sundaram 2015, since the isoperimetric number is at least lambda_2 / 2). If neither holds the
    answer is unknown, not no.

    Args:
        topology: Who hears whom.
        r: How many outsiders must be heard, at least 1.
        s: How many must hear that many, at least 1.

    Raises:
        ValueError: If r or s is below 1.

    >>> triangle = Topology([[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]], 3)
    >>> robustness(triangle, 2, 2).holds, robustness(triangle, 3).reason
    (True, 'r = 3 exceeds ceil(N / 2) = 2')
    """
    if r < 1 or s < 1:
        raise ValueError(f"robustness: r and s must be at least 1, got {r} and {s}")
    n = topology.num_agents
    decided = _counted(topology, r, s)
    if decided is not None:
        return decided
    if n <= EXACT_AGENTS:
        witness = violating_sets(topology, r, s)
        holds = witness is None
        return Certificate(r, s, holds, "exact", f"all subsets of {n} agents examined", witness)
    seed = _kernel(topology, r, s)
    if seed is not None:
        reason = f"grows from the ({r}, {s})-robust agents {seed} by agents that hear {r + s - 1} of those before"
        return Certificate(r, s, True, "lower_bound", reason)
    if topology.is_undirected and n <= SPECTRAL_AGENTS:
        gap = topology.lambda2()
        if gap > 2 * (r + s - 2) + 1e-6 * (1 + gap):
            return Certificate(
                r, s, True, "lower_bound", f"lambda_2 = {gap:.4f} exceeds 2 (r + s - 2) = {2 * (r + s - 2)}"
            )
    return Certificate(r, s, None, "unknown", "too large to examine, and no sufficient condition holds")


def max_robustness(topology: Topology) -> int:
    """Largest r for which a graph of at most 18 agents is r-robust; 0 if it is not even 1-robust.

    The definition of r-robustness by LeBlanc, Zhang, Koutsoukos and Sundaram (2013), examined subset by subset: O(r 2^N
    N).

    >>> max_robustness(Topology([[0, 1, 1, 2], [1, 0, 2, 1]], 3))
    1
    """
    if topology.num_agents > EXACT_AGENTS:
        raise ValueError(
            f"max_robustness: examines all subsets of up to {EXACT_AGENTS} agents, got {topology.num_agents}"
        )
    best = 0
    while robustness(topology, best + 1).holds:
        best += 1
    return best


def robust_topology(num_agents: int, r: int, s: int = 1, seed: int | None = None) -> Topology:
    """An undirected (r, s)-robust graph on N agents: a complete kernel, then agents with r + s - 1 links each.

    The kernel has ``max(2 r - 1, r + s - 1)`` agents: complete graphs on m are (ceil(m/2), s)-robust for every s, and
    LeBlanc et al. (2013, Theorem 5) keep the property at every further agent.

    O(N (r + s)) time and links.

    Args:
        num_agents: N, at least the size of the kernel.
        r, s: The property wanted.
        seed: New agents link to random earlier ones (short paths); None: to the latest ones (a band, degree at most
            2 (r + s - 1) outside the kernel).

    Returns:
        The topology, with about N (r + s - 1) links.

    >>> robust_topology(1000, 2, 2).num_edges // 2
    2994
    """
    links, size = r + s - 1, max(2 * r - 1, r + s - 1)
    if r < 1 or s < 1 or num_agents < size:
        raise ValueError(f"robust_topology: needs r, s >= 1 and num_agents >= {size}, got {r}, {s} and {num_agents}")
    rng = None if seed is None else np.random.default_rng(seed)
    pairs = [(i, j) for j in range(size) for i in range(j)]
    for new in range(size, num_agents):
        old = range(new - links, new) if rng is None else rng.choice(new, size=links, replace=False)
        pairs.extend((int(i), new) for i in old)
    one_way = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return Topology(np.concatenate([one_way, one_way[::-1]], 1), num_agents, f"robust_{r}_{s}")


def violating_sets(topology: Topology, r: int, s: int = 1) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Two sets that show a graph not to be (r, s)-robust, or None if there are none: every subset is examined.

    O(2^N N) time and O(2^N) memory: for every set S that has members outside X, |X| is compared with the least |X| of
    such a set in its complement, found for all complements at once by a minimum over subsets.

    Args:
        topology: Who hears whom; at most 24 agents.
        r, s: The property.

    >>> violating_sets(Topology([[0, 1, 1, 2], [1, 0, 2, 1]], 3), 2)
    ((0,), (2,))
    """
    n = topology.num_agents
    if n > 24:
        raise ValueError(f"violating_sets: examines all subsets of up to 24 agents, got {n}")
    subsets = np.arange(2**n, dtype=np.int64)
    none = np.int8(127)
    reached = np.zeros(2**n, dtype=np.int8)  # |X|: members that hear r or more outside
    size = np.bitwise_count(subsets).astype(np.int8)
    source, receiver = topology.edges.numpy()
    for agent in range(n):
        heard = np.int64(np.bitwise_or.reduce(1 << source[receiver == agent], initial=0))
        member = (subsets >> agent & 1).astype(bool)
        reached += member & (np.bitwise_count(heard & ~subsets) >= r)
    open_sets = (size > 0) & (reached < size)
    least = np.where(open_sets, reached, none)
    own = least.copy()
    for agent in range(n):  # least over all subsets, one agent at a time
        view = least.reshape(-1, 2, 2**agent)
        np.minimum(view[:, 1], view[:, 0], out=view[:, 1])
    total = own.astype(np.int16) + least[::-1]  # the complement of the subset k is 2^N - 1 - k
    first = int(total.argmin())
    if own[first] == none or total[first] >= min(s, n):
        return None
    rest = subsets & first == 0
    second = int(np.flatnonzero(rest & (own == least[2**n - 1 - first]) & open_sets)[0])
    return _members(first, n), _members(second, n)


def _members(subset: int, n: int) -> tuple[int, ...]:
    return tuple(i for i in range(n) if subset >> i & 1)


def _counted(topology: Topology, r: int, s: int) -> Certificate | None:
    """The answer where counting gives it at any size."""
    n, half = topology.num_agents, -(-topology.num_agents // 2)
    fewest = int(topology.in_degree.argmin())
    heard = int(topology.in_degree[fewest])
    holds, reason, witness = None, "", None
    if n == 1:
        holds, reason = True, "a single agent: there are no two sets"
    elif r > half:
        holds, reason = False, f"r = {r} exceeds ceil(N / 2) = {half}"
    elif topology.num_edges == n * (n - 1):
        holds, reason = True, "complete graph with r at most ceil(N / 2)"
    elif r > 1 and heard < r:
        holds, reason = False, f"agent {fewest} hears {heard} agents, fewer than r = {r}"
        witness = ((fewest,), tuple(i for i in range(n) if i != fewest))
    elif r == s == 1 and topology.is_undirected:
        parts = csgraph.connected_components(topology.adjacency().matrix, directed=False)[1]
        holds = bool(parts.max() == 0)
        reason = "connected" if holds else "not connected"
        if not holds:
            witness = (tuple(np.flatnonzero(parts == 0).tolist()), tuple(np.flatnonzero(parts == 1).tolist()))
    return None if holds is None else Certificate(r, s, holds, "exact", reason, witness)


def _kernel(topology: Topology, r: int, s: int) -> list[int] | None:
    """Agents of a small (r, s)-robust subgraph from which the whole graph grows, or None if none was found."""
    order = np.argsort(-topology.in_degree.numpy(), kind="stable")
    spread = np.linspace(0, order.size - 1, KERNEL_SEEDS).astype(int)
    starts = [*range(min(KERNEL_SEEDS, order.size)), *order[:KERNEL_SEEDS].tolist(), *order[spread].tolist()]
    for start in dict.fromkeys(starts):
        cluster = _cluster(topology, start)
        for size in range(max(2 * r - 1, 2), len(cluster) + 1):
            inside = _inside(topology, cluster[:size])
            if robustness(inside, r, s).holds:
                if _grows(topology, cluster[:size], r + s - 1):
                    return cluster[:size]
                break
    return None


def _cluster(topology: Topology, start: int) -> list[int]:
    """An agent and those around it, each next one hearing the most of those before."""
    cluster, links = [start], {}
    while len(cluster) < KERNEL_AGENTS:
        for agent in _hearers(topology, cluster[-1]):
            links[agent] = links.get(agent, 0) + 1
        outside = [agent for agent in links if agent not in cluster]
        if not outside:
            break
        cluster.append(max(outside, key=lambda agent: (links[agent], -agent)))
    return cluster


def _hearers(topology: Topology, agent: int) -> list[int]:
    """Who hears an agent."""
    start = topology.reverse.row_start
    return topology.reverse.edges[0, int(start[agent]) : int(start[agent + 1])].tolist()


def _inside(topology: Topology, agents: list[int]) -> Topology:
    """The subgraph on some agents, renumbered."""
    place = {agent: k for k, agent in enumerate(agents)}
    pairs = [(place[a], place[b]) for a in agents for b in _hearers(topology, a) if b in place]
    return Topology(np.array(pairs, dtype=np.int64).reshape(-1, 2).T, len(agents))


def _grows(topology: Topology, seed: list[int], threshold: int) -> bool:
    """Whether adding agents that hear ``threshold`` of those before, again and again, reaches everyone; O(E)."""
    start, hearers = topology.reverse.row_start.tolist(), topology.reverse.edges[0].tolist()
    heard = [0] * topology.num_agents
    inside = set(seed)
    waiting = list(seed)
    while waiting:
        agent = waiting.pop()
        for other in hearers[start[agent] : start[agent + 1]]:
            heard[other] += 1
            if heard[other] >= threshold and other not in inside:
                inside.add(other)
                waiting.append(other)
    return len(inside) == topology.num_agents
