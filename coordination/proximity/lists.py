"""Neighbour lists of moving agents, by whichever search is cheapest: all pairs, cells, or a k-d tree.

Few agents have all their distances taken; more are sorted into cells. Where these are of no use, because there is no
radius or too many are within it, a k-d tree a sample is asked, on the CPU. Memory is O(N k). All compare squared
distances in float64 and break ties by index, so they agree.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coordination.graph import Graph
from coordination.proximity.cells import Cells
from coordination.proximity.pairs import all_pairs
from coordination.proximity.trees import nearest_by_tree

# Measured on one thread of a CPU, 7 neighbours on average and at most 16, nanoseconds per agent: all pairs 65 among 8
# agents, 300 among 96, 2,400 among 692; cells 400 among any number; trees 2,500, in a crowd 5,000.
PAIRS = 96  # agents up to which all pairs are cheaper than cells
PAIRS_NEAREST = 768  # ... and cheaper than a tree
PAIRS_DEVICE = 1024  # either, on another device
AGENTS_AT_ONCE = 2**15  # of whole samples on a CPU, so that what is held stays in cache
CROWD = 30  # agents in an agent's own cell from which on a tree is cheaper than cells ...
CROWDED_PART = 1 / 50  # ... and part of all agents from which on all pairs are


def nearest(positions: Tensor, k: int, alive: Tensor | None = None) -> Graph:
    """Every living agent hears its k nearest living others; all of them where there are fewer.

    Args:
        positions: ``[*, N, D]``; rows of dead agents may hold anything, NaN included.
        k: Number of neighbours, at least 1; raising it adds links in proportion.
        alive: ``[*, N]`` bool; None if all live.

    Returns:
        A graph with N k edge slots a sample, each receiver's senders nearest first, ties by index.

    Raises:
        ValueError: If k is below 1.
    """
    if k < 1:
        raise ValueError(f"k: must be at least 1, got {k}")
    return _lists(positions, k, math.inf, alive)[0]


def within(positions: Tensor, radius: float, capacity: int, alive: Tensor | None = None) -> tuple[Graph, Tensor]:
    """Every living agent hears the living others within a radius (border included), the nearest ``capacity`` of them.

    Args:
        positions: ``[*, N, D]``; rows of dead agents may hold anything, NaN included.
        radius: Reach, positive, in units of the positions.
        capacity: Most neighbours of one receiver; those farther away are dropped, and counted.
        alive: ``[*, N]`` bool; None if all live.

    Returns:
        A graph with N capacity edge slots a sample, each receiver's senders nearest first, ties by index; and ``[*]``
        int64, how many links were dropped.

    Raises:
        ValueError: If the radius is not positive, or the capacity below 1.
    """
    if not radius > 0:
        raise ValueError(f"radius: must be positive, got {radius}")
    if capacity < 1:
        raise ValueError(f"capacity: must be at least 1, got {capacity}")
    return _lists(positions, capacity, radius, alive)


def _lists(positions: Tensor, k: int, radius: float, alive: Tensor | None) -> tuple[Graph, Tensor]:
    """Neighbour lists of k slots, and the number of agents in reach that found no slot, ``[*]``."""
    *lead, n, dim = positions.shape
    points, device = positions.detach().reshape(-1, n, dim), positions.device
    there = None if alive is None else alive.reshape(-1, n)
    edges = torch.empty(len(points), 2, n, k, dtype=torch.int64, device=device)
    edges[:, 1] = torch.arange(n, device=device).unsqueeze(-1)
    found = torch.empty(len(points), n, dtype=torch.int64, device=device)
    step = max(AGENTS_AT_ONCE // n, 1) if device.type == "cpu" else max(len(points), 1)
    for i in range(0, len(points), step):
        some = slice(i, i + step)
        axes = points[some].movedim(-1, 0).to(torch.float64, memory_format=torch.contiguous_format)
        if there is not None:
            axes = torch.where(there[some], axes, torch.nan)
        found[some] = _search(axes, k, radius, edges[some])
    dropped = (found - k).clamp_(min=0).sum(-1)
    row_start = (torch.arange(n + 1, device=device) * k).expand(*lead, -1)
    return Graph(edges=edges.reshape(*lead, 2, n * k), row_start=row_start), dropped.reshape(lead)


def _search(points: Tensor, k: int, radius: float, edges: Tensor) -> Tensor:
    """Put the senders of ``points [D, b, N]`` into ``edges[:, 0]``, ``[b, N, k]``, by the search for the case.

    Returns:
        ``[b, N]`` how many are in reach of each agent, in any order; one that is nowhere finite is in nobody's.
    """
    n, on_cpu = points.shape[2], points.device.type == "cpu"
    if n > (PAIRS if on_cpu else PAIRS_DEVICE) and math.isfinite(radius):
        cells = Cells(points, radius)
        if not on_cpu or cells.crowding() < min(CROWD, CROWDED_PART * n):
            return cells.search(k, edges)
    if n <= (PAIRS_NEAREST if on_cpu else PAIRS_DEVICE):
        return all_pairs(points, k, radius, edges)
    return nearest_by_tree(points, k, radius, edges)
