"""HAPPO: groups of agents improve one after another, each given what the ones before it have become.

Zhong et al. 2024 (arXiv:2304.09870), Kuba et al. 2022 (arXiv:2109.11251): in random order, group g ascends the clipped
surrogate of ``M A`` with ``M = product of pi_new / pi_old`` over the agents updated before it. Where rewards are the
team's (``reward=team``) A is the joint advantage, and the exact scheme, which clipping stands for, never lets the joint
return fall; with individual rewards each agent improves its own, given what the others have become. M varies the more,
the more agents there are.

A group is who shares weights (:mod:`marl.algorithms.groups`): every agent alone with sharing=none, the environment's
groups with sharing=group. With sharing=all there is one, and HAPPO is MAPPO, bit for bit. Deviations from the papers:

* Agents of one group are updated together, each by its own ratio, as MAPPO does.
* More than ``groups`` groups are dealt evenly among as many: time grows with their number.
* Policies that listen to links depend on the others' weights too. M then takes in all other agents, since an update
  moves those not updated yet as well, and a group answers for what its messages do to every agent's surrogate. Where
  nobody listens both come to nothing: the others' ratios are one before their turn, and no gradient reaches the group.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from marl.algorithms.config import HAPPOConfig
from marl.algorithms.groups import GroupOptimiser, independent_groups, rows_of
from marl.algorithms.ppo import PPO, Samples
from marl.networks.critics import JointCritic, LocalCritic
from marl.networks.policy import Policy
from marl.rewards.signals import Rewards


class HAPPO(PPO):
    """HAPPO over all agents of an environment at once.

    Args:
        policy, critic, rewards, generator, num_envs: As for :class:`PPO`; the generator also draws the order.
        config: Settings.

    Attributes:
        members: ``[G, N]`` bool: which agents are updated together.

    Raises:
        ValueError: If agents share some weights and not others, so that no group can be updated alone.
    """

    config: HAPPOConfig
    optimiser: GroupOptimiser
    members: Tensor

    def __init__(
        self,
        policy: Policy,
        critic: LocalCritic | JointCritic,
        rewards: Rewards,
        config: HAPPOConfig,
        generator: torch.Generator,
        num_envs: int = 0,
    ) -> None:
        super().__init__(policy, critic, rewards, config, generator, num_envs)
        self.register_buffer("members", independent_groups(policy, config.groups), persistent=False)

    def make_optimiser(self) -> GroupOptimiser:
        """Policy and critic, the policy's weights apart for each group."""
        groups = independent_groups(self.policy, self.config.groups)
        rows = [rows_of(self.policy, members) for members in groups]
        return GroupOptimiser(rows, self.critic.parameters(), self.rates, self.config.max_grad_norm)

    def improve(self, samples: Samples) -> list[dict[str, Tensor]]:
        """All epochs of one group after another, in random order (read back once); the critic learns with the first."""
        count = len(self.members)
        order = torch.randperm(count, generator=self.generator, device=self.generator.device).tolist()
        records, log_ratio = [], torch.zeros_like(samples.log_prob)
        for turn, group in enumerate(order):
            if turn:
                log_ratio = self.log_ratio(samples)
            weighted = replace(samples, advantage=samples.advantage * others_ratio(log_ratio, self.members[group]))
            records += self.epochs(weighted, partial(self._update_group, group, turn == 0))
        return records

    @torch.no_grad()
    def log_ratio(self, samples: Samples) -> Tensor:
        """``[*, N]`` log-probability of what was done, now over then; zero for agents that did not choose."""
        return torch.where(samples.keep, self.evaluate(samples)[0] - samples.log_prob, 0.0)

    def _update_group(self, group: int, critic: bool, samples: Samples) -> dict[str, Tensor]:
        self.optimiser.group = group
        if critic:
            return self.update(samples)
        loss, report = self.policy_loss(samples)
        norms = self.optimiser.step({"policy": loss})
        return {name: x.detach() for name, x in {**report, **norms}.items()}


def others_ratio(log_ratio: Tensor, members: Tensor) -> Tensor:
    """The factor M of HAPPO: how much likelier what the agents outside a group did has become, themselves left out.

    Args:
        log_ratio: ``[*, N]``.
        members: ``[N]`` bool: the group.

    Returns:
        ``[*, N]``: the product over all agents that are neither in the group nor the agent itself.
    """
    outside = torch.where(members, 0.0, log_ratio)
    return (outside.sum(-1, keepdim=True) - outside).exp()
