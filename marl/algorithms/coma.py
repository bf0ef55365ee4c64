"""COMA: each agent follows how much better its choice was than its policy does in the mean, the others' choices kept.

Foerster et al. 2018 (arXiv:1705.08926): a central critic ``Q_i(s, a_-i, .)`` learned by TD(lambda) against a target
network, counterfactual advantages ``A_i = Q_i(a_i) - sum over a of pi_i(a) Q_i(a)``, and one step of the policy for
each rollout. Deviations:

* Steps are bootstrapped from the mean of Q over the own choice, not from the choice made: the same in expectation, less
  noisy. Where a rollout or an episode is cut the others' choices are drawn, since none were made.
* The values of several components of one choice add up.
* The critic takes minibatch steps instead of one for each time step, its targets computed once.
* Values are learned in units of their running moments, advantages brought to unit size, entropy rewarded; each is a
  setting.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from coordination import rng, tree
from envs.base import View
from marl.algorithms.base import Setting, masked_mean, mean_of_records
from marl.algorithms.config import COMAConfig
from marl.algorithms.onpolicy import OnPolicy, explained_variance
from marl.batch import Batch
from marl.networks.build import build_counterfactual, build_policy
from marl.networks.config import NetworkConfig
from marl.networks.counterfactual import CounterfactualCritic
from marl.networks.policy import Policy
from marl.returns import gae
from marl.rewards.normalise import RewardScale
from marl.rewards.signals import Rewards


@tree.struct
class States:
    """The states of a rollout with what the critic learns from, ``[T, B, N]`` or ``[M, N]`` each.

    ``features`` are those of the actions, ``target`` is in the critic's own units, ``counts`` says whose values count:
    those of everyone alive who ever acts, also of agents that wait for their turn. ``memory`` is the policy's, before
    each view.
    """

    view: View = tree.axes("")
    action: Tensor = tree.axes("N A")
    features: Tensor = tree.axes("N D")
    target: Tensor = tree.axes("N")
    counts: Tensor = tree.axes("N")
    memory: Tensor | None = tree.axes("N S", default=None)


class COMA(OnPolicy[COMAConfig]):
    """COMA over all agents of an environment at once; discrete choices.

    Args:
        policy: Who acts.
        critic: ``(view, action features, memory) -> values [*, N, K]`` of all own choices.
        rewards: Raw rewards to the ones learned from.
        config: Settings.
        generator: Source of the minibatches and of choices where a rollout is cut.
    """

    critic: CounterfactualCritic

    def __init__(
        self,
        policy: Policy,
        critic: CounterfactualCritic,
        rewards: Rewards,
        config: COMAConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__(policy, critic, rewards, config, generator)
        self.target_critic: CounterfactualCritic = copy.deepcopy(critic).requires_grad_(False)

    @classmethod
    def build(cls, config: COMAConfig, network: NetworkConfig, setting: Setting) -> COMA:
        """The learner of a configuration, with fresh networks.

        Raises:
            ValueError: If some agents choose reals.
        """
        agents, device = setting.agents, setting.device
        if not agents.discrete:
            raise ValueError(
                "actions: coma weighs each choice against all others and needs discrete actions, got reals; "
                "use mappo, happo, maddpg, matd3 or masac"
            )
        initial = rng.generator(setting.seed, "initial")
        policy = build_policy(network, agents, initial).to(device)
        widths = policy.head.features_dim, policy.trunk.content_dim
        critic = build_counterfactual(network, agents, *widths, initial).to(device)
        scale = RewardScale(agents, setting.num_envs, config.gamma) if config.normalise_reward else None
        rewards = Rewards(agents, setting.shared, scale).to(device)
        return cls(policy, critic, rewards, config, rng.generator(setting.seed, "learn", device=device)).to(device)

    def learn(self, rollout: Batch) -> dict[str, Tensor]:
        """One iteration: targets, epochs of the critic, one step of the policy."""
        states = self.prepare(rollout)
        flat = tree.flatten(states)
        count = flat.target.shape[0]
        records = [self.fit(part) for _ in range(self.config.epochs) for part in self.minibatches(flat, count)]
        report = self.improve(rollout, states)
        self.update_inputs(flat.view)
        return {**mean_of_records(records), **report}

    @torch.no_grad()
    def prepare(self, rollout: Batch) -> States:
        """What the critic learns from: lambda-returns over the values of its target."""
        c, reward, view = self.config, self.rewards(rollout), rollout.now()
        value, final = self._values(rollout)
        following, value = rollout.successor(value, final), value[:-1]
        turns = () if view.acts is None else (rollout.keep, rollout.next_acting)
        target = value + gae(reward, value, following, rollout.terminated, rollout.cut, c.gamma, c.lam, *turns)
        counts = view.alive & self.learners
        target = torch.where(counts, self.in_critic_units(target, counts), 0.0)
        memory = self._memory(rollout.hidden, rollout.start)
        features = self.policy.head.encode(rollout.action)
        return States(view, rollout.action, features, target, counts, None if memory is None else memory[:-1])

    def fit(self, states: States) -> dict[str, Tensor]:
        """One step of the critic, and of its target behind it."""
        output = self.critic(states.view, states.features, states.memory)
        error = self.policy.head.value_of(output, states.action) - states.target
        loss = masked_mean(self._value_loss(error), states.counts)
        norms = self.optimiser.step({"critic": loss})
        with torch.no_grad():
            for old, new in zip(self.target_critic.parameters(), self.critic.parameters(), strict=True):
                old.lerp_(new, self.config.tau)
        return {"value_loss": loss.detach(), **norms}

    def improve(self, rollout: Batch, states: States) -> dict[str, Tensor]:
        """One step of the policy."""
        head, keep = self.policy.head, rollout.keep
        raw, _ = self.policy.unroll(
            states.view, None if rollout.hidden is None else rollout.hidden[0], rollout.start[:-1]
        )
        log_prob, entropy = head.evaluate(raw, states.action, states.view.action_mask)
        with torch.no_grad():
            output = self.critic(states.view, states.features, states.memory)
            advantage = self.advantage(raw, output, states.action, states.view)
            explained = explained_variance(head.value_of(output, states.action), states.target, states.counts)
        if self.config.normalise_advantage:  # by size alone: the mean is zero under the policy
            advantage = advantage / (masked_mean(advantage.square(), keep).sqrt() + 1e-8)
        loss, entropy = -masked_mean(advantage * log_prob, keep), masked_mean(entropy, keep)
        norms = self.optimiser.step({"policy": loss - self.entropy * entropy})
        report = {"policy_loss": loss, "entropy": entropy, "explained_variance": explained, **norms}
        return {name: x.detach() for name, x in report.items()}

    def advantage(self, raw: Tensor, output: Tensor, action: Tensor, view: View) -> Tensor:
        """Counterfactual advantages ``[*, N]`` in units of reward.

        Args:
            raw: ``[*, N, K]`` outputs of the policy.
            output: ``[*, N, K]`` outputs of the critic.
            action: ``[*, N, A]`` what was chosen.
            view: What was seen.
        """
        advantage = self.policy.head.advantage(raw, output, action, view.action_mask)
        return advantage if self.moments is None else advantage * self.moments.scale().squeeze(-1)

    def _values(self, rollout: Batch) -> tuple[Tensor, Tensor | None]:
        """Values of the views ``[T+1, B, N]`` and of the true successors stored apart ``[R, N]``."""
        raw, _ = self.policy(rollout.view, rollout.hidden, rollout.start)
        last = None if rollout.view.action_mask is None else rollout.view.action_mask[-1]
        drawn, _ = self.policy.head.sample(raw[-1], last, self.generator)
        memory = self._memory(rollout.hidden, rollout.start)
        value = self._value(raw, rollout.view, torch.cat([rollout.action, drawn.unsqueeze(0)]), memory)
        if rollout.final is None or rollout.final_at is None:
            return value, None
        before = None if rollout.hidden is None else rollout.hidden[1:].flatten(0, 1)[rollout.final_at]
        raw, _ = self.policy(rollout.final, before)
        drawn, _ = self.policy.head.sample(raw, rollout.final.action_mask, self.generator)
        return value, self._value(raw, rollout.final, drawn, self._memory(before))

    def _value(self, raw: Tensor, view: View, action: Tensor, memory: Tensor | None) -> Tensor:
        """``[*, N]`` mean value of the own choice under the policy, the others' as in ``action [*, N, A]``."""
        head = self.policy.head
        output = self.target_critic(view, head.encode(action), memory)
        advantage = head.advantage(raw, output, action, view.action_mask)
        return self.in_reward_units(head.value_of(output, action) - advantage)

    def _value_loss(self, error: Tensor) -> Tensor:
        if self.config.huber is None:
            return 0.5 * error.square()
        return nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.config.huber)

    def _memory(self, hidden: Tensor | None, start: Tensor | None = None) -> Tensor | None:
        """``[*, N, S]`` what the policy knows from before when it acts: nothing where an episode begins."""
        content = self.policy.trunk.content_dim
        if hidden is None or not content:
            return None
        known = hidden[..., :content]
        return known if start is None else torch.where(start[..., None, None], 0.0, known)
