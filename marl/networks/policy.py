"""Policy: from what the agents see to the raw outputs of their action heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from envs.base import View
from envs.spec import AgentSpec
from marl.networks.heads import Head
from marl.networks.inputs import Inputs
from marl.networks.sharing import Linear, Sharing

START_GAIN = 0.01  # a policy starts near uniform (Andrychowicz et al. 2021, arXiv:2006.05990, section 3.2)


class Policy(nn.Module):
    """Inputs, a body that may use the links, and one linear readout per agent.

    Args:
        agents: Who acts.
        inputs: What is seen of a view.
        body: Module ``(x [*, N, I], view) -> [*, N, H]`` with ``out_dim = H``.
        sharing: Who uses which readout weights.
        generator: Source of the initial weights.
    """

    def __init__(
        self, agents: AgentSpec, inputs: Inputs, body: nn.Module, sharing: Sharing, generator: torch.Generator
    ):
        super().__init__()
        self.agents, self.head = agents, Head(agents)
        self.inputs, self.body = inputs, body
        self.readout = Linear(int(body.out_dim), agents.logits_dim, sharing, generator, START_GAIN)  # type: ignore[arg-type]

    def forward(
        self, view: View, hidden: Tensor | None = None, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Raw head outputs ``[*, N, K]`` and the next hidden state.

        Args:
            view: What the agents see.
            hidden: ``[*, N, H]`` recurrent state; None for a policy without memory.
            start: ``[*, N]`` bool: where the state is forgotten first, a new episode having begun.
        """
        return self.readout(self.body(self.inputs(view), view)), hidden
