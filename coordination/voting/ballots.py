"""Ballots as ranks, and the rules that count them: plurality, Borda, Copeland, the Condorcet winner.

A ballot gives every candidate a rank, lower is better, equal ranks are ties: ``ranks [*, V, M]`` for V voters and M
candidates. Voters may carry weights ``[*, V]``: how many share a ballot, trust, or 0 for a voter who is dead. Scores
are ``[*, M]``; all rules treat voters alike and candidates alike, so ties stay ties.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from coordination.arrays import Array


def ranks_of(orders: Array) -> Tensor:
    """Ranks from orders: ``orders[*, v, 0]`` is voter v's best candidate.

    O(V M log M).

    Args:
        orders: ``[*, V, M]`` int64 permutations of 0..M-1.

    Raises:
        ValueError: If a row is not a permutation.

    >>> ranks_of(torch.tensor([[2, 0, 1]]))
    tensor([[1, 2, 0]])
    """
    orders = torch.as_tensor(orders)
    ranks = orders.argsort(-1)
    if not bool((orders.gather(-1, ranks) == torch.arange(orders.shape[-1], device=orders.device)).all()):
        raise ValueError("orders: each row must be a permutation of 0..M-1, best first")
    return ranks


def ranks_from(utility: Array) -> Tensor:
    """Ranks from utilities ``[*, V, M]``: how many candidates the voter likes strictly better; O(V M^2).

    >>> ranks_from(torch.tensor([[0.3, 0.9, 0.3]]))
    tensor([[1, 0, 1]])
    """
    utility = torch.as_tensor(utility)
    return torch.stack([(utility > mine).sum(-1) for mine in utility.unsqueeze(-1).unbind(-2)], -1)


def _ballots(ranks: Array, weight: Array | None) -> tuple[Tensor, Tensor]:
    """Ranks, and weights ``[*, V]``: int64 ones by default, so that counts are exact."""
    ranks = torch.as_tensor(ranks)
    if ranks.ndim < 2:
        raise ValueError(f"ranks: expected [*, V, M], got {tuple(ranks.shape)}")
    if weight is None:
        return ranks, torch.ones(ranks.shape[:-1], dtype=torch.int64, device=ranks.device)
    weight = torch.as_tensor(weight, device=ranks.device)
    if weight.ndim < 1 or weight.shape[-1] != ranks.shape[-2]:
        raise ValueError(f"weight: expected [*, V] with V = {ranks.shape[-2]}, got {tuple(weight.shape)}")
    return ranks, (weight.long() if weight.dtype == torch.bool else weight).expand(ranks.shape[:-1])


def pairwise(ranks: Array, weight: Array | None = None) -> Tensor:
    """``[*, M, M]`` total weight of the voters that rank candidate i before j; O(V M^2) time, O(V M) memory.

    The contests ``w_ij = sum over voters v of weight_v [v ranks i before j]`` of Condorcet (1785).

    Args:
        ranks: ``[*, V, M]``.
        weight: ``[*, V]``; ones if None. Whole numbers are counted exactly.

    >>> pairwise(torch.tensor([[0, 1, 2], [0, 2, 1]]))
    tensor([[0, 2, 2],
            [0, 0, 1],
            [0, 1, 0]])
    """
    ranks, each = _ballots(ranks, weight)
    each = each.unsqueeze(-1)
    rows = [(each * (mine < ranks)).sum(-2) for mine in ranks.unsqueeze(-1).unbind(-2)]
    return torch.stack(rows, -2)


def plurality(ranks: Array, weight: Array | None = None) -> Tensor:
    """``[*, M]`` float64 weight of the voters whose first choice each candidate is; ties for first share it. O(V M).

    ``sum over voters v of weight_v [v ranks i first] / (number v ranks first)``.

    >>> plurality(torch.tensor([[0, 1, 2], [1, 0, 2], [0, 0, 1]]))
    tensor([1.5000, 1.5000, 0.0000], dtype=torch.float64)
    """
    ranks, each = _ballots(ranks, weight)
    first = (ranks == ranks.amin(-1, keepdim=True)).double()
    return (each.unsqueeze(-1) * first / first.sum(-1, keepdim=True)).sum(-2)


def borda(ranks: Array, weight: Array | None = None) -> Tensor:
    """``[*, M]`` float64 Borda scores: per ballot one point for each candidate below, half a point for each tied.

    O(V M^2) (Borda 1781).

    >>> borda(torch.tensor([[0, 1, 2], [0, 2, 1]]))
    tensor([4., 1., 1.], dtype=torch.float64)
    """
    wins = pairwise(ranks, weight).double()
    total = _ballots(ranks, weight)[1].double().sum(-1)[..., None, None]
    ties = total - wins - wins.mT
    return (wins + ties / 2).sum(-1) - total.squeeze(-1) / 2  # without the tie with oneself


def copeland(ranks: Array, weight: Array | None = None) -> Tensor:
    """``[*, M]`` float64 majority contests won, drawn ones counting half; O(V M^2) (Copeland 1951).

    >>> copeland(torch.tensor([[0, 1, 2], [0, 2, 1]]))
    tensor([2.0000, 0.5000, 0.5000], dtype=torch.float64)
    """
    wins = pairwise(ranks, weight)
    return (wins > wins.mT).double().sum(-1) + ((wins == wins.mT).double().sum(-1) - 1) / 2


def condorcet(ranks: Array, weight: Array | None = None) -> Tensor:
    """``[*, M]`` bool: the candidate that beats every other by majority; all False if there is none. O(V M^2).

    Condorcet (1785).

    >>> condorcet(torch.tensor([[0, 1, 2], [2, 0, 1], [1, 2, 0]]))
    tensor([False, False, False])
    """
    return copeland(ranks, weight) == np.shape(ranks)[-1] - 1
