"""From the raw rewards of a batch to the ones learned from: coordination's signals, then scaling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coordination.signals import SharedReward, Trajectory
from envs.spec import AgentSpec
from marl.batch import Batch
from marl.rewards.normalise import RewardScale


class Rewards(nn.Module):
    """The chain of reward stages of a learner, applied once per rollout.

    Args:
        agents: Whose rewards.
        shared: Stages of :mod:`coordination.signals`; an empty chain leaves raw rewards.
        scale: Scaling by the running deviation of the return, or None.
    """

    def __init__(self, agents: AgentSpec, shared: SharedReward, scale: RewardScale | None = None) -> None:
        super().__init__()
        self.shared, self.scale = shared, scale
        self.team = torch.tensor(agents.team)  # stays on the CPU: stages read it there

    @property
    def needs_trajectory(self) -> bool:
        """Whether some stage must see whole trajectories, not single steps."""
        return any(stage.needs == "trajectory" for stage in self.shared.stages)

    def forward(self, batch: Batch) -> Tensor:
        """Rewards ``[T, B, N]`` to learn from."""
        alive = batch.view.alive[:-1]
        reward = torch.where(alive, batch.reward, 0.0)  # an empty slot may hold anything
        if self.shared.stages:
            reward = torch.where(alive, self.shared(trajectory(batch, self.team)).reward, 0.0)
        if self.scale is not None:
            reward = self.scale(reward, batch.cut, batch.keep, batch.start[0])
        return reward


def trajectory(batch: Batch, team: Tensor) -> Trajectory:
    """A rollout as the context of reward stages."""
    view = batch.now()
    return Trajectory(
        reward=batch.reward,
        action=batch.action,
        alive=view.alive,
        acting=view.acting,
        terminated=batch.terminated,
        cut=batch.cut,
        obs=view.obs,
        graph=view.graph,
        team=team,
        next_obs=batch.successor(batch.view.obs, None if batch.final is None else batch.final.obs),
        log_prob=batch.log_prob,
        factors=batch.factors,
        info=batch.info,
    )
