"""Optimal structures at any scale: coalitions are intervals of a line, or only their size counts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from coordination.arrays import as_numpy
from coordination.coalition.base import Coalitions


def interval_structure(value: Tensor | np.ndarray) -> Coalitions:
    """The best partition of a line of agents into intervals of at most K agents.

    ``f[j] = max over i <= K of f[j - i] + v(agents j-i .. j-1)`` (Rothkopf, Pekec and Harstad 1998, interval bids). O(N
    K) time and O(N) memory beyond the input, a row of N interval ends at a time; exact at 100,000 agents.

    Args:
        value: ``[*, N, K]``: ``value[j, i]`` is the worth of the i + 1 agents that end with agent j. Entries of
            intervals that would begin before agent 0 are not looked at; -inf forbids an interval.

    Returns:
        Coalitions with labels ``[*, N]``, ``upper_bound == value``.

    Raises:
        ValueError: If the shape is wrong, a worth is NaN or +inf, or no partition is allowed.

    >>> interval_structure(torch.tensor([[1.0, 0.0], [1.0, 5.0], [1.0, 6.0]])).label.tolist()
    [0, 1, 1]
    """
    worth = torch.as_tensor(value)
    if worth.ndim < 2 or 0 in worth.shape:
        raise ValueError(f"value: expected [*, N, K] with no empty axis, got {tuple(worth.shape)}")
    lead, (n, cap) = worth.shape[:-2], worth.shape[-2:]
    rows = as_numpy(worth).reshape(-1, n, cap)
    best = np.full((rows.shape[0], n + 1), -np.inf)  # best[:, j]: the first j agents
    best[:, 0] = 0.0
    length = np.empty((rows.shape[0], n), dtype=np.int64)
    every = np.arange(rows.shape[0])
    for j in range(n):
        reach = min(cap, j + 1)
        total = rows[:, j, :reach] + best[:, j + 1 - reach : j + 1][:, ::-1]
        length[:, j] = i = total.argmax(1)
        best[:, j + 1] = total[every, i]
    if not np.isfinite(best[:, -1]).all():
        raise ValueError("value: every partition holds an interval of worth -inf, or a worth is NaN or +inf")
    label = np.stack([_cut(row + 1) for row in length])
    total = torch.from_numpy(best[:, -1].copy()).to(worth.device).reshape(lead)
    return Coalitions(torch.from_numpy(label).to(worth.device).reshape(*lead, n), total, total)


def size_structure(value: Tensor | np.ndarray, num_agents: int) -> Coalitions:
    """The best partition where only sizes count: ``v(C) = value[|C| - 1]``, at most K agents a coalition.

    ``f[j] = max over i <= K of f[j - i] + v(i)``: an integer partition. O(N K); 100,000 agents with K = 10 take about a
    second.

    A special case of :func:`interval_structure`.

    Args:
        value: ``[*, K]`` worth of one coalition of 1, 2 .. K agents; -inf forbids a size.
        num_agents: Number of agents N.

    Returns:
        Coalitions of consecutive agents with labels ``[*, N]``, ``upper_bound == value``.

    Raises:
        ValueError: If the shape is wrong, or no combination of the allowed sizes makes N.

    >>> size_structure(torch.tensor([1.0, 3.0, 3.5]), 5).label.tolist()
    [0, 0, 1, 1, 2]
    """
    value = torch.as_tensor(value)
    if value.ndim < 1 or num_agents < 1:
        raise ValueError(f"size_structure: expected value [*, K] and a positive number of agents, got {num_agents}")
    return interval_structure(value.unsqueeze(-2).expand(*value.shape[:-1], num_agents, value.shape[-1]))


def _cut(length: np.ndarray) -> np.ndarray:
    """Labels from the length of the best interval that ends at each agent."""
    n = len(length)
    starts = np.zeros(n, dtype=np.int64)
    j = n
    while j > 0:
        j -= int(length[j - 1])
        starts[j] = 1
    return starts.cumsum() - 1
