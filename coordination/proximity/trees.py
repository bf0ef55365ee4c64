"""Neighbours from k-d trees, a tree a sample, on the CPU: for many agents without a radius, or crowded within it."""

from __future__ import annotations

import math

import torch
from scipy.spatial import KDTree
from torch import Tensor

from coordination.proximity.pairs import pairs_of
from coordination.proximity.ranking import at_once, rank

SPARE = 8  # candidates a tree is asked for beyond those wanted, so that few ties need a second look
BLOCK = 2_048  # agents asked for at once, in the order of the tree: what they touch stays in cache
ROUNDING = 1e-9  # relative; two squared distances closer than this may be ordered differently by the tree


def nearest_by_tree(points: Tensor, k: int, radius: float, edges: Tensor) -> Tensor:
    """Ask a tree for each agent's neighbours; arguments and result are those of :func:`all_pairs`."""
    found = torch.zeros(points.shape[1:], dtype=torch.int64)
    senders = torch.full((*found.shape, k), points.shape[2])
    for i, sample in enumerate(points.movedim(0, -1).cpu()):
        present = torch.isfinite(sample).all(-1).nonzero().squeeze(-1)
        if len(present) > 1:
            names = torch.cat([present, present.new_tensor([points.shape[2]])])
            chosen, found[i, present] = _ask(sample[present], k, radius)
            senders[i, present] = names[chosen]
    edges[:, 0] = senders.to(edges.device)
    return found.to(edges.device)


def _ask(points: Tensor, k: int, radius: float) -> tuple[Tensor, Tensor]:
    """``[n, k]`` senders of ``points [n, D]``, all of them somewhere, padded with n; and ``[n]`` how many in reach."""
    n, spots = len(points), points.numpy()
    tree = KDTree(spots)
    senders, found = torch.empty(n, k, dtype=torch.int64), torch.full((n,), n - 1)
    for me in torch.from_numpy(tree.indices).split(BLOCK):
        senders[me] = _ranked(tree, points, me, k, radius)
        if math.isfinite(radius):
            found[me] = torch.from_numpy(tree.query_ball_point(spots[me], radius, return_length=True)) - 1
    return senders, found


def _ranked(tree: KDTree, points: Tensor, me: Tensor, k: int, radius: float) -> Tensor:
    """``[m, k]`` nearest others of those in ``me [m]``, padded with n."""
    n, asked = len(points), min(k + 1 + SPARE, len(points))
    distance, names = tree.query(points[me].numpy(), k=asked, distance_upper_bound=radius * (1 + ROUNDING))
    names = torch.from_numpy(names)
    nobody = (names == n) | (names == me.unsqueeze(-1))
    names = names.clamp(max=n - 1)
    squared = torch.where(nobody, torch.inf, 0.0).double()
    for x in points.T.contiguous():
        squared += (x[names] - x[me].unsqueeze(-1)).square_()
    chosen, _ = rank(squared, names, k, radius * radius, n)
    if asked < n:  # there may be more as far as the last one that was asked for, and before some chosen by index
        sure = torch.from_numpy(distance[:, -1:]).square() * (1 - 4 * ROUNDING)
        tied = (sure.isfinite().squeeze(-1) & ((squared < sure).sum(-1) < k)).nonzero().squeeze(-1)
        for some in tied.split(max(at_once(points.device) // n, 1)):
            chosen[some] = pairs_of(points.T.unsqueeze(1).contiguous(), me[some], k, radius)[0][0]
    return chosen
