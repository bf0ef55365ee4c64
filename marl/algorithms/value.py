"""Value-based learners: IQL, VDN, QMIX and QPLEX, which differ by their mixer alone.

``y = r + gamma Q_target(s', argmax Q(s', .))`` with the team's mixed value Q (double: van Hasselt et al. 2016,
arXiv:1509.06461); targets over several steps by n-step or lambda-returns inside the sequences drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coordination import rng
from envs.base import View
from envs.spec import AgentSpec
from marl.algorithms.base import Optimiser, Setting, masked_mean
from marl.algorithms.config import ValueConfig
from marl.algorithms.offpolicy import OffPolicy
from marl.batch import Batch
from marl.networks.build import build_policy
from marl.networks.config import NetworkConfig
from marl.networks.mixers import Alone, Duplex, Mixer, Monotonic, Sum
from marl.networks.policy import Policy
from marl.returns import n_step, td_lambda
from marl.rewards.signals import Rewards


class ValueLearner(OffPolicy[ValueConfig]):
    """Deep Q-learning over all agents of an environment, their values mixed within each team.

    Args:
        policy: Its raw outputs are the values of choices.
        mixer: How values of agents become values of teams.
        rewards: Raw rewards to the ones learned from.
        config: Settings.
        generator: Source of the draws.
    """

    learners: Tensor

    def __init__(
        self, policy: Policy, mixer: Mixer, rewards: Rewards, config: ValueConfig, generator: torch.Generator
    ) -> None:
        super().__init__(policy, rewards, config, generator)
        self.mixer = mixer
        self.register_buffer("learners", torch.tensor(policy.agents.learners), persistent=False)
        self.target_policy: Policy = self.target_of(policy)
        self.target_mixer: Mixer = self.target_of(mixer)
        learned = [*policy.parameters(), *mixer.parameters()]
        self.optimiser = Optimiser({"value": learned}, {"value": config.learning_rate}, config.max_grad_norm)

    @classmethod
    def build(cls, config: ValueConfig, network: NetworkConfig, setting: Setting) -> ValueLearner:
        """The learner of a configuration, with fresh networks."""
        initial = rng.generator(setting.seed, "initial")
        policy = build_policy(network, setting.agents, initial, "values", config.duelling)
        mixer = _mixer(config, setting.agents, policy, initial)
        rewards = Rewards(setting.agents, setting.shared)
        generator = rng.generator(setting.seed, "learn", device=setting.device)
        policy, mixer = policy.to(setting.device), mixer.to(setting.device)
        return cls(policy, mixer, rewards, config, generator).to(setting.device)

    def exploration(self, progress: float) -> float:
        """From ``epsilon`` to ``epsilon_end``, linearly."""
        c = self.config
        gone = 1.0 if c.exploration == 0 else min(progress / c.exploration, 1.0)
        return c.epsilon + (c.epsilon_end - c.epsilon) * gone

    def value(self, view: View) -> Tensor:
        """Mixed values ``[*, G]`` of everyone's best choices."""
        raw, _ = self.policy(view)
        action, _ = self.policy.head.sample(raw, view.action_mask)
        return self.mixer(self.policy.head.value_of(raw, action), view, self.counting(view))

    def update(self, batch: Batch, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """One step on the mixed temporal-difference error."""
        raw, now, head = self.outputs_now(self.policy, batch), batch.now(), self.policy.head
        keep = self.counting(now)
        chosen = head.value_of(raw, batch.action)
        with torch.no_grad():
            best = head.value_of(raw, head.sample(raw, now.action_mask)[0])
            target = self.target(batch)
        value = self.mixer(chosen, now, keep, best, head.encode(batch.action))  # [L, M, G]
        counts = self.mixer.of_team(keep, "any") & self.counted(batch)
        error = value - target
        loss = masked_mean(weight.unsqueeze(-1) * self.value_loss(error), counts)
        norms = self.optimiser.step({"value": loss})
        errors = torch.where(counts, error.detach().abs(), 0.0)
        report = {"value_loss": loss, "value": masked_mean(value, counts), "error": masked_mean(errors, counts)}
        return {**report, **norms}, errors.sum((0, -1)) / counts.sum((0, -1)).clamp(min=1)

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """What the mixed values should be, ``[L, M, G]``."""
        c, mixer, alive = self.config, self.mixer, batch.now().alive
        values = self.outputs(self.target_policy, batch)
        choosing = self.outputs(self.policy, batch) if c.double else values
        later = self._best(values.later, choosing.later, batch.later())
        final = None
        if values.final is not None and choosing.final is not None and batch.final is not None:
            final = self._best(values.final, choosing.final, batch.final)
        following = batch.merge(later, final)
        reward = mixer.of_team(torch.where(alive, self.reward(batch), 0.0))
        terminated, cut = (mixer.of_team(x | ~alive, "all") for x in (batch.terminated, batch.cut))
        if c.lam is not None:
            return td_lambda(reward, following, terminated, cut, c.gamma, c.lam)
        return n_step(reward, following, terminated, cut, c.gamma, c.n_step)

    def _best(self, values: Tensor, choosing: Tensor, view: View) -> Tensor:
        """Mixed value ``[*, G]`` of the best choices in ``view``."""
        head = self.policy.head
        action, _ = head.sample(choosing, view.action_mask)
        return self.target_mixer(head.value_of(values, action), view, self.counting(view))

    def counting(self, view: View) -> Tensor:
        """``[*, N]`` bool: whose values count: of those who choose; alone, of those who wait their turn as well."""
        return view.alive & self.learners if isinstance(self.mixer, Alone) else view.acting


def _mixer(config: ValueConfig, agents: AgentSpec, policy: Policy, generator: torch.Generator) -> Mixer:
    if config.mixer == "none":
        return Alone(agents)
    if config.mixer == "sum":
        return Sum(agents)
    if config.mixer == "monotonic":
        return Monotonic(agents, config.mixer_embed, config.mixer_hidden, generator)
    return Duplex(agents, config.mixer_hidden, generator, policy.head.features_dim)
