"""Sum tree: draws in proportion to weights that change, many at a time, ``O(log n)`` for each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SumTree:
    """Weights of n places in a binary tree whose inner nodes hold the sums of their children.

    Node 1 is the root, the children of node k are 2 k and 2 k + 1, and the places are the leaves. Sums are in float64:
    they are built up from below at each update, so that nothing drifts.

    Args:
        size: Number of places n; their weights begin at zero.
        device: Where it lives.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        self.levels = max(1, (size - 1).bit_length())
        self.leaves = 1 << self.levels
        self._node = torch.zeros(2 * self.leaves, dtype=torch.float64, device=device)

    @property
    def total(self) -> Tensor:
        """Sum of all weights."""
        return self._node[1]

    def value(self, place: Tensor) -> Tensor:
        """Weights of places ``[M]``."""
        return self._node[place + self.leaves]

    def update(self, place: Tensor, weight: Tensor) -> None:
        """Set the weights of places ``[M]``; of a place named twice, one of its weights counts."""
        node = place + self.leaves
        self._node[node] = weight.to(self._node.dtype)
        for _ in range(self.levels):
            node = node // 2
            self._node[node] = self._node[2 * node] + self._node[2 * node + 1]

    def sample(self, size: int, generator: torch.Generator) -> Tensor:
        """Places ``[size]``, one from each of as many equal shares of the total."""
        device = self._node.device
        share = torch.rand(size, generator=generator, dtype=torch.float64, device=device)
        mass = (torch.arange(size, device=device) + share) / size * self.total
        node = torch.ones(size, dtype=torch.int64, device=device)
        for _ in range(self.levels):
            left = self._node[2 * node]
            right = (mass >= left) & (self._node[2 * node + 1] > 0)  # rounding must not lead to an empty half
            mass = torch.where(right, mass - left, mass)
            node = 2 * node + right
        return node - self.leaves

    def state_dict(self) -> dict[str, Any]:
        """All weights."""
        return {"leaves": self._node[self.leaves :]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`, sums included."""
        self._node[self.leaves :] = state["leaves"].to(self._node.device)
        for level in reversed(range(self.levels)):
            at = torch.arange(1 << level, 2 << level, device=self._node.device)
            self._node[at] = self._node[2 * at] + self._node[2 * at + 1]
