"""Targets and advantages: GAE, n-step returns, TD(lambda) and V-trace, per agent.

All take tensors ``[T, B, N]`` (any shape with time first) and the same two masks:

* ``terminated``: nothing follows, the successor is worth zero;
* ``cut``: no later step belongs to the same episode of this agent (terminated, truncated, or the copy restarted);
  estimates never reach across it, and bootstrap from ``next_value`` unless terminated.

``next_value[t]`` is the value of the *true* successor of step t (:meth:`marl.batch.Batch.successor`), so at a time
limit it is the value of the last state of the old episode, never of the first of the new one.

Where agents take turns, ``acts`` says who chose; a step then lasts until the agent's own next turn: rewards in between
add to it, and it is discounted once. The value of a state in which an agent waits is what is still to come of its
current step, plus the discounted value of its next turn.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    cut: Tensor,
    gamma: float,
    lam: float,
    acts: Tensor | None = None,
    next_acts: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimates: ``A_t = delta_t + gamma lam A_{t+1}`` inside an episode.

    With ``delta_t = r_t + gamma V(s_{t+1}) - V(s_t)`` (Schulman et al. 2016, arXiv:1506.02438, eq. 16). ``A + V`` is
    the lambda-return of :func:`td_lambda`.

    Args:
        reward: ``[T, B, N]``.
        value: ``[T, B, N]`` values of the states acted on.
        next_value: ``[T, B, N]`` values of the true successors.
        terminated, cut: ``[T, B, N]`` bool, see above.
        gamma: Discount in [0, 1]; raising it looks further ahead and adds variance.
        lam: Trace decay in [0, 1]; 0 is one-step TD (biased by the critic), 1 is Monte Carlo (noisy).
        acts: ``[T, B, N]`` bool: who chose; None if everyone did.
        next_acts: ``[T, B, N]`` bool: who chooses in the true successors; needed with ``acts``.

    Returns:
        ``[T, B, N]`` advantages; for an agent that waits, of its value's target over its value.
    """
    bootstrap = torch.where(terminated, 0.0, next_value)
    if acts is None or next_acts is None:
        delta = reward + gamma * bootstrap - value
        return _scan(delta, (~cut).to(delta.dtype) * (gamma * lam))
    bootstrap = torch.where(next_acts, gamma * bootstrap, bootstrap)  # a state of waiting is no step ahead
    advantage = torch.zeros_like(reward)
    ahead, trace, waiting = bootstrap[-1], torch.zeros_like(reward[-1]), torch.zeros_like(reward[-1])
    for t in reversed(range(reward.shape[0])):
        ahead = torch.where(cut[t], bootstrap[t], ahead)  # discounted value of the next turn
        trace = torch.where(cut[t], 0.0, trace)
        waiting = torch.where(cut[t], 0.0, waiting) + reward[t]
        own = waiting + ahead - value[t] + gamma * lam * trace
        advantage[t] = own
        trace = torch.where(acts[t], own, trace)
        ahead = torch.where(acts[t], gamma * value[t], ahead)
        waiting = torch.where(acts[t], 0.0, waiting)
    return advantage


def td_lambda(reward: Tensor, next_value: Tensor, terminated: Tensor, cut: Tensor, gamma: float, lam: float) -> Tensor:
    """Lambda-returns ``G_t = r_t + gamma ((1 - lam) V(s_{t+1}) + lam G_{t+1})`` (Sutton and Barto 2018, eq. 12.2).

    Args and masks as in :func:`gae`. Returns ``[T, B, N]`` targets.
    """
    bootstrap = torch.where(terminated, 0.0, next_value)
    last = torch.zeros_like(cut)
    last[-1] = True
    decay = (~(cut | last)).to(bootstrap.dtype) * (gamma * lam)
    return _scan(reward + (gamma - decay) * bootstrap, decay)


def n_step(reward: Tensor, next_value: Tensor, terminated: Tensor, cut: Tensor, gamma: float, n: int) -> Tensor:
    """n-step returns: n rewards, then the value; fewer at a cut or at the end of the rollout.

    ``G_t = r_t + ... + gamma^(m-1) r_(t+m-1) + gamma^m V(s_(t+m))`` with m = min(n, steps left) (Watkins 1989).

    Args:
        n: Number of rewards, at least 1; raising it trusts the critic less. Others as in :func:`gae`.

    Returns:
        ``[T, B, N]`` targets.
    """
    if n < 1:
        raise ValueError(f"n: must be at least 1, got {n}")
    bootstrap = torch.where(terminated, 0.0, next_value)
    target = reward + gamma * bootstrap
    for _ in range(min(n, reward.shape[0]) - 1):
        longer = torch.where(cut[:-1], bootstrap[:-1], target[1:])
        target = torch.cat([reward[:-1] + gamma * longer, target[-1:]])
    return target


def vtrace(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    cut: Tensor,
    log_ratio: Tensor,
    gamma: float,
    lam: float = 1.0,
    rho_max: float = 1.0,
    c_max: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """V-trace targets and policy-gradient advantages from off-policy steps (Espeholt et al. 2018, arXiv:1802.01561).

    ``v_t = V_t + rho_t delta_t + gamma c_t (v_{t+1} - V_{t+1})`` with ``rho = min(rho_max, pi/mu)`` and
    ``c = lam min(c_max, pi/mu)`` (eq. 1); advantage ``rho_t (r_t + gamma v_{t+1} - V_t)``.

    Args:
        log_ratio: ``[T, B, N]`` log pi(a|s) - log mu(a|s).
        rho_max: Cap on the correction of each step; lowering it pulls the fixed point towards the behaviour's value.
        c_max: Cap on how far corrections travel back; lowers variance, leaves the fixed point alone.

    Returns:
        Targets and advantages, ``[T, B, N]`` each.
    """
    ratio = log_ratio.exp()
    rho, c = ratio.clamp(max=rho_max), lam * ratio.clamp(max=c_max)
    bootstrap = torch.where(terminated, 0.0, next_value)
    delta = rho * (reward + gamma * bootstrap - value)
    correction = _scan(delta, torch.where(cut, 0.0, gamma * c))
    target = value + correction
    last = torch.zeros_like(cut)
    last[-1] = True
    shifted = torch.cat([target[1:], target[-1:]])
    following = torch.where(cut | last, bootstrap, shifted)
    return target, rho * (reward + gamma * following - value)


def _scan(delta: Tensor, decay: Tensor) -> Tensor:
    """``y_t = delta_t + decay_t y_{t+1}``, from the end; where a decay is zero nothing passes, not even a NaN."""
    out = torch.empty_like(delta)
    carry, passes = torch.zeros_like(delta[-1]), decay != 0
    for t in reversed(range(delta.shape[0])):
        carry = torch.addcmul(delta[t], decay[t], torch.where(passes[t], carry, 0.0))
        out[t] = carry
    return out
