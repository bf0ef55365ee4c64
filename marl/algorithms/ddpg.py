"""Deterministic policy gradients for many agents: MADDPG, IDDPG and MATD3, which differ by settings and critic.

``y = r + gamma Q'(s', mu'(s'))`` and ``grad J_i = E[grad_{a_i} Q_i(s, a_1 .. a_N) grad mu_i]`` (Lowe et al. 2017,
arXiv:1706.02275). MATD3 adds a second critic, noise on target actions and fewer policy updates (Fujimoto et al. 2018,
arXiv:1802.09477; Ackermann et al. 2019, arXiv:1910.01465). Discrete choices are relaxed by a straight-through
Gumbel-softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from envs.base import View
from marl.algorithms.actorcritic import ActorCritic
from marl.algorithms.base import masked_mean
from marl.algorithms.config import DDPGConfig
from marl.batch import Batch
from marl.networks.heads import Kind
from marl.networks.policy import Policy
from marl.rewards.signals import Rewards


class DDPG(ActorCritic[DDPGConfig]):
    """Deep deterministic policy gradients over all agents of an environment at once; arguments as in ActorCritic."""

    head: Kind = "deterministic"

    def __init__(
        self,
        policy: Policy,
        critics: Sequence[nn.Module],
        rewards: Rewards,
        config: DDPGConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__(policy, critics, rewards, config, generator)
        self.target_policy: Policy = self.target_of(policy)
        self.policy.head.set_noise(config.noise_end)

    @property
    def looking_ahead(self) -> Policy:
        """The target policy."""
        return self.target_policy

    def schedule(self, progress: float) -> None:
        """Linear decay of the step size and of the exploration noise."""
        super().schedule(progress)
        c = self.config
        self.policy.head.set_noise(c.noise + (c.noise_end - c.noise) * progress)

    def successor_values(self, raw: Tensor, view: View) -> Tensor:
        """The lower target value of the target policy's smoothed actions."""
        c, head = self.config, self.policy.head
        action, _, _ = head.relax(raw, view.action_mask, self.generator)
        if c.smoothing > 0:
            noise = torch.empty_like(action).normal_(0, c.smoothing, generator=self.generator)
            noise = noise.clamp(-c.smoothing_clip, c.smoothing_clip)
            action = torch.where(head.real_features, (action + noise).clamp(-1, 1), action)
        return self.lowest(self.target_critics, view, action)

    def policy_losses(self, batch: Batch, action: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Minus the value of the policy's own actions, and a little of its raw outputs' squares."""
        if (self.updates + 1) % self.config.policy_every:
            return {}, {}
        raw, counts = self.outputs_now(self.policy, batch), self.counts(batch) & batch.keep
        own, _, entropy = self.policy.head.relax(raw, batch.now().action_mask, self.generator)
        value = masked_mean(self.chosen_value(batch, action, own), counts)
        size = masked_mean(raw.square().mean(-1), counts)
        report = {"policy_loss": -value, "entropy": masked_mean(entropy, counts)}
        return {"policy": -value + self.config.regularise * size}, report
