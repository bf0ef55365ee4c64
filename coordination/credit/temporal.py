"""Credit over time: rewards moved to the steps that earned them, and shaping that changes no optimal policy."""

from __future__ import annotations

import torch
from torch import Tensor

from coordination.arrays import Array


def redistribute(reward: Array, score: Array, over: Array) -> Tensor:
    """Spread each episode's return over its steps (and agents) by softmax scores: ``r'_t = G softmax(score)_t``.

    Return-equivalent by construction: for every episode the new rewards sum to the old ones (gamma = 1), so optimal
    policies stay (Arjona-Medina et al. 2019, arXiv:1806.07857, theorem 1); over time and agents as in TAR2 (Kapoor et
    al. 2025, arXiv:2502.04864). A part of an episode (rollout ends before it) is taken as an episode of its own.
    Differentiable in ``reward`` and ``score``. O(T).

    Args:
        reward: ``[T, *]`` rewards.
        score: ``[T, *]``, or ``[T, *, N]`` to share a team's reward among agents as well; -inf gives a step nothing (at
            least one score of every episode must be finite).
        over: ``[T, *]`` bool: the step ends its episode (terminated or truncated).

    Returns:
        Rewards of the shape of ``score``.

    Raises:
        ValueError: If shapes disagree, a score is NaN or +inf, or an episode with a return has no score above -inf.

    >>> over = torch.tensor([False, True, True])
    >>> redistribute(torch.tensor([0.0, 4.0, 3.0]), torch.zeros(3), over).tolist()
    [2.0, 2.0, 3.0]
    """
    reward, score, over = torch.as_tensor(reward), torch.as_tensor(score), torch.as_tensor(over)
    if over.shape != reward.shape or score.shape[: reward.ndim] != reward.shape or score.ndim > reward.ndim + 1:
        raise ValueError(
            f"redistribute: expected reward and over [T, *], score [T, *] or [T, *, N]; got {tuple(reward.shape)}, "
            f"{tuple(over.shape)}, {tuple(score.shape)}"
        )
    shared = score.ndim > reward.ndim
    among = score if shared else score.unsqueeze(-1)
    takes = (among != -torch.inf).any(-1)  # steps that somebody gets a share of
    safe = torch.where(takes.unsqueeze(-1), among, 0.0)
    of_step = torch.where(takes, torch.logsumexp(safe, -1), -torch.inf)
    episode = _episodes(over)
    top = torch.full_like(of_step, -torch.inf).scatter_reduce(0, episode, of_step.detach(), "amax").gather(0, episode)
    earned = _returns(reward, episode)
    _check_scores(top, earned)
    weight = torch.exp(of_step - torch.where(top > -torch.inf, top, 0.0))
    total = torch.zeros_like(weight).scatter_add(0, episode, weight).gather(0, episode)
    result = earned * weight / total.clamp(min=torch.finfo(total.dtype).tiny)
    return result.unsqueeze(-1) * torch.where(takes.unsqueeze(-1), torch.softmax(safe, -1), 0.0) if shared else result


def return_differences(reward: Array, prediction: Array, over: Array) -> Tensor:
    """Rewards as changes of a predicted return: ``r'_t = g_t - g_{t-1}``, what is left of the return spread evenly.

    RUDDER (Arjona-Medina et al. 2019, arXiv:1806.07857, section 2): where ``g_t`` predicts the episode's return from
    what has happened up to step t, the reward moves to the steps that changed the prediction. The error at the end, ``G
    - g_T``, is divided among all steps, so each episode's sum is the return exactly. O(T).

    Args:
        reward: ``[T, *]`` rewards.
        prediction: ``[T, *]`` predicted returns g_t.
        over: ``[T, *]`` bool: the step ends its episode.

    Returns:
        ``[T, *]``.

    >>> over = torch.tensor([False, False, True])
    >>> return_differences(torch.tensor([0.0, 0.0, 6.0]), torch.tensor([0.0, 6.0, 6.0]), over).tolist()
    [0.0, 6.0, 0.0]
    """
    reward, prediction, over = torch.as_tensor(reward), torch.as_tensor(prediction), torch.as_tensor(over)
    if not reward.shape == prediction.shape == over.shape:
        raise ValueError(
            f"return_differences: expected three tensors [T, *], got {tuple(reward.shape)}, {tuple(prediction.shape)}, "
            f"{tuple(over.shape)}"
        )
    episode = _episodes(over)
    before = torch.cat([torch.zeros_like(prediction[:1]), torch.where(over[:-1], 0.0, prediction[:-1])])
    change = prediction - before
    length = _returns(torch.ones_like(reward), episode)
    return change + (_returns(reward, episode) - _returns(change, episode)) / length


def potential_shaping(potential: Array, next_potential: Array, terminated: Array, gamma: float) -> Tensor:
    """``F = gamma Phi(s') - Phi(s)``, ``Phi = 0`` after a terminal step: keeps optimal policies and Nash equilibria.

    Ng, Harada and Russell 1999; for several agents Devlin and Kudenko 2011; zero at the end: Grzes 2017. Optimal values
    become ``Q* - Phi``. At a time limit the true successor's potential must be given, not that of the next episode.

    O(1) for each number.

    Args:
        potential: ``[*]`` Phi of the states acted in.
        next_potential: ``[*]`` Phi of the true successors.
        terminated: ``[*]`` bool: nothing follows.
        gamma: The learner's own discount; any other changes optimal policies.

    Returns:
        ``[*]`` to be added to the rewards.

    >>> potential_shaping(torch.tensor([1.0]), torch.tensor([4.0]), torch.tensor([False]), 0.5).tolist()
    [1.0]
    """
    next_potential, terminated = torch.as_tensor(next_potential), torch.as_tensor(terminated)
    return gamma * torch.where(terminated, 0.0, next_potential) - torch.as_tensor(potential)


def _check_scores(top: Tensor, earned: Tensor) -> None:
    """Refuse episodes whose return would be lost; elsewhere than on a CPU the check would wait and is left out."""
    if top.device.type != "cpu":
        return
    if not (top < torch.inf).all():
        raise ValueError("score: must not be NaN or +inf; -inf gives a step nothing")
    if ((top == -torch.inf) & (earned != 0)).any():
        raise ValueError("score: an episode with a return has no step above -inf to give it to")


def _episodes(over: Tensor) -> Tensor:
    """Which episode of its column each step belongs to: ``[T, *]`` int64 from 0."""
    ended = over.long()
    return ended.cumsum(0) - ended


def _returns(reward: Tensor, episode: Tensor) -> Tensor:
    """The undiscounted return of the episode that each step belongs to ``[T, *]``."""
    return torch.zeros_like(reward).scatter_add(0, episode, reward).gather(0, episode)
