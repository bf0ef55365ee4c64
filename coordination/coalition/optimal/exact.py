"""Optimal coalition structures by dynamic programming over all subsets.

``f(S) = max over C with max(S) in C, C subset of S, of v(C) + f(S minus C)`` (Yeh 1986; Rothkopf, Pekec and Harstad
1998). Two economies over the textbook form: the coalition split off always holds the highest agent left, so no
partition is seen twice; and ``f`` of the sets with agent N-1 is needed for the full set only. Together (3^(N-1) + 2^N)
/ 2 splits instead of 3^N.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from coordination.arrays import as_numpy
from coordination.coalition.base import Coalitions, finish, single
from coordination.coalition.compiled import compiled
from coordination.coalition.optimal.pruned import pruned_structure
from coordination.games import Game, tabulate
from coordination.topology import Topology

SMALL = 12  # agents: up to here dynamic programming takes milliseconds
PLAIN_LIMIT, COMPILED_LIMIT = 18, 24  # agents, without and with numba


@dataclass(frozen=True)
class Exact:
    """The coalition structure of highest worth, for general games.

    Args:
        method: ``dp`` dynamic programming, O(3^N / 6) time and O(2^N) memory whatever the worths: up to 18 agents with
            numpy, 24 with numba (extra ``fast``) · ``bound`` prices and search among what they leave
            (:func:`pruned_structure`), up to 26 agents: fast where few coalitions compete; where it gives up, its gap
            stays positive · ``auto`` dp up to 12 agents, above that bound, and dp if that left a gap and dp can.
        time_limit: Seconds after which ``bound`` widens its search no more.

    >>> from coordination.games import TabularGame
    >>> Exact().form(TabularGame(torch.tensor([0.0, 3, 2, 4]))).label.tolist()
    [0, 1]
    """

    method: Literal["auto", "dp", "bound"] = "auto"
    time_limit: float | None = None

    def form(
        self,
        game: Game | None,
        topology: Topology | None = None,
        *,
        features: Tensor | None = None,
        previous: Coalitions | None = None,
        generator: torch.Generator | None = None,
    ) -> Coalitions:
        """The optimal structure; only ``game`` is looked at. See :class:`Former`.

        Raises:
            ValueError: If the game has too many agents for the method.
        """
        game = single(game, "Exact")
        if self.method not in ("auto", "dp", "bound"):
            raise ValueError(f"method: one of auto, dp, bound; got {self.method!r}")
        if self.method == "dp" or (self.method == "auto" and game.num_agents <= SMALL):
            return optimal_structure(game)
        found = pruned_structure(game, time_limit=self.time_limit)
        if self.method == "auto" and found.upper_bound != found.value and game.num_agents <= _dp_limit():
            return optimal_structure(game)
        return found


def optimal_structure(game: Game) -> Coalitions:
    """The coalition structure of highest worth by dynamic programming: ``upper_bound == value``.

    O(3^N): (3^(N-1) + 2^N) / 2 splits, memory 2^N doubles. 20 agents take about two seconds with numba,
    compilation included; 16 take .2 s without.

    ``f(C) = max(v(C), max over splits C = A + B of f(A) + f(B))`` (Yeh 1986; Rothkopf, Pekec and Harstad 1998).

    Args:
        game: One game with an empty coalition worth 0.

    Raises:
        ValueError: For more than 18 agents without numba, 24 with it.

    >>> from coordination.games import PairwiseGame
    >>> optimal_structure(PairwiseGame(torch.zeros(3), [[0, 1], [1, 2]], torch.tensor([2.0, -1.0]))).label.tolist()
    [0, 0, 1]
    """
    game = single(game, "optimal_structure")
    if game.num_agents > _dp_limit():
        raise ValueError(
            f"optimal_structure: at most {PLAIN_LIMIT} agents ({COMPILED_LIMIT} with numba, the extra 'fast'), got "
            f"{game.num_agents}; use Exact(method='bound')"
        )
    table = as_numpy(tabulate(game))
    best = np.zeros(max(len(table) >> 1, 1))
    fill = compiled(_fill) if game.num_agents > SMALL else None
    (fill or _fill_vectorised)(table, best)
    return finish(game, _backtrack(table, best))


def _dp_limit() -> int:
    return PLAIN_LIMIT if compiled(_fill) is None else COMPILED_LIMIT


def _fill(table: np.ndarray, best: np.ndarray) -> None:
    """``best[S]`` for every S without agent N-1; a plain loop for numba."""
    high = 1
    for s in range(1, best.size):
        if s == high << 1:
            high = s
        rest = s ^ high
        part = rest
        top = table[s]
        while part > 0:
            part = (part - 1) & rest
            value = table[high | part] + best[rest ^ part]
            top = max(value, top)
        best[s] = top


def _fill_vectorised(table: np.ndarray, best: np.ndarray) -> None:
    """The same in numpy: for every coalition, all remainders at once."""
    subsets = [np.array([q for q in range(256) if not q & ~m]) for m in range(256)]
    high = 1
    while high < best.size:
        top = best[high : 2 * high]  # indexed by the rest R of the set, without its highest agent
        top[:] = -np.inf
        for part in range(high):
            free = (high - 1) ^ part
            rest = (
                subsets[free & 255]
                if high <= 256
                else np.add.outer(subsets[free >> 8] << 8, subsets[free & 255]).ravel()
            )
            with_part = rest | part
            top[with_part] = np.maximum(top[with_part], table[high | part] + best[rest])
        high <<= 1


def _backtrack(table: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Labels of an optimal partition: split off the coalition of the highest agent left, again and again."""
    n = len(table).bit_length() - 1
    label = np.full(n, -1)
    left = len(table) - 1
    while left:
        high = 1 << (left.bit_length() - 1)
        rest = left ^ high
        parts = np.arange(high)
        parts = parts[(parts & ~rest) == 0]
        coalition = high | int(parts[np.argmax(table[high | parts] + best[rest ^ parts])])
        label[[i for i in range(n) if coalition >> i & 1]] = coalition.bit_length() - 1
        left ^= coalition
    return label
