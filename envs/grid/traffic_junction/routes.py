"""Roads and routes of the three traffic junctions, as lookup tables over the cells of a square grid.

Cars keep to the right on roads of two lanes: of a road on columns (a, a + 1) the first leads down and the second up, of
one on rows (a, a + 1) the first leads left and the second right. Where two roads cross, a car turns right on its first
cell of the crossing, and left on its second one. The easy junction has two one-way roads and no turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

import numpy as np

Difficulty = Literal["easy", "medium", "hard"]
Cell = tuple[int, int]  # row, column

DOWN, UP, RIGHT, LEFT = (1, 0), (-1, 0), (0, 1), (0, -1)
AHEAD, TURN_RIGHT, TURN_LEFT = range(3)  # the order in which the source lists routes


@dataclass(frozen=True)
class Junction:
    """A network of roads.

    Attributes:
        size: Rows and columns of the grid.
        entries: Number of places where cars arrive.
        options: Routes from each entry; route ``entry * options + option``.
        cells: ``[routes, longest + 1]`` int64 cells ``row * size + column`` along each route; ``size ** 2``, which is
            no cell, after its end.
        length: ``[routes]`` int64 cells of each route.
        classes: ``[size, size]`` int64 number of each road cell; ``outside`` elsewhere.
        outside: Class of the cells that are no road.
    """

    size: int
    entries: int
    options: int
    cells: np.ndarray
    length: np.ndarray
    classes: np.ndarray
    outside: int


@cache
def junction(difficulty: Difficulty) -> Junction:
    """The roads of one difficulty, with cells and routes numbered as in the source.

    Cells are numbered road by road, rows first, each one row by row; a crossing keeps its last number.
    Easy: 7 x 7, 2 entries with 1 route. Medium: 14 x 14, 4 entries with 3 routes. Hard: 18 x 18, 8 entries with 7
    routes, which may turn at the first two crossings and go straight on after them.
    """
    if difficulty == "easy":
        size, lanes, roads, outside = 7, 1, [3], 12
        starts = [((0, 3), DOWN), ((3, 0), RIGHT)]
    elif difficulty == "medium":
        size, lanes, roads, outside = 14, 2, [6], 56
        starts = [((0, 6), DOWN), ((13, 7), UP), ((7, 0), RIGHT), ((6, 13), LEFT)]
    else:
        size, lanes, roads, outside = 18, 2, [4, 12], 144
        starts = [((0, 4), DOWN), ((0, 12), DOWN), ((5, 0), RIGHT), ((13, 0), RIGHT)]
        starts += [((17, 5), UP), ((17, 13), UP), ((4, 17), LEFT), ((12, 17), LEFT)]
    on_road = {line for road in roads for line in range(road, road + lanes)}
    crossings = set(product(on_road, on_road)) if lanes > 1 else set()
    found = [_routes(start, heading, size, crossings) for start, heading in starts]
    routes = [route for of_entry in found for route in of_entry]
    length = np.array([len(route) for route in routes])
    cells = np.full((len(routes), length.max() + 1), size**2)
    for row, route in zip(cells, routes, strict=True):
        row[: len(route)] = [y * size + x for y, x in route]
    return Junction(size, len(starts), len(found[0]), cells, length, _classes(size, lanes, roads, outside), outside)


def _routes(start: Cell, heading: Cell, size: int, crossings: set[Cell]) -> list[tuple[Cell, ...]]:
    """All routes from an entry, by the turns taken at the first and at the second crossing; each once."""
    turns = product((AHEAD, TURN_RIGHT, TURN_LEFT), repeat=2)
    return list(dict.fromkeys(tuple(_walk(start, heading, size, crossings, list(both))) for both in turns))


def _walk(cell: Cell, heading: Cell, size: int, crossings: set[Cell], turns: list[int]) -> Iterator[Cell]:
    """The cells from an entry to the border of the grid."""
    before = cell
    while all(0 <= x < size for x in cell):
        yield cell
        if cell in crossings and before not in crossings:
            turn = turns.pop(0) if turns else AHEAD
            if turn != TURN_RIGHT:
                cell = _next(cell, heading)
                yield cell
            y, x = heading
            heading = {AHEAD: (y, x), TURN_RIGHT: (x, -y), TURN_LEFT: (-x, y)}[turn]
        before, cell = cell, _next(cell, heading)


def _next(cell: Cell, heading: Cell) -> Cell:
    return cell[0] + heading[0], cell[1] + heading[1]


def _classes(size: int, lanes: int, roads: list[int], outside: int) -> np.ndarray:
    classes = np.full((size, size), outside)
    blocks = [np.s_[road : road + lanes, :] for road in roads] + [np.s_[:, road : road + lanes] for road in roads]
    numbered = 0
    for block in blocks:
        shape = classes[block].shape
        classes[block] = np.arange(numbered, numbered + lanes * size).reshape(shape)
        numbered += lanes * size
    return classes
