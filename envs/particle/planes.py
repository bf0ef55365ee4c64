"""Bodies of one kind, fast: x and y apart, and the longer of the axes of copies and bodies innermost in memory.

A place is usually a pair of numbers at the end of a tensor, and every operation then runs along an axis of two. Here x
and y are two planes: ``[2, n, B]`` where bodies are few, ``[2, B, n]`` where they are many. Pairs have one axis more,
``[2, n, M, B]`` or ``[2, B, n, M]``, right after that of the movers, so that one code serves both: ``axis``, 1 or 2,
says where bodies stand. Values do not depend on it, speed does (``benchmarks/simulate.py``).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from envs.particle.physics import overlap

FEW = 12  # bodies up to which copies are innermost
_TO_PLANES = {1: (2, 1, 0), 2: (2, 0, 1)}
_TO_PLACES = {1: (2, 1, 0), 2: (1, 2, 0)}


def body_axis(n: int) -> int:
    """Where the axis of ``n`` bodies stands in planes: 1 for few, 2 for many."""
    return 1 if n <= FEW else 2


def planes(places: Tensor) -> Tensor:
    """``places [B, n, 2]`` in two planes; nothing is copied if they lie like that already."""
    return places.permute(_TO_PLANES[body_axis(places.shape[1])]).contiguous()


def places(planes: Tensor, axis: int) -> Tensor:
    """Inverse of :func:`planes`; never copies."""
    return planes.permute(_TO_PLACES[axis])


def copies_first(values: Tensor, axis: int) -> Tensor:
    """``[B, n]`` of values of bodies that lie as one plane does."""
    return values.t() if axis == 1 else values


def apart(movers: Tensor, others: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Where others lie as seen by movers, in two planes of pairs, and the squares of the distances in one."""
    offset = others.unsqueeze(axis) - movers.unsqueeze(axis + 1)
    x, y = offset.unbind()
    return offset, torch.addcmul(x * x, y, y)


def pressure(offset: Tensor, distance: Tensor, gap: Tensor, axis: int) -> Tensor:
    """How deep each body presses into the others, in two planes: :func:`envs.particle.physics.contact`.

    Args:
        offset: From each body to those it can touch.
        distance: How far, never zero.
        gap: Reach less distance: the overlap where there is one.
        axis: Where bodies stand.
    """
    return (offset * overlap(gap).div_(distance)).sum(axis + 1)


def count_positive(values: Tensor, dim: int) -> Tensor:
    """Float: how many of ``values`` along ``dim`` are above zero, and no less than 1e-38; faster than comparing."""
    return (values * 1e38).clamp_(0, 1).sum(dim)


def seen_by_few(position: Tensor, velocity: Tensor, to_landmark: Tensor, to_body: Tensor) -> Tensor:
    """What every body sees: own velocity and position, offsets to landmarks and the others, zeros for the others.

    Rows of copies are put in order, then turned round.

    Args:
        position, velocity: ``[2, n, B]``.
        to_landmark, to_body: ``[2, n, n, B]`` offsets from each body to all landmarks and all bodies.

    Returns:
        ``[B, n, 6n]``.
    """
    n, copies = position.shape[1:]
    rows = torch.cat([x.view(-1, copies) for x in (velocity, position, to_landmark, to_body)])
    seen = rows.index_select(0, _rows_seen(n, rows.device))
    return seen.t().contiguous().view(copies, n, 6 * n)


def seen_by_many(position: Tensor, velocity: Tensor, landmark: Tensor) -> Tensor:
    """The same, ``[B, n, 6n]``, of three times ``[2, B, n]``.

    Each body's part is written where it belongs. A complex number stands for a place, so that a pair moves as one.
    """
    copies, n = position.shape[1:]
    here, going, goal = (torch.complex(*x) for x in (position, velocity, landmark))
    seen = torch.empty(copies, n, 3 * n, dtype=here.dtype, device=here.device)
    seen[..., 0], seen[..., 1], seen[..., 2 * n + 1 :] = going, here, 0
    torch.sub(goal.unsqueeze(1), here.unsqueeze(2), out=seen[..., 2 : n + 2])
    offset = here.unsqueeze(1) - here.unsqueeze(2)
    others = offset.flatten(1)[:, 1:].unflatten(1, (n - 1, n + 1))[:, :, :-1]  # all but the diagonal, in order
    seen[..., n + 2 : 2 * n + 1] = others.reshape(copies, n, n - 1)
    return torch.view_as_real(seen).flatten(2)


@lru_cache(maxsize=64)
def _rows_seen(n: int, device: torch.device) -> Tensor:
    """``[6n n]`` rows of :func:`seen_by_few` in the order in which bodies see them; one to itself is a zero."""
    own = torch.arange(2 * n).view(2, n).T.unsqueeze(1)  # [body, 1, axis] of the velocities; positions follow
    landmarks = 4 * n + torch.arange(2 * n * n).view(2, n, n).permute(1, 2, 0)  # [body, landmark, axis]
    bodies, oneself = landmarks + 2 * n * n, torch.eye(n, dtype=torch.bool)
    others = bodies[~oneself].view(n, n - 1, 2)
    zeros = bodies[oneself].view(n, 1, 2).expand(n, n - 1, 2)
    return torch.cat([own, own + 2 * n, landmarks, others, zeros], 1).flatten().to(device)
