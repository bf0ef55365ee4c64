"""Rewards over time: steady behaviour that pays, and returns moved to the steps that earned them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from coordination.credit import redistribute
from coordination.signals.base import AUDIT_TOLERANCE, Trajectory


class Redistribute:
    """Each agent's return over an episode is moved to the steps that score high: ``r'_t = G softmax(score)_t``.

    Return-equivalent by construction (Arjona-Medina et al. 2019, arXiv:1806.07857): every agent's undiscounted sum over
    an episode stays, which the audit checks, so with ``gamma = 1`` optimal policies stay too; with a smaller discount
    they may not, and ``policy_invariant`` is not declared. A rollout's part of an episode counts as an episode.

    Args:
        score: From the context to ``[T, *, N]``: how much each step mattered; -inf for not at all.

    O(T); needs a trajectory, time first.

    >>> context = Trajectory.of([[0.0], [0.0], [6.0]], cut=[[False], [False], [True]])
    >>> Redistribute(lambda c: torch.zeros_like(c.reward))(context.reward, context).flatten().tolist()
    [2.0, 2.0, 2.0]
    """

    name = "redistribute"
    needs: Literal["trajectory"] = "trajectory"
    conserves_sum = False
    policy_invariant = False

    def __init__(self, score: Callable[[Trajectory], Tensor]) -> None:
        if not callable(score):
            raise TypeError(f"score: expected a function of the context, got {score!r}")
        self.score = score

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[T, *, N] -> [T, *, N]``."""
        score = self.score(context)
        if score.shape != reward.shape:
            raise ValueError(f"score: expected {tuple(reward.shape)}, got {tuple(score.shape)}")
        score = torch.where(context.alive, score, -torch.inf)
        moved = redistribute(reward, score, context.cut & context.alive)
        return torch.where(context.alive, moved, 0.0)

    def audit(self, reward: Tensor, result: Tensor, context: Trajectory) -> list[str]:
        """That every episode's sum stays."""
        change = result - reward
        open_sum, worst = torch.zeros_like(change[0]), change.new_zeros(())
        for t in range(change.shape[0]):
            open_sum = open_sum + change[t]
            ends = (context.cut[t] & context.alive[t]) if t + 1 < change.shape[0] else torch.ones_like(context.cut[t])
            worst = torch.maximum(worst, torch.where(ends, open_sum.abs(), 0.0).max())
            open_sum = torch.where(ends, 0.0, open_sum)
        scale = 1 + reward.abs().sum(0).max()
        return [] if bool(worst <= AUDIT_TOLERANCE * scale) else ["the sum of an episode's rewards changed"]


class Coherence:
    """Steady behaviour pays: ``r'_i(t) = r_i(t) + weight * (similarity(a_i(t), previous own a_i) - 1)``.

    Similarity is the cosine of real-valued actions, and the fraction of equal components of discrete ones, so the term
    lies in ``[-2 weight, 0]`` or ``[-weight, 0]`` and is zero for an agent that keeps doing the same. An agent's
    first own action in an episode (or in the stretch at hand) costs nothing, and neither do steps in which it does not
    choose. A change of the objective that suppresses chattering.

    Args:
        weight: Largest cost of a change (of a reversal: twice that), at least 0.

    O(N A) per step; needs a trajectory, time first.

    >>> context = Trajectory.of([[0.0], [0.0], [0.0]], action=[[[1]], [[1]], [[2]]])
    >>> Coherence(0.5)(context.reward, context).flatten().tolist()
    [0.0, 0.0, -0.5]
    """

    name = "coherence"
    needs: Literal["trajectory"] = "trajectory"
    conserves_sum = False
    policy_invariant = False

    def __init__(self, weight: float) -> None:
        if not weight >= 0:
            raise ValueError(f"weight: must not be negative, got {weight}")
        self.weight = weight

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[T, *, N] -> [T, *, N]``."""
        alike, known = steadiness(context)
        return reward + self.weight * torch.where(known, alike - 1, 0.0)


def steadiness(context: Trajectory) -> tuple[Tensor, Tensor]:
    """How like its previous own action in the same episode each agent's action is.

    Args:
        context: Time first.

    Returns:
        ``[T, *, N]``: the cosine of real-valued actions, the fraction of equal components of discrete ones; and bool:
        whether the agent chose and has an earlier own action to compare with. O(N A) per step.
    """
    previous, known = _previous_own(context)
    action = context.action
    before = action.gather(0, previous.unsqueeze(-1).expand_as(action))
    if not action.is_floating_point():
        return (action == before).to(context.reward.dtype).mean(-1), known
    now, then = (torch.where(known.unsqueeze(-1), x, 1.0) for x in (action, before))
    return torch.cosine_similarity(now, then, dim=-1, eps=1e-12), known


def _previous_own(context: Trajectory) -> tuple[Tensor, Tensor]:
    """``[T, *, N]`` time of each agent's previous own action, and whether there is one in the same episode."""
    chose = context.acting & context.alive
    time = torch.arange(chose.shape[0], device=chose.device).reshape(-1, *[1] * (chose.ndim - 1)).expand(chose.shape)
    over = context.cut | ~context.alive
    begins = torch.cat([torch.ones_like(over[:1]), over[:-1]])
    start = torch.where(begins, time, 0).cummax(0).values
    last = torch.where(chose, time, -1).cummax(0).values
    before = torch.cat([torch.full_like(last[:1], -1), last[:-1]])
    return before.clamp(min=0), chose & (before >= start)
