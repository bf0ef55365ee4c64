"""What selfishness costs: pure equilibria of small games, price of anarchy and of stability, and deviations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coordination.arrays import Array

TOLERANCE = 1e-9  # gains from deviating up to here are rounding


def nash_equilibria(payoff: Array) -> Tensor:
    """Pure Nash equilibria of a game in normal form: joint actions that nobody gains from leaving alone (Nash 1950).

    ``u_i(a) >= u_i(b_i, a_-i)`` for every agent i and action ``b_i``.

    Args:
        payoff: ``[N, A_1, ..., A_N]`` what each agent gets for every joint action; higher is better.

    Returns:
        ``[A_1, ..., A_N]`` bool; all False where only mixed equilibria exist. O(N A_1 ... A_N).

    Raises:
        ValueError: If there is not one axis of actions per agent.

    >>> nash_equilibria(torch.tensor([[[3.0, 0.0], [5.0, 1.0]], [[3.0, 5.0], [0.0, 1.0]]])).tolist()
    [[False, False], [False, True]]
    """
    payoff = _game(payoff)
    stable = torch.ones(payoff.shape[1:], dtype=torch.bool, device=payoff.device)
    for i, own in enumerate(payoff):
        stable &= own >= own.amax(i, keepdim=True) - TOLERANCE
    return stable


def price_of_anarchy(payoff: Array, cost: bool = False) -> tuple[float, float]:
    """Price of anarchy and price of stability: what the worst and the best pure equilibrium lose.

    Optimum over worst (best) equilibrium, of the sum of payoffs; for costs equilibrium over optimum (Koutsoupias and
    Papadimitriou 1999; Anshelevich et al. 2004).

    Args:
        payoff: ``[N, A_1, ..., A_N]``; payoffs, or costs to be paid.
        cost: Whether lower is better.

    Returns:
        Two numbers, at least 1; 1 means that nothing is lost. O(N A_1 ... A_N).

    Raises:
        ValueError: If the game has no pure equilibrium, or sums are not positive, so that no ratio makes sense.

    >>> price_of_anarchy(torch.tensor([[[1.0, 0.0], [3.0, 2.0]], [[1.0, 3.0], [0.0, 2.0]]]), cost=True)
    (1.0, 1.0)
    """
    payoff = _game(payoff)
    stable = nash_equilibria(-payoff if cost else payoff)
    if not bool(stable.any()):
        raise ValueError(
            "price_of_anarchy: the game has no pure equilibrium; the ratio is defined over mixed ones only"
        )
    total = payoff.double().sum(0)
    best = total.min() if cost else total.max()
    at = total[stable]
    if not bool((at > 0).all()) or not bool(best > 0):
        raise ValueError(f"price_of_anarchy: sums must be positive, got an optimum of {best.item()} and {at.tolist()}")
    ratio = at / best if cost else best / at
    return float(ratio.max()), float(ratio.min())


def cooperation_ratio(team_return: Array, optimum: Array) -> Tensor:
    """``J / J_opt``: the part of the best possible team return that is reached.

    O(1) for each number.

    Args:
        team_return: ``[*]``.
        optimum: ``[*]`` or scalar, positive; an upper bound makes the ratio a lower bound.

    Returns:
        ``[*]``, at most 1 if the optimum is one.

    Raises:
        ValueError: If an optimum is not positive.

    >>> cooperation_ratio(7.0, 8.0).item()
    0.875
    """
    best = torch.as_tensor(optimum)
    if not bool((best > 0).all()):
        raise ValueError(f"optimum: must be positive, got {best.min().item()}; shift returns by their worst case first")
    return torch.as_tensor(team_return) / best


def deviation_stability(gain: Array, alive: Array | None = None, tolerance: float = TOLERANCE) -> Tensor:
    """Share of agents that gain nothing by leaving where they are: their coalition, role or action.

    ``share of living i with gain_i <= tolerance``: 1 iff Nash (1950) stable. O(N).

    Args:
        gain: ``[*, N]`` what each agent would gain by its best deviation; ``-inf`` where it has none.
        alive: ``[*, N]`` bool: whom to count; None for all.
        tolerance: Gains up to here count as none.

    Returns:
        ``[*]`` in [0, 1]: 1 in an equilibrium; NaN where nobody counts.

    >>> deviation_stability(torch.tensor([0.0, -1.0, 0.5, -math.inf])).item()
    0.75
    """
    gain = torch.as_tensor(gain)
    counts = torch.ones_like(gain, dtype=torch.bool) if alive is None else torch.as_tensor(alive)
    return ((gain <= tolerance) & counts).sum(-1) / counts.sum(-1)


def _game(payoff: Array) -> Tensor:
    payoff = torch.as_tensor(payoff)
    if payoff.ndim < 2 or payoff.ndim != payoff.shape[0] + 1 or math.prod(payoff.shape) == 0:
        raise ValueError(
            f"payoff: expected [N, A_1, ..., A_N], one axis of actions per agent; got {tuple(payoff.shape)}"
        )
    return payoff
