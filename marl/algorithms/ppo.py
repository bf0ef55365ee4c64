"""PPO for many agents: IPPO with a local critic, MAPPO with a central or graph-pooled one.

Clipped policy updates (Schulman et al. 2017, arXiv:1707.06347) with the settings that matter for many agents (Yu et
al. 2022, arXiv:2103.01955; de Witt et al. 2020, arXiv:2011.09533): value normalisation, clipped Huber value loss,
advantages normalised over the whole rollout. Agents that did not choose take part in no loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from coordination import rng, tree
from envs.base import View
from marl.algorithms.base import Setting, masked_mean, mean_of_records
from marl.algorithms.config import PPOConfig
from marl.algorithms.onpolicy import OnPolicy, explained_variance, masked_var
from marl.batch import Batch
from marl.networks.build import build_critic, build_policy
from marl.networks.config import NetworkConfig
from marl.networks.critics import JointCritic, LocalCritic
from marl.networks.policy import Policy
from marl.returns import gae
from marl.rewards.normalise import RewardScale
from marl.rewards.signals import Rewards


@tree.struct
class Samples:
    """The states of a rollout with what the losses need, ``[M, N]`` each, or ``[T, M, N]`` where they are unrolled.

    ``target`` and ``value`` are in the critic's own units; ``value`` is what it put out before the first update.
    ``hidden`` and ``critic_hidden`` are what was remembered before the first view, ``[1, M, N, S]``.
    """

    view: View = tree.axes("")
    action: Tensor = tree.axes("N A")
    log_prob: Tensor = tree.axes("N")
    keep: Tensor = tree.axes("N")
    alive: Tensor = tree.axes("N")
    advantage: Tensor = tree.axes("N")
    target: Tensor = tree.axes("N")
    value: Tensor = tree.axes("N")
    start: Tensor | None = tree.axes("", default=None)
    hidden: Tensor | None = tree.axes("N S", default=None)
    critic_hidden: Tensor | None = tree.axes("N S", default=None)


class PPO(OnPolicy[PPOConfig]):
    """PPO over all agents of an environment at once.

    Args:
        policy: Who acts.
        critic: ``(view, hidden, start) -> values [*, N], hidden``.
        rewards: Raw rewards to the ones learned from.
        config: Settings.
        generator: Source of the minibatches.
        num_envs: Copies B, where the critic has a memory.
    """

    critic: LocalCritic | JointCritic
    remembered: Tensor | None

    def __init__(
        self,
        policy: Policy,
        critic: LocalCritic | JointCritic,
        rewards: Rewards,
        config: PPOConfig,
        generator: torch.Generator,
        num_envs: int = 0,
    ) -> None:
        super().__init__(policy, critic, rewards, config, generator)
        self.sequential = bool(policy.state_dim or critic.state_dim)
        readers = 1 if isinstance(critic, JointCritic) else policy.agents.num_agents
        remembered = torch.zeros(num_envs, readers, critic.state_dim) if critic.state_dim else None
        self.register_buffer("remembered", remembered)  # by the critic, before the next rollout

    @classmethod
    def build(cls, config: PPOConfig, network: NetworkConfig, setting: Setting) -> PPO:
        """The learner of a configuration, with fresh networks."""
        agents, device = setting.agents, setting.device
        initial = rng.generator(setting.seed, "initial")
        policy = build_policy(network, agents, initial).to(device)
        critic = build_critic(network, agents, initial).to(device)
        scale = RewardScale(agents, setting.num_envs, config.gamma) if config.normalise_reward else None
        rewards = Rewards(agents, setting.shared, scale).to(device)
        return cls(
            policy, critic, rewards, config, rng.generator(setting.seed, "learn", device=device), setting.num_envs
        ).to(device)

    def learn(self, rollout: Batch) -> dict[str, Tensor]:
        """One iteration of PPO: targets, then epochs of minibatches."""
        samples = self.prepare(rollout)
        records = self.improve(samples)
        self.update_inputs(samples.view)
        return {
            **mean_of_records(records),
            "explained_variance": explained_variance(samples.value, samples.target, samples.keep),
        }

    def improve(self, samples: Samples) -> list[dict[str, Tensor]]:
        """All updates of an iteration, and what each reported."""
        return self.epochs(samples, self.update)

    def epochs(self, samples: Samples, update: Callable[[Samples], dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Passes over the samples in minibatches, until the policy has moved as far as it may."""
        records: list[dict[str, Tensor]] = []
        axis = 1 if self.sequential else 0  # parts of the copies where each is unrolled as a whole
        for _ in range(self.config.epochs):
            epoch = [update(part) for part in self.minibatches(samples, samples.value.shape[axis], axis)]
            records += epoch
            if self.config.target_kl is not None and float(mean_of_records(epoch)["kl"]) > self.config.target_kl:
                break
        return records

    @torch.no_grad()
    def prepare(self, rollout: Batch) -> Samples:
        """Advantages and value targets of a rollout, flattened to its ``T * B`` states."""
        reward, keep, config = self.rewards(rollout), rollout.keep, self.config
        output, memory = self.critic.unroll(rollout.view, self.remembered, rollout.start)
        value, final = self.in_reward_units(output), self._final_value(rollout, memory)
        following, value = rollout.successor(value, final), value[:-1]
        turns = () if rollout.view.acts is None else (keep, rollout.next_acting)
        advantage = gae(reward, value, following, rollout.terminated, rollout.cut, config.gamma, config.lam, *turns)
        target, alive = advantage + value, rollout.view.alive[:-1] & self.learners  # partners learn no values
        if config.normalise_advantage:
            mean = masked_mean(advantage, keep)
            advantage = (advantage - mean) / (masked_var(advantage, keep).sqrt() + 1e-8)
        target = self.in_critic_units(target, alive)
        assert rollout.log_prob is not None
        rows = {"log_prob": rollout.log_prob, "advantage": advantage, "target": target, "value": output[:-1]}
        kept = {name: torch.where(alive, x, 0.0) for name, x in rows.items()}
        samples = Samples(rollout.now(), rollout.action, keep=keep, alive=alive, **kept)
        if not self.sequential:
            return tree.flatten(samples)
        hidden = None if rollout.hidden is None else rollout.hidden[:1]
        before = None if self.remembered is None else self.remembered.unsqueeze(0).clone()
        if memory is not None and self.remembered is not None:
            self.remembered.copy_(memory[rollout.steps - 1])
        return replace(samples, start=rollout.start[:-1], hidden=hidden, critic_hidden=before)

    def _final_value(self, rollout: Batch, memory: Tensor | None) -> Tensor | None:
        """Values of the true successors that are stored apart; the critic remembers what came before them."""
        if rollout.final is None or rollout.final_at is None:
            return None
        before = None if memory is None else memory.flatten(0, 1)[rollout.final_at]
        return self.in_reward_units(self.critic(rollout.final, before)[0])

    def value(self, view: View) -> Tensor:
        """Values ``[*, N]`` in units of reward."""
        return self.in_reward_units(self.critic(view)[0])

    def losses(self, samples: Samples) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The loss of each parameter group, and what to report."""
        policy, report = self.policy_loss(samples)
        value = masked_mean(self._value_error(self.critic_output(samples), samples), samples.alive)
        return {"policy": policy, "critic": value}, {**report, "value_loss": value}

    def policy_loss(self, samples: Samples) -> tuple[Tensor, dict[str, Tensor]]:
        """The clipped surrogate less the entropy bonus, and what to report."""
        c, keep = self.config, samples.keep
        log_prob, entropy = self.evaluate(samples)
        log_ratio = torch.where(keep, log_prob - samples.log_prob, 0.0)
        ratio = log_ratio.exp()
        gain = torch.minimum(ratio * samples.advantage, ratio.clamp(1 - c.clip, 1 + c.clip) * samples.advantage)
        entropy = masked_mean(entropy, keep)
        loss = -masked_mean(gain, keep)
        report = {
            "policy_loss": loss,
            "entropy": entropy,
            "kl": masked_mean(ratio - 1 - log_ratio, keep),  # Schulman's k3 estimator: unbiased, never negative
            "clipped": masked_mean(((ratio - 1).abs() > c.clip).float(), keep),
        }
        return loss - self.entropy * entropy, report

    def evaluate(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Log-probability of what was done and entropy, ``[*, N]``, under the policy as it is now."""
        if samples.start is None:
            raw, _ = self.policy(samples.view)
        else:
            raw, _ = self.policy.unroll(samples.view, _first(samples.hidden), samples.start)
        return self.policy.head.evaluate(raw, samples.action, samples.view.action_mask)

    def critic_output(self, samples: Samples) -> Tensor:
        """What the critic puts out, ``[*, N]``, unrolled from the start of the rollout where it remembers."""
        if samples.start is None:
            return self.critic(samples.view)[0]
        return self.critic.unroll(samples.view, _first(samples.critic_hidden), samples.start)[0]

    def _value_error(self, value: Tensor, samples: Samples) -> Tensor:
        def error(v: Tensor) -> Tensor:
            if self.config.huber is None:
                return 0.5 * (v - samples.target).square()
            return nn.functional.huber_loss(v, samples.target, reduction="none", delta=self.config.huber)

        if not self.config.value_clip:
            return error(value)
        near = samples.value + (value - samples.value).clamp(-self.config.clip, self.config.clip)
        return torch.maximum(error(value), error(near))

    def update(self, samples: Samples) -> dict[str, Tensor]:
        """One step of the optimiser; what to report."""
        losses, report = self.losses(samples)
        norms = self.optimiser.step(losses)
        return {name: x.detach() for name, x in {**report, **norms}.items()}


def _first(hidden: Tensor | None) -> Tensor | None:
    return None if hidden is None else hidden[0]
