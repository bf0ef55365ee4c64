"""Cooperative games: what a coalition of agents is worth. All that coalition formation and credit need to know.

A game has ``num_agents`` and ``value(mask)``: M coalitions as rows of a bool mask ``[M, N]`` go in, their worth ``[M]``
comes out. A game may hold a batch of worths (one per environment copy, say); then ``value`` returns ``[*, M]`` with the
leading axes of the batch. Tables of 2^N worths are indexed by bits: agent i takes part in entry s iff ``s >> i & 1``.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

CHUNK_CELLS = 1 << 24  # mask cells evaluated at once


@runtime_checkable
class Game(Protocol):
    """A cooperative game with transferable utility (von Neumann and Morgenstern 1944)."""

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        ...

    def value(self, mask: Tensor) -> Tensor:
        """Worth of M coalitions: ``mask [M, N]`` bool -> ``[M]`` (``[*, M]`` for a batch of games)."""
        ...


def as_mask(mask: Tensor | np.ndarray, num_agents: int) -> Tensor:
    """``mask`` as a bool tensor, checked to be ``[M, N]``.

    O(1): nothing is copied.

    Raises:
        ValueError: If it has another shape.
        TypeError: If it is not boolean.

    >>> as_mask(np.array([[True, False]]), 2)
    tensor([[ True, False]])
    """
    mask = torch.as_tensor(mask)
    if mask.ndim != 2 or mask.shape[1] != num_agents:
        raise ValueError(f"mask: expected [M, N] with N = {num_agents}, got {tuple(mask.shape)}")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected bool, got {mask.dtype}; True marks the members of a coalition")
    return mask


def coalition_masks(num_agents: int) -> Tensor:
    """All coalitions as rows ``[2^N, N]`` bool, row s holding the bits of s. O(N 2^N).

    >>> coalition_masks(2).tolist()
    [[False, False], [True, False], [False, True], [True, True]]
    """
    return unpack_bits(torch.arange(1 << num_agents), num_agents)


def unpack_bits(index: Tensor, num_agents: int) -> Tensor:
    """Coalition numbers ``[M]`` as masks ``[M, N]`` bool.

    Agent i takes part in coalition s iff ``s >> i & 1``. O(M N).

    >>> unpack_bits(torch.tensor([2]), 3).tolist()
    [[False, True, False]]
    """
    return (index.unsqueeze(-1) >> torch.arange(num_agents, device=index.device) & 1).bool()


def pack_bits(mask: Tensor) -> Tensor:
    """Masks ``[*, N]`` bool as coalition numbers ``[*]`` int64, the inverse of :func:`unpack_bits`; N at most 62.

    ``s = sum of 2^i over members i``. O(N) each.

    >>> pack_bits(torch.tensor([False, True, False])).item()
    2
    """
    return (mask.long() << torch.arange(mask.shape[-1], device=mask.device)).sum(-1)


def evaluate(game: Game, mask: Tensor) -> Tensor:
    """``game.value(mask)`` in chunks of bounded memory, its shape checked: ``[M, N] -> [*, M]``.

    O(M N) and the cost of M worths.

    Raises:
        ValueError: If the game returns another number of worths, or one that is not finite.

    >>> from coordination.games import TabularGame
    >>> evaluate(TabularGame([0.0, 1.0, 2.0, 4.0]), coalition_masks(2)).tolist()
    [0.0, 1.0, 2.0, 4.0]
    """
    size = max(CHUNK_CELLS // max(mask.shape[1], 1), 1)
    parts = [torch.as_tensor(game.value(part)) for part in mask.split(size)] or [torch.zeros(0)]
    worth = torch.cat(parts, -1)
    if worth.ndim == 0 or worth.shape[-1] != mask.shape[0]:
        raise ValueError(f"game: expected {mask.shape[0]} worths on the last axis, got {tuple(worth.shape)}")
    if not torch.isfinite(worth).all():
        raise ValueError("game: every worth must be finite, got NaN or infinity; refuse coalitions by a low worth")
    return worth
