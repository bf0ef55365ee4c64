"""Graphs of moving agents: the k nearest, or those within a radius, of every agent in every sample.

Few agents (64 on a CPU, 1,024 on another device) have all their distances taken, batched, some samples at a time; more
get a k-d tree a sample, on the CPU, with memory O(N K). Both compare squared distances in float64 and break ties by
index, so they agree.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from coordination.graph import Graph

DENSE_AGENTS = 64  # up to here all distances are cheaper than trees on a CPU
DENSE_AGENTS_DEVICE = 1024  # elsewhere, where a tree also costs the way to the CPU and back
DENSE_ENTRIES = 2**22  # distances held at once, 32 MB
SPARE = 8  # candidates a tree is asked for beyond those wanted, so that few ties need a second look
ROUNDING = 1e-9  # relative; two squared distances closer than this may be ordered differently by the tree


def nearest(positions: Tensor, k: int, alive: Tensor | None = None) -> Graph:
    """Every living agent hears its k nearest living others; all of them where there are fewer.

    Args:
        positions: ``[*, N, D]``; rows of dead agents may hold anything, NaN included.
        k: Number of neighbours, at least 1; raising it adds links in proportion.
        alive: ``[*, N]`` bool; None if all live.

    Returns:
        A graph with N k edge slots a sample, each receiver's senders nearest first, ties by index.
    """
    if k < 1:
        raise ValueError(f"k: must be at least 1, got {k}")
    return _lists(positions, k, float("inf"), alive)[0]


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
    """
    if not radius > 0:
        raise ValueError(f"radius: must be positive, got {radius}")
    if capacity < 1:
        raise ValueError(f"capacity: must be at least 1, got {capacity}")
    return _lists(positions, capacity, radius, alive)


def _lists(positions: Tensor, k: int, radius: float, alive: Tensor | None) -> tuple[Graph, Tensor]:
    """Neighbour lists of k slots, and the number of agents in reach that found no slot, ``[*]``."""
    *lead, n, _ = positions.shape
    points = positions.detach().double().reshape(-1, n, positions.shape[-1])
    there = torch.isfinite(points).all(-1)
    if alive is not None:
        there = there & alive.reshape(-1, n)
    if n <= (DENSE_AGENTS if positions.device.type == "cpu" else DENSE_AGENTS_DEVICE):
        step = max(DENSE_ENTRIES // (n * n), 1)
        parts = [_dense(p, t, k, radius) for p, t in zip(points.split(step), there.split(step), strict=True)]
    else:
        pairs = zip(points.cpu().numpy(), there.cpu().numpy(), strict=True)
        parts = [_tree(p, t, k, radius) for p, t in pairs]
    lists = [torch.cat(part) for part in zip(*parts, strict=True)]
    neighbours, found = (x.to(positions.device) for x in lists)
    dropped = (found - k).clamp(min=0).sum(-1)
    return Graph.from_neighbours(neighbours.reshape(*lead, n, k), n), dropped.reshape(lead)


def _dense(points: Tensor, there: Tensor, k: int, radius: float) -> tuple[Tensor, Tensor]:
    """``[b, N, k]`` senders padded with N, and how many were in reach ``[b, N]``, from all distances."""
    n = points.shape[1]
    squared = sum((x.unsqueeze(2) - x.unsqueeze(1)).square() for x in points.unbind(-1))
    reach = there.unsqueeze(2) & there.unsqueeze(1) & (squared <= radius**2)
    reach = reach & ~torch.eye(n, dtype=torch.bool, device=points.device)
    order = torch.where(reach, squared, torch.inf).sort(dim=-1, stable=True).indices[..., :k]
    chosen = torch.where(reach.gather(-1, order), order, n)
    return torch.nn.functional.pad(chosen, (0, k - chosen.shape[-1]), value=n), reach.sum(-1)


def _tree(points: np.ndarray, there: np.ndarray, k: int, radius: float) -> tuple[Tensor, Tensor]:
    """The same for one sample of many agents, from a k-d tree."""
    n, present = len(points), np.flatnonzero(there)
    neighbours, found = np.full((1, n, k), n), np.zeros((1, n), dtype=np.int64)
    if present.size > 1:
        spots = points[present]
        tree = KDTree(spots)
        chosen = _ranked(tree, spots, k, radius)
        neighbours[0, present] = np.append(present, n)[chosen]
        if np.isfinite(radius):
            found[0, present] = tree.query_ball_point(spots, radius, return_length=True) - 1
    return torch.from_numpy(neighbours), torch.from_numpy(found)


def _ranked(tree: KDTree, spots: np.ndarray, k: int, radius: float) -> np.ndarray:
    """``[n, k]`` nearest others by squared distance, then index; padded with n."""
    n = len(spots)
    asked = min(k + 1 + SPARE, n)
    limit, me = radius**2, np.arange(n).reshape(-1, 1)
    reach = radius * (1 + ROUNDING)
    distance, found = tree.query(spots, k=asked, distance_upper_bound=reach)
    found = np.sort(found, axis=1)  # by index, so that a stable sort by distance breaks ties so
    squared = _squared(spots, me, found, limit)
    order = np.argsort(squared, axis=1, kind="stable")
    squared, found = np.take_along_axis(squared, order, 1), np.take_along_axis(found, order, 1)
    chosen = np.full((n, k), n)
    width = min(k, asked)
    chosen[:, :width] = np.where(np.isfinite(squared), found, n)[:, :width]
    if asked < n:  # beyond the candidates there may be more at the distance of the last one chosen
        last = distance[:, -1] ** 2
        for i in np.flatnonzero(np.isfinite(last) & (squared[:, k - 1] >= last * (1 - 4 * ROUNDING))):
            near = np.sort(tree.query_ball_point(spots[i], min(distance[i, -1], radius) * (1 + ROUNDING)))
            apart = _squared(spots, np.array([i]), near, limit)
            best = np.argsort(apart, kind="stable")[:k]
            chosen[i] = np.where(np.isfinite(apart[best]), near[best], n)
    return chosen


def _squared(spots: np.ndarray, receiver: np.ndarray, sender: np.ndarray, limit: float) -> np.ndarray:
    """Squared distances; infinite beyond the limit, to oneself and to padding."""
    padded = np.append(spots, np.full((1, spots.shape[1]), np.inf), axis=0)
    total = np.zeros(np.broadcast_shapes(receiver.shape, sender.shape))
    for axis in range(spots.shape[1]):
        total += (padded[sender, axis] - spots[receiver, axis]) ** 2
    return np.where((sender == receiver) | ~(total <= limit), np.inf, total)
