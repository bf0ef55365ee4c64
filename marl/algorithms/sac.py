"""Soft actor-critic for many agents: MASAC with central critics, ISAC with local ones.

``J = E[Q_i - alpha log pi_i]`` with twin critics and a temperature alpha that keeps each group near an entropy target
(Haarnoja et al. 2018, arXiv:1801.01290 and 1812.05905). Discrete choices are relaxed by a straight-through
Gumbel-softmax, their entropy is exact.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from envs.base import View
from envs.spec import AgentSpec
from marl.algorithms.actorcritic import ActorCritic
from marl.algorithms.base import masked_mean
from marl.algorithms.config import SACConfig
from marl.batch import Batch
from marl.networks.heads import Kind
from marl.networks.policy import Policy


class SAC(ActorCritic[SACConfig]):
    """Soft actor-critic over all agents of an environment at once; arguments as in ActorCritic."""

    head: Kind = "squashed"
    group_of: Tensor
    wanted: Tensor

    def further_groups(self) -> dict[str, list[nn.Parameter]]:
        """The temperatures, where they are learned."""
        agents, config = self.policy.agents, self.config
        start = torch.full((len(agents.groups),), math.log(config.temperature), device=self.generator.device)
        self.log_temperature = nn.Parameter(start, requires_grad=config.learn_temperature)
        self.register_buffer("group_of", torch.from_numpy(agents.group_of).long(), persistent=False)
        self.register_buffer("wanted", torch.tensor(_wanted(agents, config)), persistent=False)
        return {"temperature": [self.log_temperature]} if config.learn_temperature else {}

    @property
    def looking_ahead(self) -> Policy:
        """The policy itself: it has no target."""
        return self.policy

    @property
    def temperature(self) -> Tensor:
        """``[N]`` weight of the entropy of each agent."""
        return self.log_temperature.exp()[self.group_of]

    def successor_values(self, raw: Tensor, view: View) -> Tensor:
        """The lower target value of sampled actions, plus their entropy's worth."""
        action, _, entropy = self.policy.head.relax(raw, view.action_mask, self.generator)
        bonus = torch.where(view.acting, self.temperature * entropy, 0.0)
        return self.lowest(self.target_critics, view, action) + bonus

    def policy_losses(self, batch: Batch, action: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Minus value and entropy; the temperatures go up where the entropy is below its target."""
        raw, counts = self.outputs_now(self.policy, batch), self.counts(batch) & batch.keep
        own, _, entropy = self.policy.head.relax(raw, batch.now().action_mask, self.generator)
        gain = self.chosen_value(batch, action, own) + self.temperature.detach() * entropy
        losses = {"policy": -masked_mean(gain, counts)}
        if self.config.learn_temperature:
            surplus = entropy.detach() - self.wanted
            losses["temperature"] = masked_mean(self.log_temperature[self.group_of] * surplus, counts)
        report = {
            "policy_loss": losses["policy"],
            "entropy": masked_mean(entropy, counts),
            "temperature": self.temperature.detach().mean(),
        }
        return losses, report


def _wanted(agents: AgentSpec, config: SACConfig) -> list[float]:
    """``[N]`` the entropy that each agent's policy shall have."""
    wanted: list[float] = []
    for group in agents.groups:
        one = 0.0
        if group.action is not None and group.action.kind == "box":
            one = -config.entropy_target * group.action.components
        elif group.action is not None:
            one = config.discrete_entropy_target * sum(math.log(size) for size in group.action.sizes)
        wanted += [one] * group.size
    return wanted
