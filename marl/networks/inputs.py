"""What every network sees of a view: observations of living agents, normalised, with an identity attached."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from envs.base import View
from envs.spec import AgentSpec
from marl.networks.config import Identity
from marl.networks.layers.normalise import RunningMoments

MAX_ONEHOT = 64  # above this an agent's one-hot would dominate the input; use an embedding
EMBEDDING_DIM = 16


class Inputs(nn.Module):
    """Views to network inputs ``[*, N, out_dim]``; the rows of dead agents are zero, whatever their slots hold.

    Args:
        agents: Who is seen.
        identity: ``none`` leaves the network equivariant to permutations; ``onehot`` (up to 64 agents) and
            ``embedding`` tell agents apart that share weights.
        normalise: Whether observations are normalised by running moments, updated by the algorithm.
        generator: Source of the initial embedding.
    """

    identity: Tensor | None

    def __init__(self, agents: AgentSpec, identity: Identity, normalise: bool, generator: torch.Generator) -> None:
        super().__init__()
        n = agents.num_agents
        if identity == "onehot" and n > MAX_ONEHOT:
            raise ValueError(f"identity: onehot is for up to {MAX_ONEHOT} agents, got {n}; use embedding or none")
        self.moments = RunningMoments(agents, agents.obs_dim) if normalise else None
        if identity == "onehot":
            self.register_buffer("identity", torch.eye(n), persistent=False)
        elif identity == "embedding":
            self.identity = nn.Parameter(torch.randn(n, EMBEDDING_DIM, generator=generator) / EMBEDDING_DIM**0.5)
        else:
            self.identity = None
        self.out_dim = agents.obs_dim + (0 if self.identity is None else self.identity.shape[-1])

    def forward(self, view: View) -> Tensor:
        """The inputs of all agents in ``view``."""
        x = view.obs if self.moments is None else self.moments.normalise(view.obs)
        x = torch.where(view.alive.unsqueeze(-1), x, 0.0)
        if self.identity is None:
            return x
        return torch.cat([x, self.identity.expand(*x.shape[:-1], -1)], -1)
