"""Policy: from what the agents see to the raw outputs of their action heads, and to actions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from envs.base import View
from envs.spec import AgentSpec
from marl.networks.heads import Head, Kind
from marl.networks.layers.sharing import Linear, Sharing
from marl.networks.trunk import Trunk

START_GAIN = 0.01  # a policy starts near uniform (Andrychowicz et al. 2021, arXiv:2006.05990, section 3.2)


class Decision(NamedTuple):
    """What the agents chose: ``action [*, N, A]``, ``log_prob [*, N]``, and what they remember, ``[*, N, S]``."""

    action: Tensor
    log_prob: Tensor
    hidden: Tensor | None


class Policy(nn.Module):
    """A trunk, one linear readout per agent, and the head that makes actions of it.

    Args:
        agents: Who acts.
        trunk: From views to encodings.
        sharing: Who uses which readout weights.
        generator: Source of the initial weights.
        head: Kind of the action distributions.
        duelling: Whether the outputs are a state's worth plus advantages of mean zero (arXiv:1511.06581).

    Attributes:
        state_dim: Width S of what each agent remembers; 0 without memory.
    """

    def __init__(
        self,
        agents: AgentSpec,
        trunk: Trunk,
        sharing: Sharing,
        generator: torch.Generator,
        head: Kind = "stochastic",
        duelling: bool = False,
    ) -> None:
        super().__init__()
        self.agents, self.trunk, self.head = agents, trunk, Head(agents, head)
        self.readout = Linear(trunk.out_dim, agents.logits_dim, sharing, generator, START_GAIN)
        self.worth = Linear(trunk.out_dim, 1, sharing, generator) if duelling else None
        self.state_dim = trunk.state_dim

    def forward(
        self, view: View, hidden: Tensor | None = None, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Raw head outputs ``[*, N, K]`` and the next memory; arguments as in :meth:`Trunk.forward`."""
        h, hidden = self.trunk(view, hidden, start)
        return self._read(h), hidden

    def unroll(self, view: View, hidden: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor | None]:
        """Raw head outputs and memories of T steps, ``[T, *, N, ...]``; arguments as in :meth:`Trunk.unroll`."""
        h, hidden = self.trunk.unroll(view, hidden, start)
        return self._read(h), hidden

    def _read(self, h: Tensor) -> Tensor:
        raw = self.readout(h)
        return raw if self.worth is None else self.worth(h) + raw - raw.mean(-1, keepdim=True)

    def act(
        self,
        view: View,
        hidden: Tensor | None = None,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Decision:
        """Choose: sampled from ``generator``, or greedily where it is None."""
        if hidden is None and self.state_dim:
            hidden = self.trunk.initial(view.alive.shape, view.obs.device, generator)
        raw, hidden = self(view, hidden, start)
        return Decision(*self.head.sample(raw, view.action_mask, generator), hidden)
