"""OffPolicy: what all learners from replay share: warm-up, drawing, updates, targets, and what a checkpoint holds."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from marl.algorithms.base import Algorithm, mean_of_records
from marl.algorithms.config import OffPolicyConfig
from marl.batch import Batch
from marl.networks.policy import Policy
from marl.replay.samplers import Prioritised, Uniform
from marl.rewards.signals import Rewards


class Outputs(NamedTuple):
    """Network outputs in the views stored next ``[L, M, ...]`` and in the successors stored apart ``[R, ...]``."""

    later: Tensor
    final: Tensor | None


C = TypeVar("C", bound=OffPolicyConfig)


class OffPolicy(Algorithm, Generic[C]):
    """Keeps what it sees and learns from draws of it.

    A subclass says in :meth:`update` how one draw improves the networks.

    Args:
        policy: Who acts.
        rewards: Raw rewards to the ones learned from; the replay keeps raw ones.
        config: Settings.
        generator: Source of the draws.
    """

    def __init__(
        self,
        policy: Policy,
        rewards: Rewards,
        config: C,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.policy, self.rewards, self.config, self.generator = policy, rewards, config, generator
        self.replay: Uniform = (
            Uniform(config.capacity, config.length)
            if config.priority is None
            else Prioritised(config.capacity, config.length, config.priority)
        )
        self.env_steps, self.updates, self.beta = 0, 0, config.priority_beta
        self.targets: list[tuple[nn.Module, nn.Module]] = []

    def target_of(self, module: nn.Module) -> Any:
        """A copy of ``module`` that follows it slowly and gets no gradient."""
        target = copy.deepcopy(module).requires_grad_(False)
        self.targets.append((target, module))
        return target

    @abstractmethod
    def update(self, batch: Batch, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """One step of the optimiser on a draw.

        Args:
            batch: Sequences ``[L, M]``.
            weight: ``[M]`` how much each counts.

        Returns:
            What to report, and the error ``[M]`` of each sequence.
        """

    def learn(self, rollout: Batch) -> dict[str, Tensor]:
        """Keep the rollout, then learn from draws once the warm-up is over."""
        self.update_inputs(rollout.now())
        if self.rewards.needs_trajectory:
            rollout = rollout.replace(reward=self.rewards(rollout))
        self.replay.add(rollout)
        self.env_steps += rollout.steps * rollout.reward.shape[1]
        if self.env_steps < self.config.warmup or not self.replay.ready:
            return {}
        records = []
        for _ in range(self.config.updates):
            batch, weight, place = self.replay.sample(self.config.batch_size, self.generator, self.beta)
            report, error = self.update(batch, weight)
            self.replay.update(place, error)
            self.updates += 1
            self._follow()
            records.append({name: x.detach() for name, x in report.items()})
        return mean_of_records(records)

    def schedule(self, progress: float) -> None:
        """Linear decay of the step size; priorities' bias is made up for more and more."""
        c = self.config
        self.optimiser.scale_learning_rate(1 + (c.learning_rate_end - 1) * progress)
        self.beta = c.priority_beta + (1 - c.priority_beta) * progress
        self.policy.head.epsilon = 1.0 if self.env_steps < c.warmup else self.exploration(progress)

    def exploration(self, progress: float) -> float:
        """Chance of a random action after the warm-up."""
        return 0.0

    def reward(self, batch: Batch) -> Tensor:
        """Rewards ``[L, M, N]`` to learn from."""
        return batch.reward if self.rewards.needs_trajectory else self.rewards(batch)

    def counted(self, batch: Batch) -> Tensor:
        """``[L, 1, 1]`` bool: steps after the burn-in."""
        return (torch.arange(batch.steps, device=batch.reward.device) >= self.config.burn_in).reshape(-1, 1, 1)

    def outputs(self, policy: Policy, batch: Batch) -> Outputs:
        """Raw outputs of a policy in the successors of all steps."""
        if not policy.state_dim:
            final = None if batch.final is None else policy(batch.final)[0]
            return Outputs(policy(batch.later())[0], final)
        assert batch.hidden is not None
        raw, memory = policy.unroll(batch.view, batch.hidden[0], batch.start)
        assert memory is not None
        if batch.final is None or batch.final_at is None:
            return Outputs(raw[1:], None)
        return Outputs(raw[1:], policy(batch.final, memory.flatten(0, 1)[batch.final_at])[0])

    def outputs_now(self, policy: Policy, batch: Batch) -> Tensor:
        """Raw outputs ``[L, M, N, K]`` of a policy in the states acted on."""
        if not policy.state_dim:
            return policy(batch.now())[0]
        assert batch.hidden is not None
        return policy.unroll(batch.now(), batch.hidden[0], batch.start[:-1])[0]

    def value_loss(self, error: Tensor) -> Tensor:
        """Square or Huber loss, element by element."""
        if self.config.huber is None:
            return error.square()
        return nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.config.huber)

    @torch.no_grad()
    def _follow(self) -> None:
        c = self.config
        if c.target_every is not None and self.updates % c.target_every:
            return
        share = 1.0 if c.target_every is not None else c.tau
        for target, module in self.targets:
            for old, new in zip(target.parameters(), module.parameters(), strict=True):
                old.lerp_(new, share)
            for old, new in zip(target.buffers(), module.buffers(), strict=True):
                old.copy_(new)

    def training_state(self) -> dict[str, Any]:
        """Everything learning depends on, the replay included."""
        counts = {"env_steps": self.env_steps, "updates": self.updates}
        return {**super().training_state(), "replay": self.replay.state_dict(), "counts": counts}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on exactly from :meth:`training_state`."""
        super().load_training_state(state)
        self.replay.load_state_dict(state["replay"])
        self.env_steps, self.updates = int(state["counts"]["env_steps"]), int(state["counts"]["updates"])
