"""The mechanics of MPE worlds: round bodies pushed by their choices and by contact, and where they see each other.

The order of a step is that of mpe2 1.1 (Lowe et al. 2017, arXiv:1706.02275; integration order of PettingZoo 1.23):
forces are felt at the old positions; then bodies move by their old velocities; then velocities change by damping and
forces and are cut at the top speed. mpe2 adds noise to pushes and words only where ``u_noise`` or ``c_noise`` are set,
which no task does.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

TIME_STEP = 0.1
KEPT_VELOCITY = 0.75  # one minus the damping of a step
THRUST = 5.0  # force of a full push, on a mass of one, where a task says no other
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
VANISHES = 40 * CONTACT_MARGIN  # distance off contact at which the softness is down to exp(-40): nothing to a float32


def push(action: Tensor, thrust: float = THRUST) -> Tensor:
    """Change of velocity of bodies of mass one by their own doing, in one step.

    Args:
        action: ``[B, n, 1]`` int64 choices among none, left, right, down, up, or ``[B, n, 5]`` float pushes in these
            directions, cut to [0, 1].
        thrust: Force of a full push.

    Returns:
        ``[B, n, 2]``, the caller's own.
    """
    if not action.is_floating_point():
        return _moves(thrust, action.device).index_select(0, action.reshape(-1)).view(*action.shape[:2], 2)
    pushes = action.clamp(0, 1)
    return (pushes[..., 2::2] - pushes[..., 1::2]).mul_(thrust * TIME_STEP)


@lru_cache(maxsize=64)
def pairs(n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What each of N movers sees among M landmarks and the movers, in the order of :func:`offsets`.

    Args:
        n: How many bodies move.
        m: How many do not; 0 for the other movers alone.
        device: Where the indices are needed.

    Returns:
        Rows of [landmarks, movers] seen by each mover, ``[N (M + N - 1)]`` int64, and the row of that mover, as often.
    """
    rows, movers = torch.arange(m + n).expand(n, -1), torch.arange(m, m + n)
    seen = rows[rows != movers.unsqueeze(1)]
    return seen.to(device), movers.repeat_interleave(m + n - 1).to(device)


def offsets(position: Tensor, landmark: Tensor) -> Tensor:
    """Where everything lies as seen by each mover, which does not see itself.

    Args:
        position: ``[B, N, 2]`` of the bodies that move.
        landmark: ``[B, M, 2]`` of those that do not.

    Returns:
        ``[B, N, M + N - 1, 2]`` from each mover to every landmark, then to every other mover, in order.
    """
    b, n, m = *position.shape[:2], landmark.shape[1]
    seen, own = pairs(n, m, position.device)
    points = torch.cat([landmark, position], 1)
    return (points.index_select(1, seen) - points.index_select(1, own)).view(b, n, m + n - 1, 2)


def lengths(offset: Tensor) -> Tensor:
    """``[...]`` Euclidean lengths of ``offset [..., 2]``."""
    square = offset * offset
    return (square[..., 0] + square[..., 1]).sqrt_()


def closest(values: Tensor, distance: Tensor, count: int | None) -> Tensor:
    """What each mover sees of the nearest others alone, nearest first, padded with zeros.

    Args:
        values: ``[B, N, M, 2]`` of the others, as each mover sees them.
        distance: ``[B, N, M]`` to them.
        count: How many are seen; None for all, in order.

    Returns:
        ``[B, N, 2 count]``, or ``[B, N, 2 M]``.
    """
    if count is None:
        return values.flatten(2)
    found = min(count, distance.shape[-1])
    order = distance.topk(found, largest=False).indices
    picked = values.gather(2, order.unsqueeze(-1).expand(-1, -1, -1, 2)).flatten(2)
    return F.pad(picked, (0, 2 * (count - found)))


def overlap(gap: Tensor) -> Tensor:
    """How deep bodies are in each other, softly: ``k log(1 + exp(gap / k))`` with margin k.

    Args:
        gap: Sum of the radii less the distance, of any shape.
    """
    # max(x, 0) + log(1 + exp(-|x|)), with |x| cut, took half the time of softplus: exp is slow where nothing is left
    soft = gap.abs().clamp_(max=VANISHES).mul_(-1 / CONTACT_MARGIN).exp_().log1p_()
    return gap.clamp(min=0).add_(soft, alpha=CONTACT_MARGIN)


def contact(offset: Tensor, distance: Tensor, reach: float | Tensor) -> Tensor:
    """How deep each body presses into the others: the sum of unit vectors to them, each times its depth.

    The depth is the :func:`overlap`, almost zero where there is none. The force on the body is ``-CONTACT_FORCE`` times
    the result; divide it by the mass where that is not one.

    Deviation from mpe2: bodies at exactly one point do not push each other (mpe2 divides by zero).

    Args:
        offset: ``[B, N, M, 2]`` from each body to those it can touch.
        distance: ``[B, N, M]`` their lengths.
        reach: Sum of both radii, a number or ``[N, M]``; minus infinity where two bodies pass through each other.

    Returns:
        ``[B, N, 2]``.
    """
    apart = distance.clamp(min=1e-12)
    depth = overlap(reach - apart).div_(apart)
    x, y = offset.unbind(-1)
    return torch.stack([(x * depth).sum(-1), (y * depth).sum(-1)], -1)


@lru_cache(maxsize=64)
def reaches(radius: tuple[float, ...], landmark_radius: tuple[float, ...], device: torch.device) -> Tensor:
    """``[N, M + N - 1]`` sums of two radii for every pair in :func:`offsets`."""
    n, m = len(radius), len(landmark_radius)
    seen, own = pairs(n, m, torch.device("cpu"))
    radii = torch.tensor([*landmark_radius, *radius])
    return (radii[seen] + radii[own]).view(n, m + n - 1).to(device)


def integrate(
    position: Tensor, velocity: Tensor, kick: Tensor, top_speed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Move by the old velocity, then change the velocity.

    Args:
        position: ``[B, N, 2]``.
        velocity: ``[B, N, 2]``, per unit of time.
        kick: ``[B, N, 2]`` change of velocity by all forces in this step, force times ``TIME_STEP`` over mass; it is
            used up.
        top_speed: ``[N, 1]`` speeds that nobody exceeds, infinite where there is no limit; None where nobody has one.

    Returns:
        The new position and velocity.
    """
    moved = torch.add(position, velocity, alpha=TIME_STEP)
    changed = kick.add_(velocity, alpha=KEPT_VELOCITY)
    if top_speed is not None:
        changed = changed * (top_speed / lengths(changed).unsqueeze(-1)).clamp(max=1)
    return moved, changed


@lru_cache(maxsize=32)
def _moves(thrust: float, device: torch.device) -> Tensor:
    """``[5, 2]`` changes of velocity by each choice."""
    return torch.tensor([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], device=device) * (thrust * TIME_STEP)
