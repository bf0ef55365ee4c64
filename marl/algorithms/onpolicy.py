"""OnPolicy: what all learners from fresh rollouts share: units of values, the optimiser, schedules, minibatches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from coordination import tree
from marl.algorithms.base import Algorithm, Optimiser, masked_mean
from marl.algorithms.config import OnPolicyConfig
from marl.networks.layers.normalise import RunningMoments
from marl.networks.policy import Policy
from marl.rewards.signals import Rewards

VALUE_DECAY = 0.99  # the past's weight at each iteration in the moments of value targets: they follow the policy
TINY = 1e-8  # below this a variance says nothing

C = TypeVar("C", bound=OnPolicyConfig)
S = TypeVar("S")


class OnPolicy(Algorithm, Generic[C]):
    """Learns from each rollout once, with a critic beside the policy.

    Args:
        policy: Who acts.
        critic: What tells the policy how well it did.
        rewards: Raw rewards to the ones learned from.
        config: Settings.
        generator: Source of the minibatches.
    """

    learners: Tensor

    def __init__(
        self, policy: Policy, critic: nn.Module, rewards: Rewards, config: C, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.policy, self.critic, self.rewards = policy, critic, rewards
        self.register_buffer("learners", torch.tensor(policy.agents.learners), persistent=False)
        self.config, self.generator = config, generator
        self.moments = RunningMoments(policy.agents, 1, VALUE_DECAY) if config.normalise_value else None
        self.entropy = config.entropy
        self.optimiser = self.make_optimiser()

    @property
    def rates(self) -> dict[str, float]:
        """Step sizes of policy and critic at the start."""
        rate = self.config.learning_rate
        return {"policy": rate, "critic": self.config.critic_learning_rate or rate}

    def make_optimiser(self) -> Optimiser:
        """Policy and critic, each with its own loss."""
        groups = {"policy": self.policy.parameters(), "critic": self.critic.parameters()}
        return Optimiser(groups, self.rates, self.config.max_grad_norm)

    def schedule(self, progress: float) -> None:
        """Linear decay of the step sizes and of the entropy bonus."""
        c = self.config
        self.optimiser.scale_learning_rate(1 + (c.learning_rate_end - 1) * progress)
        if c.entropy_end is not None:
            self.entropy = c.entropy + (c.entropy_end - c.entropy) * progress

    def in_reward_units(self, output: Tensor) -> Tensor:
        """Critic outputs ``[*, N]`` as values: times the deviation plus the mean of past targets."""
        return output if self.moments is None else self.moments.denormalise(output.unsqueeze(-1)).squeeze(-1)

    @torch.no_grad()
    def in_critic_units(self, target: Tensor, alive: Tensor) -> Tensor:
        """Targets ``[*, N]`` as the critic should put them out, their moments over the living taken in first."""
        if self.moments is None:
            return target
        self.moments.update(target.unsqueeze(-1), alive)
        return self.moments.normalise(target.unsqueeze(-1), limit=None).squeeze(-1)

    def minibatches(self, samples: S, count: int, axis: int = 0) -> Iterable[S]:
        """Parts of the samples, ``count`` along a leading axis, in random order."""
        if self.config.minibatches == 1:
            return [samples]
        order = torch.randperm(count, generator=self.generator, device=self.generator.device)
        parts = order.tensor_split(min(self.config.minibatches, count))
        return (tree.index(samples, (*[slice(None)] * axis, part)) for part in parts)


def masked_var(x: Tensor, mask: Tensor) -> Tensor:
    """Variance of the entries of ``x`` where ``mask`` holds."""
    return masked_mean((x - masked_mean(x, mask)).square(), mask)


def explained_variance(value: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Share of the targets' variance that values account for where ``mask`` holds; zero where there is none."""
    spread, rest = masked_var(target, mask), masked_var(target - value, mask)
    return torch.where(spread > TINY, 1 - rest / spread.clamp(min=TINY), 0.0)
