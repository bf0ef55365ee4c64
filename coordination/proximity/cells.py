"""Neighbours within a radius by cells: agents sorted by place, and what is near found in a table.

Space is cut into cells as high as the radius and, along the first axis, a fraction as wide. A cell's number is
``x + X y + X Y z`` modulo the size of a table, which is linear in the number of agents. Cells far apart may share a
number; that costs time and changes no result, so however far agents are spread, no more memory is needed. In the order
of these numbers, all that can be near an agent stand in 3^(D-1) runs, one for each row of cells around it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from coordination.proximity.ranking import at_once, rank

FINE = 4  # cells to a radius along the first axis: more make runs shorter, and rows of the table longer
SPAN = 2 * FINE + 1  # cells of one row in which a neighbour can be
AXES = 3  # no more are cut; distances are taken along all
ROOM = 2  # numbers of cells for each agent, at least
MARGIN = 1e-3  # cells are larger than said by this part, so that rounding moves no neighbour out of the runs
FAR = 2.0**40  # so many radii from the origin the last cells begin
ROWS = 2**12  # agents looked up at once; on a CPU what belongs to them stays in its cache


class Cells:
    """Agents of some samples in the order of their cells' numbers.

    Args:
        points: ``[D, b, N]`` float64 with N above 32; who is not at a finite place is in nobody's reach.
        radius: Reach, finite.
    """

    def __init__(self, points: Tensor, radius: float) -> None:
        _, b, n = points.shape
        device, cut = points.device, min(len(points), AXES)
        self.limit = radius * radius
        size = 1 << (ROOM * n - 1).bit_length()
        high = (int((size / FINE) ** (1 / cut)) - 1) | 1  # odd, so that a column too takes all the numbers
        row = FINE * high | 1
        strides = [1, row, row * high][:cut]
        self.name, number = _sorted(_numbers(points, radius, strides) & (size - 1))
        counts = torch.zeros(b, size, dtype=torch.int64, device=device)
        self.counts = counts.scatter_add_(1, number, torch.ones_like(number))
        # Agents of a sample stand there twice in succession: a run goes on from the last number to the first.
        sample = torch.arange(b, device=device).unsqueeze(1)
        self.names, self.axes = _twice(self.name), [_twice(x.gather(1, self.name)) for x in points]
        self.own = (torch.arange(n, device=device) + 2 * n * sample).view(-1)
        self.receiver = (self.name + 2 * n * sample).view(-1)
        steps = torch.zeros(1, dtype=torch.int64, device=device)
        for stride in strides[1:]:
            steps = (steps.unsqueeze(1) + stride * torch.arange(3, device=device)).view(-1)
        before = FINE + sum(strides[1:])
        ends = self.counts.cumsum(1)
        starts = [torch.zeros_like(ends[:, :1]), ends, ends[:, : 2 * before + 1] + n]
        self.starts = torch.cat(starts, 1).add_(2 * n * sample)
        self.runs = ((number - before) & (size - 1)).add_(self.starts.shape[1] * sample).view(-1, 1) + steps

    def crowding(self) -> float:
        """How many agents there are in an agent's own cell on average, itself included."""
        return float(self.counts.square().sum()) / max(self.name.numel(), 1)

    def search(self, k: int, edges: Tensor) -> Tensor:
        """Write the senders within the radius to ``edges[:, 0]``, where ``edges`` is ``[b, 2, N, k]`` int64.

        Returns:
            ``[b, N]`` int64, how many are in reach of each agent, in the order of the cells.
        """
        slots, starts, found = edges.view(-1, k), self.starts.view(-1), torch.empty_like(self.receiver)
        rows = ROWS if edges.device.type == "cpu" else len(found)
        for i in range(0, len(found), rows):
            runs = self.runs[i : i + rows]
            first = starts.index_select(0, runs.flatten()).view_as(runs)
            length = starts.index_select(0, (runs + SPAN).flatten()).view_as(runs).sub_(first)
            width = max(int(length.max()), 1)  # the one number that is asked of a device
            part = max(at_once(edges.device) // (width * runs.shape[1]), 1)
            for j in range(0, len(runs), part):
                some = slice(i + j, i + min(j + part, rows))
                near = self._candidates(self.own[some], first[j : j + part], length[j : j + part], width)
                chosen, found[some] = rank(*near, k, self.limit, edges.shape[2])
                slots.index_copy_(0, self.receiver[some], chosen)
        return found.view_as(self.name)

    def _candidates(self, own: Tensor, first: Tensor, length: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Squared distances and names ``[r, C]`` of all that can be near; infinite past the end of a run."""
        end = torch.zeros(2 * width, dtype=torch.float64, device=own.device)
        end[width:] = torch.inf
        squared = _windows(end, width - length, width)
        for x in self.axes:
            squared += _windows(x, first, width).sub_(x.index_select(0, own).unsqueeze(1)).square_()
        middle = first.shape[1] // 2  # the run that oneself is in
        oneself = (own - first[:, middle]) % self.name.shape[1] + middle * width
        squared.scatter_(1, oneself.unsqueeze(1), torch.inf)
        return squared, _windows(self.names, first, width)


def _numbers(points: Tensor, radius: float, strides: list[int]) -> Tensor:
    """``[b, N]`` numbers of cells before the modulus; those of agents that are nowhere are spread, to make no crowd."""
    number = torch.zeros(points.shape[1:], dtype=torch.int64, device=points.device)
    for axis, stride in enumerate(strides):
        cell = points[axis] * ((1 if axis else FINE) / (radius * (1 + MARGIN)))
        number += cell.clamp_(-FAR, FAR).floor_().long() * stride
    nowhere = ~torch.isfinite(points).all(0)
    return torch.where(nowhere, torch.arange(points.shape[2], device=points.device) * ROOM, number)


def _sorted(number: Tensor) -> tuple[Tensor, Tensor]:
    """``[b, N]`` agents by number, then by name, and their numbers."""
    n = number.shape[1]
    bits = (n - 1).bit_length()
    both = (number << bits).bitwise_or_(torch.arange(n, device=number.device))
    if number.device.type == "cpu":
        both.numpy().sort(axis=-1)  # vectorised: ten times as fast as torch's
    else:
        both = both.sort(dim=-1).values
    return both & ((1 << bits) - 1), both >> bits


def _twice(x: Tensor) -> Tensor:
    """``[b, N]`` as ``[2bN + N]``, each row twice in succession, and N more."""
    return pad(x.unsqueeze(1).expand(-1, 2, -1).flatten(), (0, x.shape[1]))


def _windows(x: Tensor, first: Tensor, width: int) -> Tensor:
    """``[r, runs * width]``: entries of ``x`` from each of ``first [r, runs]`` on."""
    return x.unfold(0, width, 1).index_select(0, first.flatten()).view(len(first), -1)
