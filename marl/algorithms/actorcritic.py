"""What off-policy actors with Q-critics share: critics and their targets, and one update of both sides."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from coordination import rng
from envs.base import View
from marl.algorithms.base import Optimiser, Setting, frozen, masked_mean
from marl.algorithms.config import ActorCriticConfig
from marl.algorithms.offpolicy import OffPolicy
from marl.batch import Batch
from marl.networks.build import build_policy, build_q_critic
from marl.networks.config import NetworkConfig
from marl.networks.heads import Kind
from marl.networks.policy import Policy
from marl.networks.qcritics import QCritic
from marl.returns import n_step
from marl.rewards.signals import Rewards

A = TypeVar("A", bound=ActorCriticConfig)


class ActorCritic(OffPolicy[A]):
    """A policy that follows the gradient of Q-critics, which learn from replay.

    Each agent's policy gradient looks at its own action alone; what the others did is taken from the replay (Lowe et
    al. 2017, arXiv:1706.02275, eq. 5).

    Args:
        policy: Who acts.
        critics: One Q-critic, or two of which the lower is believed.
        rewards: Raw rewards to the ones learned from.
        config: Settings.
        generator: Source of the draws.
    """

    head: Kind  # of the policy
    learners: Tensor

    def __init__(
        self, policy: Policy, critics: Sequence[nn.Module], rewards: Rewards, config: A, generator: torch.Generator
    ) -> None:
        super().__init__(policy, rewards, config, generator)
        self.critics = nn.ModuleList(critics)
        self.target_critics = cast(nn.ModuleList, self.target_of(self.critics))
        self.register_buffer("learners", torch.tensor(policy.agents.learners), persistent=False)
        groups: dict[str, Any] = {
            "policy": policy.parameters(),
            "critic": self.critics.parameters(),
            **self.further_groups(),
        }
        rates = dict.fromkeys(groups, config.learning_rate)
        rates["critic"] = config.critic_learning_rate or config.learning_rate
        self.optimiser = Optimiser(groups, rates, config.max_grad_norm)

    @classmethod
    def build(cls, config: A, network: NetworkConfig, setting: Setting) -> ActorCritic[A]:
        """The learner of a configuration, with fresh networks."""
        agents, device = setting.agents, setting.device
        initial = rng.generator(setting.seed, "initial")
        policy = build_policy(network, agents, initial, cls.head).to(device)
        features = policy.head.features_dim
        critics = [
            build_q_critic(network, agents, features, initial).to(device) for _ in range(2 if config.twin else 1)
        ]
        rewards = Rewards(agents, setting.shared)
        return cls(policy, critics, rewards, config, rng.generator(setting.seed, "learn", device=device)).to(device)

    def further_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters besides those of policy and critics, made here, by name of their group."""
        return {}

    @abstractmethod
    def policy_losses(self, batch: Batch, action: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of the policy's side by parameter group, and what to report; no losses where it is not its turn.

        Args:
            batch: Sequences ``[L, M]``.
            action: ``[L, M, N, D]`` features of the actions taken.
        """

    @abstractmethod
    def successor_values(self, raw: Tensor, view: View) -> Tensor:
        """Values ``[*, N]`` of successors, from the raw outputs there of :attr:`looking_ahead`."""

    @property
    @abstractmethod
    def looking_ahead(self) -> Policy:
        """The policy that acts in successors."""

    def update(self, batch: Batch, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """One step of the critics and, when it is its turn, of the policy."""
        now, action, target = batch.now(), self.policy.head.encode(batch.action), self.target(batch)
        counts = self.counts(batch)
        loss, errors = torch.zeros((), device=weight.device), torch.zeros_like(target)
        for critic in self.critics:
            error = critic(now, action) - target
            loss = loss + masked_mean(weight.unsqueeze(-1) * self.value_loss(error), counts)
            errors = errors + torch.where(counts, error.detach().abs(), 0.0) / len(self.critics)
        losses, report = self.policy_losses(batch, action)
        norms = self.optimiser.step({"critic": loss, **losses})
        report |= {"value_loss": loss, "error": masked_mean(errors, counts), "value": masked_mean(target, counts)}
        return {**report, **norms}, errors.sum((0, -1)) / counts.sum((0, -1)).clamp(min=1)

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """What the critics should say of the actions taken, ``[L, M, N]``."""
        raw = self.outputs(self.looking_ahead, batch)
        later = self.successor_values(raw.later, batch.later())
        final = None if raw.final is None or batch.final is None else self.successor_values(raw.final, batch.final)
        reward = torch.where(batch.now().alive, self.reward(batch), 0.0)
        following = batch.merge(later, final)
        return n_step(reward, following, batch.terminated, batch.cut, self.config.gamma, self.config.n_step)

    def value(self, view: View) -> Tensor:
        """Values ``[*, N]`` of everyone's greedy actions."""
        head = self.policy.head
        action, _ = head.sample(self.policy(view)[0], view.action_mask)
        return self.lowest(self.critics, view, head.encode(action))

    def counts(self, batch: Batch) -> Tensor:
        """``[L, M, N]`` bool: agents whose values are learned; those that wait for their turn are among them."""
        return batch.now().alive & self.learners & self.counted(batch)

    def lowest(self, critics: nn.ModuleList, view: View, action: Tensor, own: Tensor | None = None) -> Tensor:
        """``[*, N]`` the lower value of the critics."""
        values = [cast(QCritic, critic)(view, action, own) for critic in critics]
        return values[0] if len(values) == 1 else torch.minimum(*values)

    def chosen_value(self, batch: Batch, action: Tensor, own: Tensor) -> Tensor:
        """``[L, M, N]`` values of each agent's new action among the others' old ones; gradients reach ``own`` alone."""
        with frozen(self.critics):
            return self.lowest(self.critics, batch.now(), action, own)
