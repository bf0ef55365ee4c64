"""V-critics: one evaluation per state gives the values of all N agents, ``(view) -> [*, N]``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from envs.base import View
from envs.spec import AgentSpec
from marl.networks.inputs import Inputs
from marl.networks.mlp import MLP
from marl.networks.sharing import Linear, Sharing

MAX_JOINT = 16  # up to here a central critic reads all observations side by side


class LocalCritic(nn.Module):
    """Each agent's value from what its own policy could see: its observation, and its links if the body uses them.

    Args:
        agents: Whose values.
        inputs: What is seen of a view.
        body: Module ``(x [*, N, I], view) -> [*, N, H]`` with ``out_dim = H``.
        sharing: Who uses which readout weights.
        generator: Source of the initial weights.
        pooled: Whether the mean of all living agents' encodings is put beside each agent's own, so that every value
            depends on the whole population, in any order and of any size.
    """

    def __init__(
        self,
        agents: AgentSpec,
        inputs: Inputs,
        body: nn.Module,
        sharing: Sharing,
        generator: torch.Generator,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.body, self.pooled = inputs, body, pooled
        width = int(body.out_dim)  # type: ignore[arg-type]
        self.mixer = MLP(2 * width, (width,), sharing, generator, "relu") if pooled else None
        self.readout = Linear(width, 1, sharing, generator)

    def forward(self, view: View) -> Tensor:
        """Values ``[*, N]``."""
        h = self.body(self.inputs(view), view)
        if self.mixer is not None:
            alive = view.alive.unsqueeze(-1)
            total = torch.where(alive, h, 0.0).sum(-2, keepdim=True)
            mean = total / alive.sum(-2, keepdim=True).clamp(min=1)
            h = self.mixer(torch.cat([h, mean.expand_as(h)], -1))
        return self.readout(h).squeeze(-1)


class JointCritic(nn.Module):
    """All observations side by side (and the global state, where there is one) to the values of all agents at once.

    Args:
        agents: Whose values; up to 16.
        inputs: What is seen of a view.
        hidden: Widths of the layers.
        generator: Source of the initial weights.
        activation: ``relu``, ``tanh`` or ``silu``.
    """

    def __init__(
        self, agents: AgentSpec, inputs: Inputs, hidden: tuple[int, ...], generator: torch.Generator, activation: str
    ) -> None:
        super().__init__()
        n = agents.num_agents
        one = Sharing([0], "all")  # the whole team is one reader
        self.inputs = inputs
        self.body = MLP(n * (inputs.out_dim + 1) + (agents.state_dim or 0), hidden, one, generator, activation)
        self.readout = Linear(self.body.out_dim, n, one, generator)

    def forward(self, view: View) -> Tensor:
        """Values ``[*, N]``."""
        seen = [self.inputs(view).flatten(-2), view.alive.to(view.obs.dtype)]
        if view.state is not None:
            seen.append(view.state)
        joint = torch.cat(seen, -1).unsqueeze(-2)  # [*, 1, ...]
        return self.readout(self.body(joint)).squeeze(-2)
