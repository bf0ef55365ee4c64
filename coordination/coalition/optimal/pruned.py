"""Optimal coalition structures beyond the reach of dynamic programming: search among the coalitions that prices leave.

Against prices y with ``y(S) >= v(S)`` for all S a structure loses exactly the reduced costs ``y(C) - v(C) >= 0`` of its
coalitions: ``sum of v(C) = y(N) - sum of (y(C) - v(C))``. The best structure is a shortest path through sets of covered
agents, and only the few coalitions of lowest reduced cost can lie on it.
"""

from __future__ import annotations

import time

import numpy as np

from coordination.arrays import as_numpy
from coordination.coalition.base import Coalitions, finish, single
from coordination.coalition.optimal.bounds import subset_sums, supporting_prices
from coordination.games import Game, tabulate

FIRST_POOL, LARGEST_POOL = 1_000, 1_000_000  # coalitions
FIRST_BEAM = 50_000  # states kept per agent
CHUNK, LAYER = 4_000_000, 500_000_000  # state-coalition pairs looked at in one go, and for one agent


def pruned_structure(game: Game, beam: int = 1_000_000, time_limit: float | None = None) -> Coalitions:
    """The best structure among the coalitions of lowest reduced cost, with a bound on all others.

    Agents are covered in order: states are sets of covered agents with the cost so far, a step covers the first agent
    left with one coalition of the pool, equal sets keep the cheaper cost. A structure with a coalition outside the pool
    loses at least the lowest reduced cost outside; one whose state fell off the beam at least that state's cost. So
    whatever stops the search, ``upper_bound`` is true; where the best structure found loses no more, it is optimal and
    ``gap`` is 0. Whichever of pool and beam leaves the doubt is widened until none is left, or its limit is reached.

    Memory O(2^N). Worst case as bad as enumeration; on the ten published value distributions 20 agents take about a
    second and 22 a few, on one thread without numba (20 in ``benchmarks/coordination_scale.py``).

    Reduced costs of the set-partitioning program, as in Barnhart et al. 1998; anytime with a bound like the search of
    Rahwan et al. 2009.

    Args:
        game: One game of at most 26 agents, its empty coalition worth 0.
        beam: Most states kept per agent; raising it costs time and memory, and closes gaps.
        time_limit: Seconds after which the search is widened no more; None for no limit.

    >>> from coordination.games import TabularGame
    >>> float(pruned_structure(TabularGame(np.array([0.0, 1, 1, 3, 1, 1, 1, 3.5]))).value)
    4.0
    """
    game = single(game, "pruned_structure")
    if beam < 1:
        raise ValueError(f"beam: must be at least 1, got {beam}")
    start = time.monotonic()
    table = as_numpy(tabulate(game))
    n = game.num_agents
    prices = supporting_prices(table)
    reduced = np.maximum(subset_sums(prices) - table, 0.0)
    reduced[0] = np.inf
    label, loss = _simple(reduced, n)
    size, width = FIRST_POOL, min(FIRST_BEAM, beam)
    while True:
        pool, outside = _cheapest(reduced, size, n)
        found, cost, dropped = _shortest(pool, reduced[pool], n, loss, width)
        if found is not None:
            label, loss = found, cost
        floor = min(loss, outside, dropped)  # no structure loses less
        if loss <= floor:
            return finish(game, label)
        narrow = dropped < outside
        exhausted = width >= beam if narrow else size >= LARGEST_POOL
        if exhausted or (time_limit is not None and time.monotonic() - start > time_limit):
            return finish(game, label, float(prices.sum()) - floor)
        if narrow:
            width = min(4 * width, beam)
        else:
            size *= 4


def _simple(reduced: np.ndarray, n: int) -> tuple[np.ndarray, float]:
    """The better of everybody together and everybody alone, and what it loses."""
    alone = float(reduced[1 << np.arange(n)].sum())
    together = float(reduced[-1])
    return (np.zeros(n, dtype=np.int64), together) if together <= alone else (np.arange(n), alone)


def _cheapest(reduced: np.ndarray, count: int, n: int) -> tuple[np.ndarray, float]:
    """The ``count`` coalitions of lowest reduced cost (and all singletons), and the lowest cost left outside."""
    if count >= len(reduced) - 1:
        return np.arange(1, len(reduced)), np.inf
    order = np.argpartition(reduced, count)
    return np.union1d(order[:count], 1 << np.arange(n)), float(reduced[order[count]])


def _shortest(
    pool: np.ndarray, cost: np.ndarray, n: int, limit: float, beam: int
) -> tuple[np.ndarray | None, float, float]:
    """Labels and cost of the cheapest cover below ``limit`` (None if there is none), and the lowest cost dropped."""
    first = np.round(np.log2(pool & -pool)).astype(np.int64)  # the lowest agent of each coalition
    covered, paid = np.zeros(1, dtype=np.int64), np.zeros(1)
    trace: list[tuple[np.ndarray, np.ndarray]] = []
    count = np.append(np.bincount(first, minlength=n), 1)
    dropped = np.inf
    for agent in range(n):
        mine = np.flatnonzero(first == agent)
        mine = mine[np.argsort(cost[mine], kind="stable")]
        parent, used, paid = _extend(covered, paid, agent, pool[mine], cost[mine], limit)
        covered = covered[parent] | used
        order = np.lexsort((paid, covered))
        order = order[np.flatnonzero(np.diff(covered[order], prepend=-1))]  # equal sets: the cheapest
        room = min(beam, max(LAYER // max(int(count[agent + 1]), 1), 1))
        if len(order) > room:
            order = order[np.argsort(paid[order], kind="stable")]
            dropped = min(dropped, float(paid[order[room]]))
            order = order[:room]
        covered, paid = covered[order], paid[order]
        trace.append((parent[order], used[order]))
    if not len(paid):
        return None, np.inf, dropped
    label, state = np.zeros(n, dtype=np.int64), 0  # all states cover everybody, so one is left
    for number, (parent, used) in enumerate(reversed(trace)):
        coalition, state = int(used[state]), int(parent[state])
        label[[i for i in range(n) if coalition >> i & 1]] = number
    return label, float(paid[0]), dropped


def _extend(
    covered: np.ndarray, paid: np.ndarray, agent: int, coalitions: np.ndarray, cost: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All states after ``agent`` is covered: their parents, the coalition used (0 for none) and the cost so far."""
    has = (covered >> agent & 1).astype(bool)
    parent, used, total = [np.flatnonzero(has)], [np.zeros(has.sum(), dtype=np.int64)], [paid[has]]
    open_states = np.flatnonzero(~has)
    for chunk in np.array_split(open_states, max(1, len(open_states) * len(coalitions) // CHUNK)):
        if not len(chunk):
            continue
        reach = int(np.searchsorted(cost, limit - paid[chunk].min(), side="left"))
        after = paid[chunk, None] + cost[:reach]
        state, used_here = np.nonzero(((covered[chunk, None] & coalitions[:reach]) == 0) & (after < limit))
        parent.append(chunk[state])
        used.append(coalitions[used_here])
        total.append(after[state, used_here])
    return np.concatenate(parent), np.concatenate(used), np.concatenate(total)
