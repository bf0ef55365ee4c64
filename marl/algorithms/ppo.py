"""PPO for many agents: IPPO with a local critic, MAPPO with a central or graph-pooled one.

Clipped policy updates (Schulman et al. 2017, arXiv:1707.06347) with the settings that matter for many agents (Yu et
al. 2022, arXiv:2103.01955; de Witt et al. 2020, arXiv:2011.09533): value normalisation, clipped Huber value loss,
advantages normalised over the whole rollout. Agents that did not choose take part in no loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from coordination import rng, tree
from envs.base import View
from marl.algorithms.base import Algorithm, Optimiser, Setting, masked_mean, mean_of_records
from marl.algorithms.config import PPOConfig
from marl.batch import Batch
from marl.networks.build import build_critic, build_policy
from marl.networks.config import NetworkConfig
from marl.networks.critics import JointCritic, LocalCritic
from marl.networks.layers.normalise import RunningMoments
from marl.networks.policy import Policy
from marl.returns import gae
from marl.rewards.normalise import RewardScale
from marl.rewards.signals import Rewards

VALUE_DECAY = 0.99  # the past's weight at each iteration in the moments of value targets: they follow the policy


TINY = 1e-8  # below this a variance says nothing


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


class PPO(Algorithm):
    """PPO over all agents of an environment at once.

    Args:
        policy: Who acts.
        critic: ``(view, hidden, start) -> values [*, N], hidden``.
        rewards: Raw rewards to the ones learned from.
        config: Settings.
        generator: Source of the minibatches.
        num_envs: Copies B, where the critic has a memory.
    """

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
        super().__init__()
        self.sequential = bool(policy.state_dim or critic.state_dim)
        readers = 1 if isinstance(critic, JointCritic) else policy.agents.num_agents
        remembered = torch.zeros(num_envs, readers, critic.state_dim) if critic.state_dim else None
        self.register_buffer("remembered", remembered)  # by the critic, before the next rollout
        self.policy, self.critic, self.rewards = policy, critic, rewards
        self.config, self.generator = config, generator
        self.moments = RunningMoments(policy.agents, 1, VALUE_DECAY) if config.normalise_value else None
        self.entropy = config.entropy
        rate = config.learning_rate
        self.optimiser = Optimiser(
            {"policy": policy.parameters(), "critic": critic.parameters()},
            {"policy": rate, "critic": config.critic_learning_rate or rate},
            config.max_grad_norm,
        )

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

    def schedule(self, progress: float) -> None:
        """Linear decay of the step sizes and of the entropy bonus."""
        c = self.config
        self.optimiser.scale_learning_rate(1 + (c.learning_rate_end - 1) * progress)
        if c.entropy_end is not None:
            self.entropy = c.entropy + (c.entropy_end - c.entropy) * progress

    def learn(self, rollout: Batch) -> dict[str, Tensor]:
        """One iteration of PPO: targets, then epochs of minibatches."""
        samples = self.prepare(rollout)
        records: list[dict[str, Tensor]] = []
        for _ in range(self.config.epochs):
            epoch = [self._update(part) for part in self._minibatches(samples)]
            records += epoch
            if self.config.target_kl is not None and float(mean_of_records(epoch)["kl"]) > self.config.target_kl:
                break
        self.update_inputs(samples.view)
        spread, rest = (masked_var(x, samples.keep) for x in (samples.target, samples.target - samples.value))
        explained = torch.where(spread > TINY, 1 - rest / spread.clamp(min=TINY), 0.0)
        return {**mean_of_records(records), "explained_variance": explained}

    @torch.no_grad()
    def prepare(self, rollout: Batch) -> Samples:
        """Advantages and value targets of a rollout, flattened to its ``T * B`` states."""
        reward, keep, config = self.rewards(rollout), rollout.keep, self.config
        output, memory = self.critic.unroll(rollout.view, self.remembered, rollout.start)
        value, final = self.in_reward_units(output), self._final_value(rollout, memory)
        following, value = rollout.successor(value, final), value[:-1]
        turns = () if rollout.view.acts is None else (keep, rollout.next_acting)
        advantage = gae(reward, value, following, rollout.terminated, rollout.cut, config.gamma, config.lam, *turns)
        target, alive = advantage + value, rollout.view.alive[:-1]
        if config.normalise_advantage:
            mean = masked_mean(advantage, keep)
            advantage = (advantage - mean) / (masked_var(advantage, keep).sqrt() + 1e-8)
        if self.moments is not None:
            self.moments.update(target.unsqueeze(-1), alive)
            target = self.moments.normalise(target.unsqueeze(-1), limit=None).squeeze(-1)
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

    def in_reward_units(self, output: Tensor) -> Tensor:
        """Critic outputs ``[*, N]`` as values: times the deviation plus the mean of past targets."""
        return output if self.moments is None else self.moments.denormalise(output.unsqueeze(-1)).squeeze(-1)

    def losses(self, samples: Samples) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The loss of each parameter group, and what to report."""
        c, keep = self.config, samples.keep
        raw, output = self._outputs(samples)
        log_prob, entropy = self.policy.head.evaluate(raw, samples.action, samples.view.action_mask)
        log_ratio = torch.where(keep, log_prob - samples.log_prob, 0.0)
        ratio = log_ratio.exp()
        gain = torch.minimum(ratio * samples.advantage, ratio.clamp(1 - c.clip, 1 + c.clip) * samples.advantage)
        entropy = masked_mean(entropy, keep)
        policy_loss = -masked_mean(gain, keep)
        value_loss = masked_mean(self._value_error(output, samples), samples.alive)
        report = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "kl": masked_mean(ratio - 1 - log_ratio, keep),  # Schulman's k3 estimator: unbiased, never negative
            "clipped": masked_mean(((ratio - 1).abs() > c.clip).float(), keep),
        }
        return {"policy": policy_loss - self.entropy * entropy, "critic": value_loss}, report

    def _outputs(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """What policy and critic put out, unrolled from the start of the rollout where they remember."""
        if samples.start is None:
            return self.policy(samples.view)[0], self.critic(samples.view)[0]
        hidden, before = (None if h is None else h[0] for h in (samples.hidden, samples.critic_hidden))
        raw, _ = self.policy.unroll(samples.view, hidden, samples.start)
        return raw, self.critic.unroll(samples.view, before, samples.start)[0]

    def _value_error(self, value: Tensor, samples: Samples) -> Tensor:
        def error(v: Tensor) -> Tensor:
            if self.config.huber is None:
                return 0.5 * (v - samples.target).square()
            return nn.functional.huber_loss(v, samples.target, reduction="none", delta=self.config.huber)

        if not self.config.value_clip:
            return error(value)
        near = samples.value + (value - samples.value).clamp(-self.config.clip, self.config.clip)
        return torch.maximum(error(value), error(near))

    def _update(self, samples: Samples) -> dict[str, Tensor]:
        losses, report = self.losses(samples)
        norms = self.optimiser.step(losses)
        return {name: x.detach() for name, x in {**report, **norms}.items()}

    def _minibatches(self, samples: Samples) -> Iterable[Samples]:
        """Parts of the states, or of the copies where each is unrolled as a whole."""
        if self.config.minibatches == 1:
            return [samples]
        count = samples.value.shape[1 if self.sequential else 0]
        order = torch.randperm(count, generator=self.generator, device=self.generator.device)
        parts = order.tensor_split(min(self.config.minibatches, count))
        return (tree.index(samples, (slice(None), part) if self.sequential else part) for part in parts)


def masked_var(x: Tensor, mask: Tensor) -> Tensor:
    """Variance of the entries of ``x`` where ``mask`` holds."""
    return masked_mean((x - masked_mean(x, mask)).square(), mask)
