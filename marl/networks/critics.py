"""V-critics: one evaluation per state gives the values of all N agents, ``(view, hidden, start) -> [*, N], hidden``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from envs.base import View
from envs.spec import AgentSpec
from marl.networks.inputs import Inputs
from marl.networks.layers.mlp import MLP
from marl.networks.layers.recurrent import Memory
from marl.networks.layers.sharing import Linear, Sharing
from marl.networks.layers.transformer import AttentionPool
from marl.networks.trunk import Trunk

MAX_JOINT = 16  # up to here a central critic reads all observations side by side


class LocalCritic(nn.Module):
    """Each agent's value from what its own policy could see: its observation, and its links if the body uses them.

    Args:
        trunk: From views to encodings.
        sharing: Who uses which readout weights.
        generator: Source of the initial weights.
        pooled: Whether the mean of all living agents' encodings, and the global state where there is one, are put
            beside each agent's own, so that every value depends on the whole population, in any order and of any size.
        state: Width S of the global state; 0 where there is none.
        attention: Whether encodings are pooled by a learned weighting in place of their mean.
    """

    def __init__(
        self,
        trunk: Trunk,
        sharing: Sharing,
        generator: torch.Generator,
        pooled: bool = False,
        state: int = 0,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.trunk, self.pooled = trunk, pooled
        width = trunk.out_dim
        self.pool = AttentionPool(width, sharing, generator) if attention else pool
        self.mixer = MLP(2 * width + state, (width,), sharing, generator, "relu") if pooled else None
        self.readout = Linear(width, 1, sharing, generator)
        self.state_dim = trunk.state_dim

    def forward(
        self, view: View, hidden: Tensor | None = None, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Values ``[*, N]`` and the next memory."""
        h, hidden = self.trunk(view, hidden, start)
        return self._value(view, h), hidden

    def unroll(self, view: View, hidden: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor | None]:
        """Values and memories of T steps, ``[T, *, N, ...]``."""
        h, hidden = self.trunk.unroll(view, hidden, start)
        return self._value(view, h), hidden

    def _value(self, view: View, h: Tensor) -> Tensor:
        if self.mixer is not None:
            beside = [h, self.pool(h, view.alive).expand_as(h)]
            if view.state is not None:
                beside.append(view.state.unsqueeze(-2).expand(*h.shape[:-1], -1))
            h = self.mixer(torch.cat(beside, -1))
        return self.readout(h).squeeze(-1)


class JointCritic(nn.Module):
    """All observations side by side (and the global state, where there is one) to the values of all agents at once.

    Args:
        agents: Whose values; up to 16.
        inputs: What is seen of a view.
        hidden: Widths of the layers.
        generator: Source of the initial weights.
        activation: ``relu``, ``tanh`` or ``silu``.
        memory: Class and width of a memory of the whole team; None for none.
    """

    def __init__(
        self,
        agents: AgentSpec,
        inputs: Inputs,
        hidden: tuple[int, ...],
        generator: torch.Generator,
        activation: str,
        memory: tuple[type[Memory], int] | None = None,
    ) -> None:
        super().__init__()
        n = agents.num_agents
        one = Sharing([0], "all")  # the whole team is one reader
        self.inputs = inputs
        self.body = MLP(n * (inputs.out_dim + 1) + (agents.state_dim or 0), hidden, one, generator, activation)
        self.memory = None if memory is None else memory[0](self.body.out_dim, memory[1], one, generator)
        width = self.body.out_dim if self.memory is None else self.memory.out_dim
        self.readout = Linear(width, n, one, generator)
        self.state_dim = 0 if self.memory is None else self.memory.state_dim

    def forward(
        self, view: View, hidden: Tensor | None = None, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Values ``[*, N]`` and the team's next memory ``[*, 1, S]``."""
        h = self._encode(view)
        if self.memory is not None:
            blank = torch.zeros_like(view.alive[..., 0]) if start is None else start
            h, hidden = self.memory(h, self._remembered(h, hidden), blank.unsqueeze(-1))
        return self.readout(h).squeeze(-2), hidden

    def unroll(self, view: View, hidden: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor | None]:
        """Values and memories of T steps, ``[T, *, N]`` and ``[T, *, 1, S]``."""
        h = self._encode(view)
        if self.memory is not None:
            h, hidden = self.memory.unroll(h, self._remembered(h[0], hidden), start.unsqueeze(-1))
        return self.readout(h).squeeze(-2), hidden

    def _encode(self, view: View) -> Tensor:
        seen = [self.inputs(view).flatten(-2), view.alive.to(view.obs.dtype)]
        if view.state is not None:
            seen.append(view.state)
        return self.body(torch.cat(seen, -1).unsqueeze(-2))  # [*, 1, H]

    def _remembered(self, h: Tensor, hidden: Tensor | None) -> Tensor:
        return h.new_zeros(*h.shape[:-1], self.state_dim) if hidden is None else hidden


def pool(h: Tensor, alive: Tensor) -> Tensor:
    """``[*, 1, H]`` mean of the encodings ``[*, N, H]`` of the living agents; zero where nobody lives."""
    mask = alive.unsqueeze(-1)
    return torch.where(mask, h, 0.0).sum(-2, keepdim=True) / mask.sum(-2, keepdim=True).clamp(min=1)
