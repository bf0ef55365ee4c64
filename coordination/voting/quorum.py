"""Quorums: how many votes make a decision safe when some voters crash or lie."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from coordination.arrays import Array
from coordination.voting.weighted import tally


def quorum_size(num_voters: int, f: int, byzantine: bool = False) -> int:
    """Votes that make a decision: any two quorums share an honest voter, and the honest can form one.

    Two quorums of q share at least ``2 q - n``. Crashes: ``q = floor(n/2) + 1``, for n >= 2 f + 1. Liars: ``q = ceil((n
    + f + 1) / 2)``, so that f + 1 are shared, for n >= 3 f + 1 (Malkhi and Reiter 1998).

    O(1).

    Args:
        num_voters: n.
        f: How many may fail.
        byzantine: Whether they may lie, or only stop.

    Raises:
        ValueError: If f is too large for n.

    >>> quorum_size(7, 3), quorum_size(7, 2, byzantine=True)
    (4, 5)
    """
    least = (3 if byzantine else 2) * f + 1
    if f < 0 or num_voters < least:
        kind = "liars" if byzantine else "crashes"
        raise ValueError(f"quorum_size: {f} {kind} need at least {least} voters and f >= 0, got {num_voters}")
    return (num_voters + f + 2) // 2 if byzantine else num_voters // 2 + 1


def quorum_overlap(num_voters: int, size: int) -> int:
    """Fewest voters that two quorums of ``size`` share: ``max(2 size - n, 0)``.

    By counting (Malkhi and Reiter 1998). O(1).

    >>> quorum_overlap(7, 5)
    3
    """
    return max(2 * size - num_voters, 0)


def decide(choice: Array, num_options: int, f: int, byzantine: bool = False) -> Tensor:
    """The option with a quorum behind it; O(V).

    Every honest count of the same votes decides the same, and never two options, with up to f failures among the V
    voters.

    Quorums as in :func:`quorum_size` (Malkhi and Reiter 1998).

    Args:
        choice: ``[*, V]`` int64 option of each voter; -1 where no vote arrived.
        num_options: M.
        f: How many voters may fail.
        byzantine: Whether they may lie, or only stop.

    Returns:
        ``[*]`` int64 option, -1 where none has a quorum.

    >>> decide(torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]), 2, f=1, byzantine=True)
    tensor([ 1, -1])
    """
    counts = tally(choice, num_options)
    most, option = counts.max(-1)
    return torch.where(most >= quorum_size(np.shape(choice)[-1], f, byzantine), option, -1)
