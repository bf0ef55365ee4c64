"""Coalitions over time: change only where it pays for the trouble, and not too soon again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from coordination import tree
from coordination.arrays import Array
from coordination.coalition.base import Coalitions, Former, canonical, structure_value
from coordination.games import Game
from coordination.topology import Topology

HUNGARIAN_LIMIT = 2_000  # coalitions that changed; above, labels are matched by largest overlap first


@tree.struct
class DynamicState:
    """Coalitions at one moment, and how long everybody has been in theirs.

    Attributes:
        coalitions: Labels ``[N]`` that keep their meaning over time, with worth and bound in the present game.
        dwell: ``[N]`` int64 steps since the agent last moved; agents that never moved count from the start.
        moved: ``[N]`` bool: who moved in the last step.
    """

    coalitions: Coalitions = tree.axes("")
    dwell: Tensor = tree.axes("N")
    moved: Tensor = tree.axes("N")


@dataclass(frozen=True)
class Dynamic:
    """Re-form coalitions step by step with a cost for moving and a least time to stay (hysteresis).

    Each step asks ``former`` for new coalitions, names them so that as few agents as possible change label, leaves
    those who moved less than ``min_dwell`` steps ago where they are, and changes if ``gain in worth > switching_cost *
    number of moves``. A game that does not change causes no moves once its former has nothing better; a change worth
    its cost is made at the first step, or as soon as its agents have dwelt long enough.

    Args:
        former: Makes the proposals, starting from the present coalitions where it can.
        switching_cost: Worth that one agent's move must gain; raising it lowers churn and delays changes.
        min_dwell: Steps an agent stays after a move.

    >>> from coordination.coalition import BestResponse
    >>> from coordination.games import PairwiseGame
    >>> dynamic = Dynamic(BestResponse(), switching_cost=1.0)
    >>> state = dynamic.init(PairwiseGame([0.0, 0.0], [[0], [1]], [3.0]))
    >>> worse = PairwiseGame([0.0, 0.0], [[0], [1]], [-0.5])  # parting would gain half, and costs one
    >>> dynamic.step(state, worse).coalitions.label.tolist()
    [0, 0]
    """

    former: Former
    switching_cost: float = 0.0
    min_dwell: int = 0

    def init(
        self, game: Game, topology: Topology | None = None, **form: Tensor | torch.Generator | None
    ) -> DynamicState:
        """First coalitions; everybody is free to move. ``form`` takes features and generator, see :class:`Former`."""
        if self.switching_cost < 0 or self.min_dwell < 0:
            raise ValueError(
                f"Dynamic: needs switching_cost >= 0 and min_dwell >= 0, got {self.switching_cost}, {self.min_dwell}"
            )
        first = self.former.form(game, topology, **form)  # type: ignore[arg-type]
        dwell = torch.full_like(first.label, self.min_dwell)
        return DynamicState(first, dwell, torch.zeros_like(first.label, dtype=torch.bool))

    def step(
        self, state: DynamicState, game: Game, topology: Topology | None = None, **form: Tensor | torch.Generator | None
    ) -> DynamicState:
        """The coalitions of the next step; ``value`` is their worth in the present game, before switching costs."""
        old = state.coalitions.label
        proposal = self.former.form(game, topology, previous=state.coalitions, **form)  # type: ignore[arg-type]
        label = align(proposal.label, old)
        label = torch.where(state.dwell >= self.min_dwell, label, old)
        moved = label != old
        before, after = structure_value(game, old), structure_value(game, label)
        if not after - before > self.switching_cost * int(moved.sum()) + 1e-9 * before.abs():
            label, after, moved = old, before, torch.zeros_like(moved)
        bound = proposal.upper_bound if proposal.upper_bound is not None else torch.full_like(after, torch.inf)
        dwell = torch.where(moved, 0, state.dwell + 1)
        return DynamicState(Coalitions(label, after, bound.maximum(after)), dwell, moved)


def align(label: Array, reference: Array) -> Tensor:
    """Rename coalitions after those of ``reference`` they share most agents with, so that fewest agents change label.

    Equal coalitions keep their name; the others are matched by the Hungarian method (largest overlap first where more
    than 2,000 changed). New coalitions get names that ``reference`` does not use, in 0..N-1.

    O(N log N), and O(C^3) for the C coalitions that changed (Kuhn 1955).

    Args:
        label, reference: ``[N]`` labels in -1..N-1.

    Returns:
        ``[N]`` labels that describe the same partition as ``label``.

    >>> align(torch.tensor([0, 0, 1, 1]), torch.tensor([3, 1, 1, 1])).tolist()
    [3, 3, 1, 1]
    """
    label, reference = torch.as_tensor(label), torch.as_tensor(reference)
    n = label.numel()
    new, old = canonical(label).cpu().numpy(), reference.cpu().numpy()
    both = (new >= 0) & (old >= 0)
    pair, overlap = np.unique(new[both] * n + old[both], return_counts=True)
    names, earlier = pair // n, pair % n
    taken = _match(names, earlier, overlap)
    result = np.full(int(new.max(initial=-1)) + 1, -1)
    result[names[taken]] = earlier[taken]
    free = np.setdiff1d(np.arange(n), old)
    fresh = np.concatenate([free, np.setdiff1d(np.unique(old[old >= 0]), result)])  # unused names first
    result[result < 0] = fresh[: (result < 0).sum()]
    return torch.from_numpy(np.where(new >= 0, result[new], -1)).to(label.device)


def _match(names: np.ndarray, earlier: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """Positions of the pairs (new name, earlier name) chosen: every name once, total overlap largest."""
    rows, row = np.unique(names, return_inverse=True)
    columns, column = np.unique(earlier, return_inverse=True)
    alone = (np.bincount(row)[row] == 1) & (np.bincount(column)[column] == 1)  # overlaps nothing else
    rest = np.flatnonzero(~alone)
    if len(np.unique(row[rest])) <= HUNGARIAN_LIMIT and len(np.unique(column[rest])) <= HUNGARIAN_LIMIT:
        rows, row = np.unique(names[rest], return_inverse=True)
        columns, column = np.unique(earlier[rest], return_inverse=True)
        shared = np.zeros((len(rows), len(columns)))
        shared[row, column] = overlap[rest]
        chosen = linear_sum_assignment(shared, maximize=True)
        picked = np.zeros_like(shared, dtype=bool)
        picked[chosen] = shared[chosen] > 0
        return np.concatenate([np.flatnonzero(alone), rest[picked[row, column]]])
    taken, used_row, used_column = [], set(), set()
    for p in np.argsort(-overlap, kind="stable").tolist():
        if row[p] not in used_row and column[p] not in used_column:
            taken.append(p)
            used_row.add(row[p])
            used_column.add(column[p])
    return np.array(taken, dtype=np.int64)
