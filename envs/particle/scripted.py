"""Hand-written policies for the MPE tasks, native or mpe2's own: bounds from below, and opponents to play against."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from envs.base import View
from envs.particle.physics import KEPT_VELOCITY, THRUST, TIME_STEP
from envs.spec import AgentSpec

EXHAUSTIVE_UP_TO = 6  # agents; up to here all permutations are tried at once
COAST = TIME_STEP / (1 - KEPT_VELOCITY)  # how far a unit of velocity still carries
PUSH = THRUST * TIME_STEP * COAST  # how far one full push carries


def spread_assignment(view: View, agents: AgentSpec) -> Tensor:
    """Greedy actions for spread, its native form and ``mpe2.simple_spread_v3`` alike.

    At every step landmarks are assigned to agents with the least total distance (Kuhn 1955), from the observations
    of all agents together. Each agent looks where it would come to rest without a push, and pushes along the axis with
    the larger error (discrete) or along both as far as needed (continuous). It ignores collisions. Means over 400
    episodes of 25 steps, three agents, team sum: about -27 discrete and -21 continuous.

    Args:
        view: Observations with all landmarks; the columns follow from the number of agents.
        agents: Who they are.

    Returns:
        ``[*, N, 1]`` int64 choices, or ``[*, N, 5]`` float32 pushes.

    Raises:
        ValueError: If observations are not those of spread with everything in sight.
    """
    n = agents.num_agents
    width, got = 6 * n, view.obs.shape[-1]
    if got != width:
        raise ValueError(f"spread_assignment: expected observations of {width} columns (all in sight), got {got}")
    obs = view.obs.reshape(-1, n, width)
    to_landmark = obs[..., 4 : 4 + 2 * n].unflatten(-1, (n, 2))
    chosen = assign(to_landmark.norm(dim=-1))
    goal = to_landmark.gather(2, chosen[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)
    action = steer(goal - COAST * obs[..., :2], agents)
    return action.reshape(*view.obs.shape[:-1], -1)


def speaker_listener_words(view: View, agents: AgentSpec) -> Tensor:
    """Greedy actions for speaker and listener: the speaker names the goal, the listener drives there and stops.

    Before the first word the listener heads for the middle of the landmarks. Means over 10,000 episodes of 25 steps,
    team sum: -15.2 discrete and -12.1 continuous.

    Args:
        view: What both see.
        agents: Who they are.

    Returns:
        ``[*, 2, 1]`` int64 choices, or ``[*, 2, 5]`` float32.

    Raises:
        ValueError: If observations are not those of the task.
    """
    _expect("speaker_listener_words", agents, 3, 11)
    speaker, listener = view.obs[..., 0, :3], view.obs[..., 1, :]
    goal = _told(listener[..., 2:8], listener[..., 8:11])
    drive = steer(goal - COAST * listener[..., :2], agents)
    word = speaker.argmax(-1, keepdim=True)
    if not agents.discrete:
        word = torch.zeros_like(drive).scatter_(-1, word, 1.0)
    return torch.stack([word, drive], -2)


def reference_words(view: View, agents: AgentSpec) -> Tensor:
    """Greedy actions for reference: both name the other's goal, and drive to what they are told and stop.

    Means over 10,000 episodes of 25 steps, team sum: -17.3 discrete and -13.3 continuous.

    Args:
        view: What both see.
        agents: Who they are.

    Returns:
        ``[*, 2, 1]`` int64 choices, or ``[*, 2, 15]`` float32.

    Raises:
        ValueError: If observations are not those of the task.
    """
    _expect("reference_words", agents, *(21,) * len(agents.groups))
    velocity, offset, colour, heard = view.obs.split([2, 6, 3, 10], -1)
    drive = steer(_told(offset, heard[..., :3]) - COAST * velocity, agents)
    word = colour.argmax(-1, keepdim=True)
    if agents.discrete:
        return drive + 5 * word
    return torch.cat([drive, torch.zeros_like(heard).scatter_(-1, word, 1.0)], -1)


def tag_chase(view: View, agents: AgentSpec) -> Tensor:
    """Simple play for tag: adversaries make for the nearest prey, prey flee the nearest adversary and the border.

    Mean returns of an adversary and of the prey over 10,000 episodes of the defaults: 12 and -15; against random
    opponents adversaries get 43, prey -4.

    Args:
        view: What they see, everything in sight.
        agents: Who they are.

    Returns:
        ``[*, N, 1]`` int64 choices, or ``[*, N, 5]`` float32 pushes.

    Raises:
        ValueError: If observations are not those of tag with everything in sight.
    """
    n, a = agents.num_agents, agents.groups[0].size
    obstacles = (agents.obs_dim - 4 - 2 * (n - 1) - 2 * (n - a)) // 2
    width = 4 + 2 * obstacles + 2 * (n - 1) + 2 * (n - a)
    _expect("tag_chase", agents, width, width - 2)
    start = 4 + 2 * obstacles
    others = view.obs[..., start : start + 2 * (n - 1)].unflatten(-1, (n - 1, 2))
    prey = _nearest(others[..., :a, a - 1 :, :])
    threat = _nearest(others[..., a:, :a, :])
    home = view.obs[..., a:, 2:4].pow(3)
    flight = -threat / threat.norm(dim=-1, keepdim=True).clamp(min=1e-6) - 2 * home
    return steer(torch.cat([prey, flight], -2), agents)


def adversary_cover(view: View, agents: AgentSpec) -> Tensor:
    """Simple play for adversary: good agents cover all landmarks, the adversary takes the one best covered.

    Good agents share the landmarks out with the least total distance, so that nothing gives the goal away.
    Mean returns of the adversary and of a good agent over 10,000 episodes of the defaults: -17.6 and 9.2; against a
    random opponent -18 and 20.

    Args:
        view: What they see, everything in sight.
        agents: Who they are.

    Returns:
        ``[*, N, 1]`` int64 choices, or ``[*, N, 5]`` float32 pushes.

    Raises:
        ValueError: If observations are not those of adversary with everything in sight.
    """
    good = agents.num_agents - 1
    _expect("adversary_cover", agents, 4 * good, 4 * good + 2)
    landmark, other = view.obs[..., :1, : 4 * good].unflatten(-1, (2, good, 2)).unbind(-3)
    covered = (landmark.unsqueeze(-2) - other.unsqueeze(-3)).norm(dim=-1).amin(-1)
    target = landmark.gather(-2, covered.argmin(-1)[..., None, None].expand(*covered.shape[:-1], 1, 2)).squeeze(-2)
    seen = view.obs[..., 1:, 2 : 2 + 2 * good].unflatten(-1, (good, 2))
    chosen = assign(seen.norm(dim=-1).reshape(-1, good, good)).view(seen.shape[:-2])
    own = seen.gather(-2, chosen[..., None, None].expand(*chosen.shape, 1, 2)).squeeze(-2)
    return steer(torch.cat([target, own], -2), agents)


def _expect(name: str, agents: AgentSpec, *widths: int) -> None:
    """Refuse agents whose groups do not observe so many columns."""
    got = tuple(group.observation.dim for group in agents.groups)
    if got != widths:
        raise ValueError(f"{name}: expected groups observing {widths} columns, got {got}")


def _told(offset: Tensor, word: Tensor) -> Tensor:
    """``[*, 2]`` offset to the landmark that ``word [*, 3]`` names, their middle where nothing was said yet."""
    named = torch.zeros_like(word).scatter_(-1, word.argmax(-1, keepdim=True), 1.0)
    weight = torch.where((word > 0).any(-1, keepdim=True), named, 1 / 3)
    return (weight.unsqueeze(-1) * offset.unflatten(-1, (3, 2))).sum(-2)


def _nearest(offset: Tensor) -> Tensor:
    """``[*, 2]`` the shortest of ``offset [*, M, 2]``."""
    chosen = offset.norm(dim=-1).argmin(-1)
    return offset.gather(-2, chosen[..., None, None].expand(*chosen.shape, 1, 2)).squeeze(-2)


def assign(cost: Tensor) -> Tensor:
    """The cheapest one-to-one assignment of columns to rows.

    Args:
        cost: ``[B, N, N]``.

    Returns:
        ``[B, N]`` int64 column of each row.
    """
    n = cost.shape[-1]
    if n > EXHAUSTIVE_UP_TO:
        found = [torch.from_numpy(linear_sum_assignment(sample)[1]) for sample in cost.cpu().numpy()]
        return torch.stack(found).to(cost.device)
    orders = _orders(n, cost.device)
    total = cost[:, torch.arange(n, device=cost.device), orders].sum(-1)
    return orders[total.argmin(-1)]


@lru_cache(maxsize=16)
def _orders(n: int, device: torch.device) -> Tensor:
    """``[N!, N]`` all permutations."""
    return torch.tensor(list(permutations(range(n))), device=device)


def steer(way: Tensor, agents: AgentSpec) -> Tensor:
    """Pushes that carry a body of mass one by ``way``, as far as one step's push can.

    Args:
        way: ``[*, 2]``.
        agents: Whose actions they are: discrete agents push along the axis with the larger error, if a full push
            brings it nearer; others along both, as far as needed.

    Returns:
        ``[*, 1]`` int64 choices, or ``[*, 5]`` float32.
    """
    push = way / PUSH
    if agents.discrete:
        size, axis = push.abs().max(-1)
        forward = (push.gather(-1, axis.unsqueeze(-1)).squeeze(-1) > 0).long()
        return torch.where(size > 0.5, 1 + 2 * axis + forward, 0).unsqueeze(-1)
    left, down = (-push).clamp(0, 1).unbind(-1)
    right, up = push.clamp(0, 1).unbind(-1)
    return torch.stack([torch.zeros_like(left), left, right, down, up], -1)
