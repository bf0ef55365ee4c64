"""How to divide what everybody earns together: core, least core and nucleolus, by linear programming."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from coordination.arrays import Array, as_numpy
from coordination.coalition.optimal.bounds import incidence, supporting_prices
from coordination.games import Game, tabulate

LIMIT = 14  # agents: a linear program with 2^N rows
TOLERANCE = 1e-7  # relative to the largest worth; HiGHS keeps constraints to 1e-7


def core_excess(game: Game, payoff: Array) -> Tensor:
    """The largest complaint ``max over S of v(S) - x(S)``; ``x`` is in the core iff it is at most 0.

    The excess of Maschler, Peleg and Shapley (1979).

    Args:
        game: One game or a batch.
        payoff: ``[*, N]`` what each agent gets.

    Returns:
        ``[*]`` over all coalitions but the empty one and everybody. O(N 2^N).

    >>> from coordination.games import TabularGame
    >>> majority = TabularGame(torch.tensor([0.0, 0, 0, 1, 0, 1, 1, 1]))
    >>> core_excess(majority, torch.tensor([0.25, 0.25, 0.5])).item()
    0.5
    """
    table, payoff = tabulate(game), torch.as_tensor(payoff)
    n = game.num_agents
    masks = torch.from_numpy(incidence(np.arange(1 << n), n)).to(payoff)
    excess = table - payoff @ masks
    return excess[..., 1:-1].amax(-1) if n > 1 else excess.new_full(excess.shape[:-1], -torch.inf)


def core_is_empty(game: Game) -> bool:
    """Whether no division of v(N) satisfies every coalition.

    Iff ``min {x(N) : x(S) >= v(S) for all S} > v(N)`` (Bondareva 1963; Shapley 1967). Decided to 1e-7 of the largest
    worth; up to 26 agents. O(2^N) a round of :func:`supporting_prices`.

    >>> from coordination.games import TabularGame
    >>> core_is_empty(TabularGame(torch.tensor([0.0, 0, 0, 1, 0, 1, 1, 1])))
    True
    """
    table, _ = _table(game, 26)
    slack = float(supporting_prices(table).sum()) - table[-1]
    return bool(slack > 10 * TOLERANCE * float(np.abs(table).max()))


def least_core(game: Game) -> tuple[Tensor, float]:
    """A division of v(N) whose largest complaint is least.

    ``min eps`` with ``x(N) = v(N)`` and ``x(S) >= v(S) - eps`` for all other S (Maschler, Peleg and Shapley 1979).

    One linear program with O(2^N) rows.

    Args:
        game: One game of 2 to 14 agents.

    Returns:
        Payoffs ``[N]`` float64 and epsilon: above 0 iff the core is empty, below where it has room.

    >>> from coordination.games import TabularGame
    >>> round(least_core(TabularGame(torch.tensor([0.0, 0, 0, 1, 0, 1, 1, 1])))[1], 6)
    0.333333
    """
    table, n, device = _checked(game)
    scale = float(np.abs(table).max()) or 1.0
    coalitions = np.arange(1, len(table) - 1)
    x, epsilon, _ = _least(table / scale, coalitions, np.ones((1, n)), table[-1:] / scale, None)
    return torch.from_numpy(x * scale).to(device), epsilon * scale


def nucleolus(game: Game) -> Tensor:
    """The division of v(N) whose sorted complaints are lexicographically least (Schmeidler 1969).

    Over imputations (nobody gets less than alone). A sequence of at most N - 1 linear programs: minimise the largest
    complaint, fix the coalitions whose complaint is that in every solution (positive dual), drop those that the fixed
    ones determine, repeat (Maschler, Peleg and Shapley 1979; Fromen 1997). O(2^N) rows each. In the core where that is
    not empty.

    Args:
        game: One game of 1 to 14 agents.

    Returns:
        Payoffs ``[N]`` float64.

    Raises:
        ValueError: If the agents alone are worth more than v(N): there is no imputation.

    >>> from coordination.games import TabularGame
    >>> nucleolus(TabularGame(torch.tensor([0.0, 0, 0, 1, 0, 1, 0, 1]))).abs().round(decimals=6).tolist()
    [1.0, 0.0, 0.0]
    """
    table, n, device = _checked(game)
    if n == 1:
        return torch.from_numpy(table[1:].copy()).to(device)
    scale = float(np.abs(table).max()) or 1.0
    table = table / scale
    alone = table[1 << np.arange(n)]
    if alone.sum() > table[-1] + TOLERANCE:
        raise ValueError(f"nucleolus: agents alone are worth {alone.sum() * scale}, together {table[-1] * scale}")
    rows, worth = np.ones((1, n)), table[-1:]
    coalitions = np.arange(1, len(table) - 1)
    while np.linalg.matrix_rank(rows) < n:
        _, epsilon, dual = _least(table, coalitions, rows, worth, alone)
        for c in coalitions[np.argsort(-dual, kind="stable")][: (dual > TOLERANCE).sum()]:
            row = incidence(np.array([c]), n).T
            if np.linalg.matrix_rank(np.vstack([rows, row])) > len(rows):
                rows, worth = np.vstack([rows, row]), np.append(worth, table[c] - epsilon)
        coalitions = coalitions[~_determined(rows, coalitions, n)]
    return torch.from_numpy(np.linalg.solve(rows, worth) * scale).to(device)


def _least(
    table: np.ndarray, coalitions: np.ndarray, rows: np.ndarray, worth: np.ndarray, alone: np.ndarray | None
) -> tuple[np.ndarray, float, np.ndarray]:
    """``min eps``: ``x(S) + eps >= v(S)``, ``rows x = worth``, ``x >= alone``. Payoffs, eps, duals."""
    n = rows.shape[1]
    limits = np.hstack([-incidence(coalitions, n).T, -np.ones((len(coalitions), 1))])
    bounds = [(None, None)] * n if alone is None else [(low, None) for low in alone]
    result = linprog(
        np.r_[np.zeros(n), 1.0],
        limits,
        -table[coalitions],
        np.hstack([rows, np.zeros((len(rows), 1))]),
        worth,
        [*bounds, (None, None)],
    )
    if result.x is None:
        raise RuntimeError(f"linear program: {result.message}")
    return result.x[:n], float(result.x[n]), -result.ineqlin.marginals


def _determined(rows: np.ndarray, coalitions: np.ndarray, n: int) -> np.ndarray:
    """Which coalitions' payoffs follow from the rows: their indicator lies in the span."""
    basis = np.linalg.qr(rows.T)[0]
    masks = incidence(coalitions, n)
    return np.linalg.norm(masks - basis @ (basis.T @ masks), axis=0) < 1e-9


def _table(game: Game, limit: int) -> tuple[np.ndarray, torch.device]:
    """The worths of one game, and the device that they lie on."""
    worth = tabulate(game, limit)
    if worth.ndim != 1:
        raise ValueError(f"expected one game, got a batch {tuple(worth.shape[:-1])}")
    return as_numpy(worth), worth.device


def _checked(game: Game) -> tuple[np.ndarray, int, torch.device]:
    table, device = _table(game, LIMIT)
    if abs(table[0]) > 1e-6:
        raise ValueError(f"the empty coalition must be worth 0, got {table[0]}; subtract it from every worth")
    return table, game.num_agents, device
