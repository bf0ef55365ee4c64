"""Reward scaling by the running deviation of the discounted return."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from envs.spec import AgentSpec
from marl.networks.layers.normalise import RunningMoments


class RewardScale(nn.Module):
    """``r / std(G)`` with ``G_t = gamma G_{t-1} + r_t`` per copy and agent, forgotten where an episode is cut.

    The scaling of Engstrom et al. 2020 (arXiv:2005.12729, section 3); the mean is left alone, so that signs keep their
    meaning.

    Args:
        agents: Whose rewards; groups are scaled apart.
        num_envs: Number of copies B.
        gamma: Discount of the return.
    """

    running: Tensor

    def __init__(self, agents: AgentSpec, num_envs: int, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.moments = RunningMoments(agents, 1)
        self.register_buffer("running", torch.zeros(num_envs, agents.num_agents))

    @torch.no_grad()
    def forward(self, reward: Tensor, cut: Tensor, keep: Tensor, fresh: Tensor) -> Tensor:
        """Scaled rewards ``[T, B, N]``.

        Args:
            reward: ``[T, B, N]``.
            cut: ``[T, B, N]`` bool: the return is forgotten after this step.
            keep: ``[T, B, N]`` bool: other entries leave the moments alone.
            fresh: ``[B]`` bool: copies whose first step begins an episode, however the one before ended.
        """
        returns = torch.empty_like(reward)
        self.running.masked_fill_(fresh.unsqueeze(-1), 0.0)
        for t in range(reward.shape[0]):
            returns[t] = self.gamma * self.running + reward[t]
            self.running.copy_(torch.where(cut[t], 0.0, returns[t]))
        self.moments.update(returns.unsqueeze(-1), keep)
        return reward / self.moments.scale().squeeze(-1)
