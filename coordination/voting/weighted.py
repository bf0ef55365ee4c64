"""Weighted majority on a question of fact: the weights that are right most often, and how often that is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from coordination.arrays import Array, as_float, as_numpy

MAX_VOTERS = 20  # 2^V outcomes are enumerated


def log_odds(competence: Array) -> Tensor:
    """Optimal weights ``log(p / (1 - p))`` of independent voters that are right with probability p.

    The weighted majority with these weights is the most likely answer (Nitzan and Paroush 1982; Shapley and Grofman
    1984); a voter worse than a coin gets a negative weight.

    O(V).

    Args:
        competence: ``[*, V]`` in (0, 1).

    >>> log_odds(torch.tensor([0.5, 0.9]))
    tensor([0.0000, 2.1972])
    """
    competence = as_float(competence)
    if not bool(((competence > 0) & (competence < 1)).all()):
        raise ValueError("competence: must be in (0, 1), exclusive")
    return torch.logit(competence)


def tally(choice: Array, num_options: int, weight: Array | None = None) -> Tensor:
    """Weight behind each option: ``[*, M]``; O(V).

    ``t_m = sum over voters v of weight_v [choice_v = m]``.

    Args:
        choice: ``[*, V]`` int64 option 0..M-1 of each voter; -1 abstains (or is dead).
        num_options: M.
        weight: ``[*, V]``; ones if None, counted as int64.

    Raises:
        ValueError: If a choice is none of the options.

    >>> tally(torch.tensor([0, 2, 2, -1]), 3)
    tensor([1, 0, 2])
    """
    choice = torch.as_tensor(choice)
    if choice.numel() and (int(choice.min()) < -1 or int(choice.max()) >= num_options):
        low, high = int(choice.min()), int(choice.max())
        raise ValueError(f"choice: expected -1..{num_options - 1}, got {low}..{high}")
    each = (
        torch.ones_like(choice, dtype=torch.int64) if weight is None else torch.as_tensor(weight).expand(choice.shape)
    )
    total = each.new_zeros(*choice.shape[:-1], num_options + 1)
    return total.scatter_add(-1, torch.where(choice < 0, num_options, choice), each)[..., :num_options]


def weighted_majority(choice: Array, num_options: int, weight: Array | None = None) -> Tensor:
    """``[*, M]`` bool options with the most weight behind them, ties included; arguments as in :func:`tally`.

    The options that maximise :func:`tally` (Nitzan and Paroush 1982). O(V).

    >>> weighted_majority(torch.tensor([0, 1, 1]), 2, log_odds(torch.tensor([0.9, 0.6, 0.6])))
    tensor([ True, False])
    """
    total = tally(choice, num_options, weight)
    return total == total.amax(-1, keepdim=True)


def majority_accuracy(competence: Array, weight: Array | None = None) -> float:
    """Probability that the weighted majority of independent voters is right on a yes-or-no question.

    Exact, over all 2^V outcomes; a tie is right half of the time (Condorcet 1785 for equal weights).

    ``sum over outcomes x of prod_i P(x_i) ([margin > 0] + [margin = 0] / 2)``; O(V 2^V).

    Args:
        competence: ``[V]`` probability of each voter to be right; V at most 20.
        weight: ``[V]``; ones if None.

    >>> round(majority_accuracy(torch.tensor([0.6, 0.6, 0.6])), 6)
    0.648
    """
    p = as_numpy(competence)
    w = np.ones_like(p) if weight is None else as_numpy(weight)
    if p.ndim != 1 or p.shape != w.shape or p.size > MAX_VOTERS:
        raise ValueError(f"competence, weight: expected [V] with V <= {MAX_VOTERS}, got {p.shape} and {w.shape}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"competence: expected probabilities, got {p.min()}..{p.max()}")
    right = (np.arange(2**p.size)[:, None] >> np.arange(p.size) & 1).astype(bool)
    chance = np.where(right, p, 1 - p).prod(axis=1)
    margin = np.where(right, w, -w).sum(axis=1)
    tied = np.abs(margin) <= 1e-12 * np.abs(w).sum()
    return float(chance[(margin > 0) & ~tied].sum() + chance[tied].sum() / 2)
