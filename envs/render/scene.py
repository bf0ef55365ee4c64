"""Scene: where everything is in a batch of states, as a task tells it for pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Scene:
    """Places in the plane, x to the right and y up; NaN for what is not there.

    Attributes:
        places: ``[B, N, 2]`` of the agents, passive ones included.
        marks: ``[B, M, 2]`` of things that are no agents, by name, those underneath first. Names that have a look of
            their own: ``road``, ``landmark``, ``goal``, ``obstacle``, ``task``, ``food``, ``prey``.
        grid: Rows and columns where places are cells, made by :func:`cells`; None in the open plane.
    """

    places: Tensor
    marks: Mapping[str, Tensor] = field(default_factory=dict)
    grid: tuple[int, int] | None = None


def cells(row: Tensor, column: Tensor, rows: int, there: Tensor | None = None) -> Tensor:
    """Places of cells of a grid whose first row is at the top.

    Args:
        row, column: ``[*]`` counted from 0.
        rows: How many there are.
        there: ``[*]`` bool: False where nothing is.

    Returns:
        ``[*, 2]`` float32, NaN where nothing is.
    """
    places = torch.stack([column, rows - 1 - row], -1).float()
    return places if there is None else places.masked_fill(~there.unsqueeze(-1), torch.nan)
