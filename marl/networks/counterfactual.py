"""Counterfactual critics: what each of an agent's choices is worth, given what the others did, in one pass.

``Q_i(s, a_-i, .)`` of COMA (Foerster et al. 2018, arXiv:1705.08926, section 3.2): the own action is no input but one of
K outputs. ``(view, action, memory) -> [*, N, K]`` with actions as features ``[*, N, D]``
(:meth:`marl.networks.heads.Head.encode`); what agents put out that do not choose now is not looked at. Where policies
remember, what they do depends on their memories ``[*, N, S]`` as much as on what they see: both are shown, so that
values are those of states that lack nothing, and no sequence is unrolled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coordination.gather import neighbour_mean
from envs.base import View
from envs.spec import AgentSpec
from marl.networks.inputs import Inputs
from marl.networks.layers.mlp import ACTIVATIONS, MLP
from marl.networks.layers.sharing import Linear, Sharing, orthogonal, relu_gain
from marl.networks.qcritics import mean_of_others


class LocalCounterfactual(nn.Module):
    """The worth of each agent's choices from what its policy could see; what the others do is not looked at.

    Args:
        agents: Whose choices.
        inputs: What is seen of a view.
        body: Module ``(x [*, N, I + S], view) -> [*, N, H]`` with ``out_dim = H``; it may use the links.
        sharing: Who uses which readout weights.
        generator: Source of the initial weights.
    """

    def __init__(
        self, agents: AgentSpec, inputs: Inputs, body: nn.Module, sharing: Sharing, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.inputs, self.body = inputs, body
        self.readout = Linear(int(body.out_dim), agents.logits_dim, sharing, generator)  # type: ignore[arg-type]

    def forward(self, view: View, action: Tensor, memory: Tensor | None = None) -> Tensor:
        """Values ``[*, N, K]``."""
        return self.readout(self.body(_known(self.inputs, view, memory), view))


class JointCounterfactual(nn.Module):
    """All observations and all actions but the own side by side (and the state, where there is one).

    N joint inputs that leave out one action each cost one: the first layer is linear,
    ``z_i = W s + sum over j != i of U_j a_j + e_i``.

    Args:
        agents: Whose choices; up to 16.
        inputs: What is seen of a view.
        memory_dim: Width S of the policies' memories; 0 where there are none or none are shown.
        action_dim: Width D of the action features.
        hidden: Widths of the layers.
        sharing: Who uses which weights from the second layer on; ``e_i`` tells the agents apart.
        generator: Source of the initial weights.
        activation: ``relu``, ``tanh`` or ``silu``.
    """

    others: Tensor

    def __init__(
        self,
        agents: AgentSpec,
        inputs: Inputs,
        memory_dim: int,
        action_dim: int,
        hidden: tuple[int, ...],
        sharing: Sharing,
        generator: torch.Generator,
        activation: str,
    ) -> None:
        super().__init__()
        n, width = agents.num_agents, hidden[0]
        self.inputs = inputs
        seen = n * (inputs.out_dim + memory_dim + 1) + (agents.state_dim or 0)
        weight = orthogonal(1, seen + n * action_dim, width, relu_gain(activation), generator)[0]
        self.seen = nn.Parameter(weight[:seen].clone())
        self.chosen = nn.Parameter(weight[seen:].reshape(n, action_dim, width).clone())
        self.reader = nn.Parameter(torch.randn(n, width, generator=generator) / width**0.5)
        self.register_buffer("others", 1 - torch.eye(n), persistent=False)
        self.activation = ACTIVATIONS[activation]
        self.rest = MLP(width, hidden[1:], sharing, generator, activation) if len(hidden) > 1 else None
        self.readout = Linear(width if self.rest is None else self.rest.out_dim, agents.logits_dim, sharing, generator)

    def forward(self, view: View, action: Tensor, memory: Tensor | None = None) -> Tensor:
        """Values ``[*, N, K]``."""
        seen: list[Tensor] = [_known(self.inputs, view, memory).flatten(-2), view.alive.to(self.seen.dtype)]
        if view.state is not None:
            seen.append(view.state)
        told = torch.einsum("...nd,ndh->...nh", _chosen(view, action), self.chosen)
        z = (torch.cat(seen, -1) @ self.seen).unsqueeze(-2) + self.others @ told + self.reader
        h = self.activation(z)
        return self.readout(h if self.rest is None else self.rest(h))


class PooledCounterfactual(nn.Module):
    """Any number of agents: each weighs its choices by what it sees and what the others see and do, in O(N + E).

    Actions travel one hop and in the mean over all others, never further: over two hops the own one would come back.

    Args:
        agents: Whose choices.
        inputs: What is seen of a view.
        memory_dim: Width S of the policies' memories; 0 where there are none or none are shown.
        body: Module ``(x [*, N, I + S], view) -> [*, N, H]`` with ``out_dim = H``; it may use the links.
        action_dim: Width D of the action features.
        sharing: Who uses which weights.
        generator: Source of the initial weights.
        activation: ``relu``, ``tanh`` or ``silu``.
        links: Whether what the neighbours do is heard apart from what everyone does.
    """

    def __init__(
        self,
        agents: AgentSpec,
        inputs: Inputs,
        memory_dim: int,
        body: nn.Module,
        action_dim: int,
        sharing: Sharing,
        generator: torch.Generator,
        activation: str,
        links: bool,
    ) -> None:
        super().__init__()
        self.inputs, self.body, self.links = inputs, body, links
        width = int(body.out_dim)  # type: ignore[arg-type]
        beside = (3 if links else 2) * width + (agents.state_dim or 0)
        told = inputs.out_dim + memory_dim + action_dim
        self.tell = MLP(told, (width,), sharing, generator, activation)
        self.join = MLP(beside, (width,), sharing, generator, activation)
        self.readout = Linear(width, agents.logits_dim, sharing, generator)

    def forward(self, view: View, action: Tensor, memory: Tensor | None = None) -> Tensor:
        """Values ``[*, N, K]``."""
        x = _known(self.inputs, view, memory)
        told = self.tell(torch.cat([x, _chosen(view, action)], -1))
        h = self.body(x, view)
        beside = [h, mean_of_others(told, view.alive)]
        if self.links:
            beside.append(neighbour_mean(told, view.graph, view.alive))
        if view.state is not None:
            beside.append(view.state.unsqueeze(-2).expand(*h.shape[:-1], -1))
        return self.readout(self.join(torch.cat(beside, -1)))


CounterfactualCritic = LocalCounterfactual | JointCounterfactual | PooledCounterfactual


def _known(inputs: Inputs, view: View, memory: Tensor | None) -> Tensor:
    x = inputs(view)
    return x if memory is None else torch.cat([x, torch.where(view.alive.unsqueeze(-1), memory, 0.0)], -1)


def _chosen(view: View, action: Tensor) -> Tensor:
    return torch.where(view.acting.unsqueeze(-1), action, 0.0)
