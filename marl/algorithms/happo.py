"""HAPPO: groups of agents improve one after another, each given what the ones before it have become.

Zhong et al. 2024 (arXiv:2304.09870), Kuba et al. 2022 (arXiv:2109.11251): in random order, group g ascends the clipped
surrogate of ``M A`` with ``M = product of pi_new / pi_old`` over the agents updated before it; then no update undoes
another, and where rewards are the team's (``reward=team``) the joint return cannot fall.

A group is what shares weights: every agent with sharing=none, the environment's groups with sharing=group. With
sharing=all there is one, and HAPPO is MAPPO, bit for bit. Deviations from the papers:

* Agents of one group are updated together, each by its own ratio, as MAPPO does.
* Sets of weights beyond ``groups`` are dealt evenly among them: time grows with their number.
* Policies that listen to links depend on the others' weights too. M then takes in all other agents, since an update
  moves those not updated yet as well, and a group answers for what its messages do to every agent's surrogate. Where
  nobody listens both come to nothing: the others' ratios are one before their turn, and no gradient reaches the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from marl.algorithms.base import Optimiser
from marl.algorithms.config import HAPPOConfig
from marl.algorithms.ppo import PPO, Samples
from marl.networks.critics import JointCritic, LocalCritic
from marl.networks.inputs import Inputs
from marl.networks.layers.sharing import LayerNorm, Linear, Sharing
from marl.networks.policy import Policy
from marl.rewards.signals import Rewards

Rows = tuple[nn.Parameter, slice]  # rows of a stacked parameter that belong to one group


class HAPPO(PPO):
    """HAPPO over all agents of an environment at once.

    Args:
        policy, critic, rewards, generator, num_envs: As for :class:`PPO`; the generator also draws the order.
        config: Settings.

    Attributes:
        members: ``[G, N]`` bool: which agents are updated together.

    Raises:
        ValueError: If agents of different groups share a weight.
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
        owner = torch.tensor(policy.readout.sharing.owner)
        members = torch.stack([(owner >= s.start) & (owner < s.stop) for s in self._sets()])
        self.register_buffer("members", members, persistent=False)

    def make_optimiser(self) -> GroupOptimiser:
        """Policy and critic, the policy's weights apart for each group."""
        sharing = self.policy.readout.sharing
        rows = [group_rows(self.policy, sharing, sets) for sets in self._sets()]
        return GroupOptimiser(rows, self.critic.parameters(), self.rates, self.config.max_grad_norm)

    def improve(self, samples: Samples) -> list[dict[str, Tensor]]:
        """All epochs of one group after another, in random order; the critic learns beside the first."""
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

    def _sets(self) -> list[slice]:
        """The sets of weights of each group."""
        copies = self.policy.readout.sharing.copies
        parts = torch.arange(copies).tensor_split(min(self.config.groups, copies))
        return [slice(int(part[0]), int(part[-1]) + 1) for part in parts]


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


class GroupOptimiser(Optimiser):
    """Adam whose policy weights stay stacked, with moments and step counts of each group's own.

    Attributes:
        group: The one whose weights move; those of the others stay as they are, bit for bit.

    Args:
        rows: For each group, its rows of every parameter of the policy.
        critic: Parameters of the critic.
        learning_rate, max_grad_norm: As for :class:`Optimiser`.
    """

    group: int = 0

    def __init__(
        self,
        rows: Sequence[Sequence[Rows]],
        critic: Iterable[nn.Parameter],
        learning_rate: Mapping[str, float],
        max_grad_norm: float | None,
    ) -> None:
        self.rows = rows
        self.parts = [[nn.Parameter(whole.data[where]) for whole, where in group] for group in rows]  # of one storage
        groups = {"policy": [part for group in self.parts for part in group], "critic": critic}
        super().__init__(groups, learning_rate, max_grad_norm)

    def _backward(self, loss: Tensor) -> None:
        for whole, _ in self.rows[self.group]:
            whole.grad = None
        super()._backward(loss)
        for (whole, where), part in zip(self.rows[self.group], self.parts[self.group], strict=True):
            part.grad = None if whole.grad is None else whole.grad[where]


def group_rows(policy: Policy, sharing: Sharing, sets: slice) -> list[Rows]:
    """The rows of every parameter of a policy that belong to some sets of weights.

    Raises:
        ValueError: If a parameter belongs to others as well.
    """
    if sets == slice(0, sharing.copies):
        return [(p, slice(None)) for p in policy.parameters()]
    users = [agent for agent, owner in enumerate(sharing.owner) if sets.start <= owner < sets.stop]
    agents = slice(users[0], users[-1] + 1)
    found: list[Rows] = []
    for path, module in policy.named_modules():
        for name, p in module.named_parameters(recurse=False):
            if isinstance(module, Linear | LayerNorm) and p.shape[0] == sharing.copies:
                found.append((p, sets))
            elif isinstance(module, Inputs) and agents.stop - agents.start == len(users):
                found.append((p, agents))
            else:
                raise ValueError(
                    f"happo: the policy's {path}.{name} is used by agents of several groups, and no group could be "
                    "updated alone; use algorithm=mappo, or a policy of mlp or mean or sum layers"
                )
    return found
