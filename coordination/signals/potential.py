"""Potential-based shaping: the one change of rewards that provably changes no optimal policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from coordination.credit import potential_shaping
from coordination.signals.base import Trajectory

TOLERANCE = 1e-4  # relative; a float32 episode of some thousand steps stays inside


class Potential:
    """Potential-based reward shaping: ``r' = r + gamma Phi(s') - Phi(s)``, with ``Phi = 0`` after termination.

    Every agent's optimal policies stay (Ng, Harada and Russell 1999), and so does the set of Nash equilibria (Devlin
    and Kudenko 2011), provided that ``gamma`` is the learner's discount and that nothing is worth something after the
    end (Grzes 2017). Over an episode that terminates, the discounted sum of what is added is ``-Phi(s_0)``, whatever
    was done; action values become ``Q - Phi``. At a time limit the true successor counts, ``gamma Phi(s')``, because
    the learner bootstraps there. Where agents take turns, all that is added between two own turns sums to
    ``gamma Phi(next turn) - Phi(turn)``, since the learner discounts once per turn.

    Args:
        phi: Potential of each agent: observations ``[*, N, O] -> [*, N]``, a function of nothing else (no dropout, no
            parameters that are being trained). It is given zeros for dead agents.
        gamma: The learner's discount, in [0, 1].

    Raises:
        ValueError: If ``gamma`` is out of range, the context lacks ``next_obs``, or ``phi`` returns another shape.

    Two evaluations of ``phi`` a call.

    >>> obs, next_obs = [[[2.0]], [[3.0]]], [[[3.0]], [[9.0]]]
    >>> context = Trajectory.of([[0.0], [1.0]], obs=obs, next_obs=next_obs, terminated=[[False], [True]])
    >>> Potential(lambda obs: obs[..., 0], gamma=0.5)(context.reward, context).tolist()
    [[-0.5], [-2.0]]
    """

    name = "potential"
    needs: Literal["transition"] = "transition"
    conserves_sum = False
    policy_invariant = True

    def __init__(self, phi: Callable[[Tensor], Tensor], gamma: float) -> None:
        if not callable(phi):
            raise TypeError(f"phi: expected a function of observations [*, N, O], got {phi!r}")
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma: must be in [0, 1], got {gamma}")
        self.phi, self.gamma = phi, gamma

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[*, N] -> [*, N]``."""
        now, following = self._potentials(context)
        return reward + self._shaping(now, following, context)

    def _potentials(self, context: Trajectory) -> tuple[Tensor, Tensor]:
        if context.next_obs is None:
            raise ValueError("potential: the context has no next_obs; shaping needs the true successor of every step")
        stays = context.alive & ~context.terminated
        values = []
        for obs, alive in ((context.obs, context.alive), (context.next_obs, stays)):
            value = self.phi(torch.where(alive.unsqueeze(-1), obs, 0.0))
            if value.shape != alive.shape:
                raise ValueError(f"phi: expected [*, N] = {tuple(alive.shape)}, got {tuple(value.shape)}")
            values.append(torch.where(alive, value, 0.0))
        return values[0], values[1]

    def _shaping(self, now: Tensor, following: Tensor, context: Trajectory) -> Tensor:
        waiting = torch.where(context.acting, 0.0, 1 - self.gamma) * now  # discounted once per own turn, not per step
        return potential_shaping(now, following, context.terminated, self.gamma) + waiting

    def audit(self, reward: Tensor, result: Tensor, context: Trajectory) -> list[str]:
        """That ``phi`` is a function, that the past is finite, and that episodes telescope."""
        now, following = self._potentials(context)
        added = torch.where(context.alive, result - reward, 0.0)
        scale = 1 + now.abs() + following.abs() + reward.abs()
        found = []
        if not bool(((added - self._shaping(now, following, context)).abs() <= TOLERANCE * scale).all()):
            found.append("phi gives different values for the same observations, so optimal policies may change")
        if _is_ordered(context) and not bool(self._telescopes(added, now, following, context, scale)):
            found.append("the discounted sum over an episode does not telescope to -Phi(s_0)")
        return found

    def _telescopes(
        self, added: Tensor, now: Tensor, following: Tensor, context: Trajectory, scale: Tensor
    ) -> Tensor | bool:
        """Whether from every step on, the discounted sum is the potential at the end minus the one at that step."""
        first = torch.where(context.acting, 1.0, self.gamma) * now
        total, end = added[-1], self.gamma * following[-1]
        worst = ((total - (end - first[-1])).abs() / scale[-1]).max()
        largest = scale[-1]
        for t in reversed(range(added.shape[0] - 1)):
            discount = torch.where(context.acting[t + 1], self.gamma, 1.0)
            over = context.cut[t] | ~context.alive[t]
            total = added[t] + torch.where(over, 0.0, discount * total)
            end = torch.where(over, self.gamma * following[t], discount * end)
            largest = torch.maximum(largest, scale[t])
            error = (total - (end - first[t])).abs() / largest
            worst = torch.maximum(worst, torch.where(context.alive[t], error, 0.0).max())
        return worst <= TOLERANCE


def _is_ordered(context: Trajectory) -> bool:
    """Whether axis 0 is time: every step that is not cut is followed by its own successor."""
    if context.next_obs is None or context.obs.ndim < 3 or context.obs.shape[0] < 2:
        return False
    goes_on = (context.alive & ~context.cut)[:-1]
    same = (context.next_obs[:-1] == context.obs[1:]).all(-1)
    return bool((same | ~goes_on).all()) and bool(goes_on.any())
