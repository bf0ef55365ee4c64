"""What factored value functions can represent: best additive (VDN) and best monotone (QMIX) fits of a matrix game."""

from __future__ import annotations

from itertools import combinations_with_replacement, permutations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from coordination.arrays import Array, as_numpy

LARGEST = 4  # actions: (4!)^2 orders with 70 sets each


def additive_fit(payoff: Array) -> tuple[Tensor, float]:
    """Least-squares fit ``sum over agents of q_i(a_i)``: what VDN can represent.

    Sunehag et al. 2018, arXiv:1706.05296. The sum of each agent's mean payoff over the others' actions, less (n - 1)
    grand means. O(size).

    Args:
        payoff: ``[A_1, .., A_n]`` team payoff of each joint action.

    Returns:
        The fit, of the same shape, and its mean squared error.

    >>> additive_fit(torch.tensor([[0.0, 1.0], [1.0, 8.0]]))[0].tolist()
    [[-1.5, 2.5], [2.5, 6.5]]
    """
    payoff = torch.as_tensor(payoff).double()
    n = payoff.ndim
    fit = torch.full_like(payoff, float(-(n - 1) * payoff.mean()))
    for i in range(n):
        others = [d for d in range(n) if d != i]
        fit = fit + (payoff.mean(others, keepdim=True) if others else payoff)
    return fit, float((fit - payoff).square().mean())


def monotone_fit(payoff: Array) -> tuple[Tensor, float]:
    """Least-squares fit ``f(q_1(a), q_2(b))`` with f increasing in both: what QMIX can represent.

    Rashid et al. 2018, arXiv:1803.11485. For each order of the rows and the columns the best matrix that increases
    along both; the best of all orders. An increasing matrix is a constant plus a non-negative combination of
    indicators of upper sets, so each order is one non-negative least-squares problem. This is the global optimum;
    gradient descent may end in a worse one.

    O((A! B!) LP), LP one least-squares problem with C(A + B, A) columns.

    Args:
        payoff: ``[A, B]`` of two agents with at most 4 actions each.

    Returns:
        The fit ``[A, B]`` and its mean squared error.

    >>> round(monotone_fit(torch.tensor([[8.0, -12, -12], [-12, 0, 0], [-12, 0, 0]]))[1], 6)
    32.0
    """
    target = as_numpy(payoff)
    if target.ndim != 2 or max(target.shape) > LARGEST:
        raise ValueError(f"payoff: expected [A, B] of at most {LARGEST} actions each, got {target.shape}")
    rows, columns = target.shape
    sets = [
        (np.arange(columns) >= np.array(first)[:, None]).ravel()
        for first in combinations_with_replacement(range(columns, -1, -1), rows)  # falling from row to row
    ]
    basis = np.stack([*sets, -np.ones(rows * columns)], 1).astype(np.float64)
    best, loss = target, np.inf
    for row in permutations(range(rows)):
        for column in permutations(range(columns)):
            order = np.ix_(row, column)
            weight, residual = nnls(basis, target[order].ravel())
            if residual < loss:
                loss, best = residual, np.empty_like(target)
                best[order] = (basis @ weight).reshape(rows, columns)
    return torch.from_numpy(best).to(torch.as_tensor(payoff).device), float(loss**2 / target.size)
