"""Hand-written policies for population environments: pooling of evidence by consensus, coalitions in turns."""

from __future__ import annotations

import torch
from torch import Tensor

from coordination.consensus.links import mix
from coordination.links import at_ends
from envs.base import View
from envs.spec import AgentSpec


def pool_evidence(view: View, agents: AgentSpec) -> Tensor:
    """Deliberation by Metropolis consensus on the log-likelihood ratios (Xiao and Boyd 2004), summed up at the end.

    First each module reports its own ratio, then its estimate of their mean, and at last N times that. Attains
    ``Deliberation.bayes_score()`` where averaging settles within the episode.

    Args:
        view: Observations of :class:`~envs.population.deliberation.Deliberation` on a graph of two-way links.
        agents: Who they are; they report log-odds.

    Returns:
        ``[*, N, 1]`` float32 log-odds.

    Raises:
        ValueError: If the observations are others, reports are one of several levels, or a link goes one way only.
    """
    action = agents.actions[0]
    if action.kind != "box":
        raise ValueError("pool_evidence: reports any log-odds, the environment takes levels; set continuous_actions")
    evidence, report, urgency = (_part(view, agents, name)[..., 0] for name in ("evidence", "report", "urgency"))
    mean = mix(report.unsqueeze(-1), view.graph, "metropolis", at_ends(view.alive, view.graph, "sender")).squeeze(-1)
    last = urgency == 1
    said = torch.where(last, mean * view.alive.sum(-1, keepdim=True), mean)
    silence = (report == 0).all(-1, keepdim=True)  # nobody has spoken yet
    return torch.where(silence, evidence, said).clamp(action.low[0], action.high[0]).unsqueeze(-1)


def take_turns(view: View, agents: AgentSpec) -> Tensor:
    """Allocation by best responses in turns: of those of one kind that reach a task, one reconsiders at a time.

    Whose turn it is goes where its skills are missed most: each unit it brings that would lack without it is worth
    the weight of the task over the units needed, and completing the task its weight once more. The others stay
    where they are. Each module looks at its own observation alone; its number says when it is its turn.

    Args:
        view: Observations of :class:`~envs.population.allocation.Allocation`.
        agents: Who they are.

    Returns:
        ``[*, N, 1]`` int64 choices.

    Raises:
        ValueError: If the observations are others.
    """
    skill, urgency, mine, tasks = (_part(view, agents, name) for name in ("skills", "urgency", "mine", "tasks"))
    reach, width = mine.shape[-1], skill.shape[-1]
    weight, need, lack = tasks.unflatten(-1, (reach, -1)).split([1, width, width], -1)
    skill = skill.unsqueeze(-2)
    missed = (lack + mine.unsqueeze(-1) * skill).clamp(min=0)  # without oneself
    brings = torch.minimum(missed, skill).sum(-1)
    completes = (missed <= skill).all(-1) & (brings > 0)
    worth, best = (weight.squeeze(-1) * (brings / need.sum(-1) + completes)).max(-1)
    stay = (mine * torch.arange(1, reach + 1, device=mine.device)).sum(-1).long()
    steps_left = (1 / urgency[..., 0]).round().long()
    number, rivals = _turns(agents, reach, mine.device)
    mine_to_move = (number + steps_left) % rivals == 0
    return torch.where(mine_to_move, torch.where(worth > 0, best + 1, 0), stay).unsqueeze(-1)


def _turns(agents: AgentSpec, reach: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """``[N]`` number of each module within its kind, and how many of its kind reach a task at most."""
    tasks = len(agents.factor_scopes or ())
    if not tasks:
        raise ValueError("take_turns: expected factor scopes, the modules in reach of each task; got none")
    sizes = torch.tensor([group.size for group in agents.groups])
    number = torch.cat([torch.arange(size) for size in sizes.tolist()])
    rivals = (sizes * reach + tasks - 1) // tasks
    return number.to(device), rivals.repeat_interleave(sizes).to(device)


def _part(view: View, agents: AgentSpec, name: str) -> Tensor:
    """``[*, N, width]`` one part of the observations; ones in empty slots, which may hold anything."""
    for part in agents.groups[0].observation.parts:
        if part.name == name:
            return torch.where(view.alive.unsqueeze(-1), view.obs[..., part.start : part.stop], 1.0)
    raise ValueError(f"observations: expected a part {name!r}, got those of another environment")
