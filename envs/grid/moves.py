"""Moves one after another on a grid, worked out for all movers at once."""

from __future__ import annotations

from math import ceil, log2

import torch
from torch import Tensor


def take_turns(cell: Tensor, target: Tensor, tries: Tensor, rank: Tensor | None = None) -> Tensor:
    """Who gets to move when each in turn moves into its target if nobody stands there at that moment.

    Whoever is first in turn after the present occupant of a cell gets it, if the occupant has left; nobody else does.
    So each mover waits for at most one other, of an earlier turn, and chains of waiting are followed by pointer
    doubling in log2(N) rounds.

    Args:
        cell: ``[B, N]`` where each stands; no two that are there stand in one cell.
        target: ``[B, N]`` where each wants to go. Whoever leaves the grid has a target of its own that is no cell.
        tries: ``[B, N]`` bool: who is there, wants to move, and has nothing but movers in its way.
        rank: ``[B, N]`` whose turn is earlier, all different; None for the order of the movers.

    Returns:
        ``[B, N]`` bool: who moves.
    """
    batch, n = cell.shape
    turns = torch.arange(n, device=cell.device).expand(batch, n) if rank is None else rank
    occupied = target.unsqueeze(2) == cell.unsqueeze(1)  # [B, i, k]: k stands where i wants to go
    found, occupant = occupied.max(2)
    occupant = torch.where(found, occupant, n)
    since = torch.where(found, turns.gather(1, occupant.clamp(max=n - 1)), -1)  # the turn in which it can leave
    rivals = (target.unsqueeze(2) == target.unsqueeze(1)) & tries.unsqueeze(1)
    between = (turns.unsqueeze(1) < turns.unsqueeze(2)) & (turns.unsqueeze(1) > since.unsqueeze(2))
    moves = tries & (since < turns) & ~(rivals & between).any(2)
    moves = torch.cat([moves, torch.ones_like(moves[:, :1])], 1)  # index N: nobody in the way
    waits_for = torch.cat([occupant, torch.full_like(occupant[:, :1], n)], 1)
    for _ in range(ceil(log2(n)) if n > 1 else 0):
        moves, waits_for = moves & moves.gather(1, waits_for), waits_for.gather(1, waits_for)
    return moves[:, :n]
