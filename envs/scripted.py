"""Policies that learn nothing: random actions, for baselines and warm-up."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

from envs.base import View
from envs.spaces import ActionSpec
from envs.spec import AgentSpec, Group


def random_action(view: View, agents: AgentSpec, generator: torch.Generator) -> Tensor:
    """Uniform over the choices that masks allow, uniform in boxes; standard normal where a box has no bound.

    Args:
        view: What the agents see, on the device of the generator.
        agents: Who they are.
        generator: Where the draws come from.

    Returns:
        ``[*, N, A]`` int64 if every group is discrete, else float32; zero for passive groups and in unused components.
    """
    *lead, n, _ = view.obs.shape
    dtype = torch.int64 if agents.discrete else torch.float32
    drawn = [_drawn(group, view, generator).to(dtype) for group in agents.acting]
    if len(agents.groups) == 1:
        return drawn[0]
    action = torch.zeros(*lead, n, agents.action_dim, dtype=dtype, device=generator.device)
    for group, part in zip(agents.acting, drawn, strict=True):
        action[..., group.slice, : part.shape[-1]] = part
    return action


def _drawn(group: Group, view: View, generator: torch.Generator) -> Tensor:
    """``[*, size, components]`` actions of one group."""
    assert group.action is not None
    shape = (*view.obs.shape[:-2], group.size)
    if group.action.kind == "box":
        return _in_box(group.action, shape, generator)
    mask = None if view.action_mask is None else view.action_mask[..., group.slice, :]
    return _choices(group.action, mask, shape, generator)


def _choices(action: ActionSpec, mask: Tensor | None, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """``[*, components]``: the allowed choices with the largest of uniform draws, so all are equally likely."""
    device = generator.device
    if mask is None:
        drawn = [torch.randint(size, shape, generator=generator, device=device) for size in action.sizes]
        return torch.stack(drawn, -1)
    score = torch.rand(*shape, action.logits, generator=generator, device=device)
    allowed = score.masked_fill(~mask[..., : action.logits], -1.0)
    return torch.stack([part.argmax(-1) for part in allowed.split(action.sizes, -1)], -1)


def _in_box(action: ActionSpec, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """``[*, components]``: uniform between finite bounds, else standard normal, cut at the bound there is."""
    device = generator.device
    low, high = (torch.tensor(bound, device=device) for bound in (action.low, action.high))
    uniform = torch.rand(*shape, low.numel(), generator=generator, device=device) * (high - low) + low
    bounded = [isfinite(a) and isfinite(b) for a, b in zip(action.low, action.high, strict=True)]
    if all(bounded):
        return uniform
    normal = torch.randn(*shape, low.numel(), generator=generator, device=device).clamp(low, high)
    return torch.where(torch.tensor(bounded, device=device), uniform, normal)
