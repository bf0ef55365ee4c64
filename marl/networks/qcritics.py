"""Q-critics: the value of everyone's actions to each agent, ``(view, action, own) -> [*, N]``.

Actions come as features ``[*, N, D]`` (:meth:`marl.networks.heads.Head.encode`). ``own`` may replace, for each agent's
value, that agent's own action and nobody else's: all N policy gradients then cost one evaluation.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from coordination.gather import neighbour_mean
from envs.base import View
from envs.spec import AgentSpec
from marl.networks.critics import pool
from marl.networks.inputs import Inputs
from marl.networks.layers.mlp import ACTIVATIONS, MLP
from marl.networks.layers.sharing import Linear, Sharing, orthogonal, relu_gain


class QCritic(Protocol):
    """What the learners need of a Q-critic."""

    def __call__(self, view: View, action: Tensor, own: Tensor | None = None) -> Tensor:
        """Values ``[*, N]`` of ``action [*, N, D]``, with each agent's own one replaced by ``own`` where given."""
        ...


class LocalQ(nn.Module):
    """Each agent's value of its own action, from what its policy could see.

    Args:
        inputs: What is seen of a view.
        action_dim: Width D of the action features.
        body: Module ``(x [*, N, H], view) -> [*, N, H]`` for observations that may use the links.
        hidden: Width of the layer that joins observation and action.
        sharing: Who uses which weights.
        generator: Source of the initial weights.
        activation: ``relu``, ``tanh`` or ``silu``.
    """

    def __init__(
        self,
        inputs: Inputs,
        action_dim: int,
        body: nn.Module | None,
        hidden: tuple[int, ...],
        sharing: Sharing,
        generator: torch.Generator,
        activation: str,
    ) -> None:
        super().__init__()
        self.inputs, self.body = inputs, body
        width = inputs.out_dim if body is None else int(body.out_dim)  # type: ignore[arg-type]
        self.join = MLP(width + action_dim, hidden, sharing, generator, activation)
        self.readout = Linear(hidden[-1], 1, sharing, generator)

    def forward(self, view: View, action: Tensor, own: Tensor | None = None) -> Tensor:
        """Values ``[*, N]``; what the others do is not looked at."""
        x = self.inputs(view)
        h = x if self.body is None else self.body(x, view)
        mine = torch.where(view.alive.unsqueeze(-1), action if own is None else own, 0.0)
        return self.readout(self.join(torch.cat([h, mine], -1))).squeeze(-1)


class JointQ(nn.Module):
    """All observations and all actions side by side (and the state, where there is one), one value for each agent.

    N joint inputs that differ in one action each cost one: the first layer is linear, so it is computed once and
    corrected by the difference of the own action, ``z_i = W s + sum_j U_j a_j + U_i (own_i - a_i) + e_i``.

    Args:
        agents: Whose values; up to 16.
        inputs: What is seen of a view.
        action_dim: Width D of the action features.
        hidden: Widths of the layers.
        sharing: Who uses which weights from the second layer on; ``e_i`` tells the agents apart.
        generator: Source of the initial weights.
        activation: ``relu``, ``tanh`` or ``silu``.
    """

    def __init__(
        self,
        agents: AgentSpec,
        inputs: Inputs,
        action_dim: int,
        hidden: tuple[int, ...],
        sharing: Sharing,
        generator: torch.Generator,
        activation: str,
    ) -> None:
        super().__init__()
        n, width = agents.num_agents, hidden[0]
        self.inputs = inputs
        seen, gain = n * (inputs.out_dim + 1) + (agents.state_dim or 0), relu_gain(activation)
        weight = orthogonal(1, seen + n * action_dim, width, gain, generator)[0]
        self.seen = nn.Parameter(weight[:seen].clone())
        self.chosen = nn.Parameter(weight[seen:].reshape(n, action_dim, width).clone())
        self.reader = nn.Parameter(torch.randn(n, width, generator=generator) / width**0.5)
        self.activation = ACTIVATIONS[activation]
        self.rest = MLP(width, hidden[1:], sharing, generator, activation) if len(hidden) > 1 else None
        self.readout = Linear(width if self.rest is None else self.rest.out_dim, 1, sharing, generator)

    def forward(self, view: View, action: Tensor, own: Tensor | None = None) -> Tensor:
        """Values ``[*, N]``."""
        alive: Tensor = view.alive.unsqueeze(-1)
        action = torch.where(alive, action, 0.0)
        seen: list[Tensor] = [self.inputs(view).flatten(-2), view.alive.to(view.obs.dtype)]
        if view.state is not None:
            seen.append(view.state)
        z = torch.cat(seen, -1) @ self.seen + action.flatten(-2) @ self.chosen.flatten(0, 1)  # [*, H]
        z = z.unsqueeze(-2) + self.reader
        if own is not None:
            change = torch.where(alive, own, 0.0) - action
            z = z + torch.einsum("...nd,ndh->...nh", change, self.chosen)
        h = self.activation(z)
        return self.readout(h if self.rest is None else self.rest(h, view)).squeeze(-1)


class PooledQ(nn.Module):
    """Any number of agents: each hears what the others see and do, from its neighbours or from all, and weighs its own.

    Messages carry the others' actions as they were taken; agent i's own action enters at its readout alone, so that all
    N gradients with respect to own actions cost one pass of O(N + E).

    Args:
        inputs: What is seen of a view.
        action_dim: Width D of the action features.
        hidden: Width of all layers.
        sharing: Who uses which weights.
        generator: Source of the initial weights.
        activation: ``relu``, ``tanh`` or ``silu``.
        rounds: Rounds over the links; 0 hears the mean of everyone instead.
        state: Width of the global state; 0 where there is none.
    """

    def __init__(
        self,
        inputs: Inputs,
        action_dim: int,
        hidden: int,
        sharing: Sharing,
        generator: torch.Generator,
        activation: str,
        rounds: int = 1,
        state: int = 0,
    ) -> None:
        super().__init__()
        gain = relu_gain(activation)
        self.inputs = inputs
        self.see = MLP(inputs.out_dim, (hidden,), sharing, generator, activation)
        self.tell = MLP(inputs.out_dim + action_dim, (hidden,), sharing, generator, activation)
        self.own = nn.ModuleList(Linear(hidden, hidden, sharing, generator, gain) for _ in range(rounds))
        self.heard = nn.ModuleList(Linear(hidden, hidden, sharing, generator, gain) for _ in range(rounds))
        self.join = MLP(2 * hidden + action_dim + state, (hidden,), sharing, generator, activation)
        self.readout = Linear(hidden, 1, sharing, generator)
        self.activation = ACTIVATIONS[activation]

    def forward(self, view: View, action: Tensor, own: Tensor | None = None) -> Tensor:
        """Values ``[*, N]``."""
        alive = view.alive.unsqueeze(-1)
        action = torch.where(alive, action, 0.0)
        x = self.inputs(view)
        told = self.tell(torch.cat([x, action], -1))
        h, message = self.see(x), told
        for mine, other in zip(self.own, self.heard, strict=True):
            h = self.activation(mine(h) + other(neighbour_mean(message, view.graph, view.alive)))
            message = h
        others = mean_of_others(told, view.alive)
        chosen = action if own is None else torch.where(alive, own, 0.0)
        beside = [h, others, chosen]
        if view.state is not None:
            beside.append(view.state.unsqueeze(-2).expand(*h.shape[:-1], -1))
        return self.readout(self.join(torch.cat(beside, -1))).squeeze(-1)


def mean_of_others(h: Tensor, alive: Tensor) -> Tensor:
    """``[*, N, H]`` mean of the encodings of all other living agents; zero for the only one."""
    mask = alive.unsqueeze(-1)
    count = mask.sum(-2, keepdim=True).to(h.dtype)
    mine = torch.where(mask, h, 0.0)
    return (pool(h, alive) * count - mine) / (count - 1).clamp(min=1)
