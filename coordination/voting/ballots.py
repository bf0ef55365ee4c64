"""Ballots as ranks, and the rules that count them: plurality, Borda, Copeland, the Condorcet winner.

A ballot gives every candidate a rank, lower is better, equal ranks are ties: ``ranks [*, V, M]`` for V voters and M
candidates. Voters may carry weights ``[*, V]``: how many share a ballot, trust, or 0 for a voter who is dead. Scores
are ``[*, M]``; all rules treat voters alike and candidates alike, so ties stay ties.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ranks_of(orders: Tensor) -> Tensor:
    """Ranks from orders: ``orders[*, v, 0]`` is voter v's best candidate.

    Args:
        orders: ``[*, V, M]`` int64 permutations of 0..M-1.

    Raises:
        ValueError: If a row is not a permutation.

    >>> ranks_of(torch.tensor([[2, 0, 1]]))
    tensor([[1, 2, 0]])
    """
    ranks = orders.argsort(-1)
    if not bool((orders.gather(-1, ranks) == torch.arange(orders.shape[-1], device=orders.device)).all()):
        raise ValueError("orders: each row must be a permutation of 0..M-1, best first")
    return ranks


def ranks_from(utility: Tensor) -> Tensor:
    """Ranks from utilities ``[*, V, M]``: how many candidates the voter likes strictly better; O(V M^2).

    >>> ranks_from(torch.tensor([[0.3, 0.9, 0.3]]))
    tensor([[1, 0, 1]])
    """
    return torch.stack([(utility > mine).sum(-1) for mine in utility.unsqueeze(-1).unbind(-2)], -1)


def _weights(ranks: Tensor, weight: Tensor | None) -> Tensor:
    """Weights ``[*, V]``: int64 ones by default, so that counts are exact."""
    if ranks.ndim < 2:
        raise ValueError(f"ranks: expected [*, V, M], got {tuple(ranks.shape)}")
    if weight is None:
        return torch.ones(ranks.shape[:-1], dtype=torch.int64, device=ranks.device)
    weight = torch.as_tensor(weight, device=ranks.device)
    if weight.ndim < 1 or weight.shape[-1] != ranks.shape[-2]:
        raise ValueError(f"weight: expected [*, V] with V = {ranks.shape[-2]}, got {tuple(weight.shape)}")
    return (weight.long() if weight.dtype == torch.bool else weight).expand(ranks.shape[:-1])


def pairwise(ranks: Tensor, weight: Tensor | None = None) -> Tensor:
    """``[*, M, M]`` total weight of the voters that rank candidate i before j; O(V M^2) time, O(V M) memory.

    Args:
        ranks: ``[*, V, M]``.
        weight: ``[*, V]``; ones if None. Whole numbers are counted exactly.

    >>> pairwise(torch.tensor([[0, 1, 2], [0, 2, 1]]))
    tensor([[0, 2, 2],
            [0, 0, 1],
            [0, 1, 0]])
    """
    each = _weights(ranks, weight).unsqueeze(-1)
    rows = [(each * (mine < ranks)).sum(-2) for mine in ranks.unsqueeze(-1).unbind(-2)]
    return torch.stack(rows, -2)


def plurality(ranks: Tensor, weight: Tensor | None = None) -> Tensor:
    """``[*, M]`` float64 weight of the voters whose first choice each candidate is; ties for first share it. O(V M).

    >>> plurality(torch.tensor([[0, 1, 2], [1, 0, 2], [0, 0, 1]]))
    tensor([1.5000, 1.5000, 0.0000], dtype=torch.float64)
    """
    first = (ranks == ranks.amin(-1, keepdim=True)).double()
    return (_weights(ranks, weight).unsqueeze(-1) * first / first.sum(-1, keepdim=True)).sum(-2)


def borda(ranks: Tensor, weight: Tensor | None = None) -> Tensor:
    """``[*, M]`` float64 Borda scores: per ballot one point for each candidate below, half a point for each tied.

    O(V M^2) (Borda 1781).

    >>> borda(torch.tensor([[0, 1, 2], [0, 2, 1]]))
    tensor([4., 1., 1.], dtype=torch.float64)
    """
    wins = pairwise(ranks, weight).double()
    total = _weights(ranks, weight).double().sum(-1)[..., None, None]
    ties = total - wins - wins.mT
    return (wins + ties / 2).sum(-1) - total.squeeze(-1) / 2  # without the tie with oneself


def copeland(ranks: Tensor, weight: Tensor | None = None) -> Tensor:
    """``[*, M]`` float64 majority contests won, drawn ones counting half; O(V M^2) (Copeland 1951).

    >>> copeland(torch.tensor([[0, 1, 2], [0, 2, 1]]))
    tensor([2.0000, 0.5000, 0.5000], dtype=torch.float64)
    """
    wins = pairwise(ranks, weight)
    return (wins > wins.mT).double().sum(-1) + ((wins == wins.mT).double().sum(-1) - 1) / 2


def condorcet(ranks: Tensor, weight: Tensor | None = None) -> Tensor:
    """``[*, M]`` bool: the candidate that beats every other by majority; all False if there is none. O(V M^2).

    >>> condorcet(torch.tensor([[0, 1, 2], [2, 0, 1], [1, 2, 0]]))
    tensor([False, False, False])
    """
    return copeland(ranks, weight) == ranks.shape[-1] - 1
