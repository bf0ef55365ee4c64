"""Neighbours from the distances of all pairs: for few agents, and for the few of many that a tree leaves open."""

from __future__ import annotations

import torch
from torch import Tensor

from coordination.proximity.ranking import at_once, rank


def all_pairs(points: Tensor, k: int, radius: float, edges: Tensor) -> Tensor:
    """Take all distances, some samples or, of a large one, some receivers at a time.

    Args:
        points: ``[D, b, N]`` float64, contiguous; who is not at a finite place is in nobody's reach.
        k: Number of slots.
        radius: Reach, which may be infinite.
        edges: ``[b, 2, N, k]`` int64; the senders are written to ``edges[:, 0]``.

    Returns:
        ``[b, N]`` int64, how many are in reach of each.
    """
    _, b, n = points.shape
    found = torch.empty(b, n, dtype=torch.int64, device=points.device)
    everyone = torch.arange(n, device=points.device)
    samples, receivers = max(at_once(points.device) // (n * n), 1), max(at_once(points.device) // n, 1)
    for i in range(0, b, samples):
        for j in range(0, n, receivers):
            some, who = slice(i, i + samples), slice(j, j + receivers)
            edges[some, 0, who], found[some, who] = pairs_of(points[:, some], everyone[who], k, radius)
    return found


def pairs_of(points: Tensor, receivers: Tensor, k: int, radius: float) -> tuple[Tensor, Tensor]:
    """The same for some receivers ``[r]`` at once: ``[b, r, k]`` senders, padded with N, and ``[b, r]`` how many."""
    _, b, n = points.shape
    first, *rest = points
    squared = (first.unsqueeze(1) - first[:, receivers].unsqueeze(2)).square_()
    for x in rest:
        squared += (x.unsqueeze(1) - x[:, receivers].unsqueeze(2)).square_()
    squared.scatter_(2, receivers.view(1, -1, 1).expand(b, -1, 1), torch.inf)
    names = torch.arange(n, device=points.device)
    chosen, found = rank(squared.view(-1, n), names, k, radius * radius, n)
    return chosen.view(b, -1, k), found.view(b, -1)
