# %% [markdown]
# # Add an algorithm
#
# An algorithm learns from a rollout; the trainer knows no more about it. Here is advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783) in full.

# %%
from typing import Any

import torch
from torch import Tensor

import envs
from coordination import rng
from coordination.signals import build
from marl.algorithms.base import Algorithm, Optimiser, Setting, masked_mean
from marl.batch import Batch
from marl.collector import Collector
from marl.config import Config
from marl.networks.build import build_critic, build_policy
from marl.networks.config import CriticConfig, NetworkConfig
from marl.returns import n_step
from marl.rewards.signals import Rewards
from marl.trainer import Trainer


class A2CConfig(Config):
    """Settings: step size, discount, rewards before the value is trusted, entropy bonus."""

    learning_rate: float = 1e-3
    gamma: float = 0.95
    steps: int = 5
    entropy: float = 0.01


class A2C(Algorithm):
    """One gradient step per rollout on n-step advantages."""

    def __init__(self, policy, critic, rewards: Rewards, config: A2CConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.policy, self.critic, self.rewards, self.config, self.generator = policy, critic, rewards, config, generator
        groups = {"policy": policy.parameters(), "critic": critic.parameters()}
        self.optimiser = Optimiser(groups, dict.fromkeys(groups, config.learning_rate), max_grad_norm=0.5)

    @classmethod
    def build(cls, config: A2CConfig, network: NetworkConfig, setting: Setting) -> Algorithm:
        initial = rng.generator(setting.seed, "initial")
        policy, critic = (make(network, setting.agents, initial) for make in (build_policy, build_critic))
        rewards = Rewards(setting.agents, setting.shared)
        return cls(policy, critic, rewards, config, rng.generator(setting.seed, "learn"))

    def learn(self, rollout: Batch) -> dict[str, Tensor]:
        c, keep = self.config, rollout.keep
        value, _ = self.critic(rollout.view)
        with torch.no_grad():
            final = None if rollout.final is None else self.critic(rollout.final)[0]
            following = rollout.successor(value, final)
            target = n_step(self.rewards(rollout), following, rollout.terminated, rollout.cut, c.gamma, c.steps)
        states = rollout.states()
        raw, _ = self.policy(states)
        log_prob, entropy = self.policy.head.evaluate(raw, rollout.action.flatten(0, 1), states.action_mask)
        error = target - value[:-1]
        gain = masked_mean(log_prob * error.detach().flatten(0, 1), keep.flatten(0, 1))
        bonus = masked_mean(entropy, keep.flatten(0, 1))
        losses = {"policy": -gain - c.entropy * bonus, "critic": masked_mean(error.square(), keep)}
        norms = self.optimiser.step(losses)
        return {"value_loss": losses["critic"].detach(), "entropy": bonus.detach(), **norms}


# %%
env = envs.make("climbing", num_envs=16)
network = NetworkConfig(critic=CriticConfig(name="local"))
setting: Any = Setting(env.agents, env.num_envs, build(None), seed=0, device=torch.device("cpu"))
algorithm = A2C.build(A2CConfig(), network, setting)
collector = Collector(env, algorithm.policy, rng.generator(0, "act"))
collector.reset(seed=0)
trainer = Trainer(collector, algorithm, rollout_steps=5, total_env_steps=16 * 5 * 200)
trainer.run()
print(trainer.iterate()["learn/value_loss"])

# %% [markdown]
# To make it a choice of `algorithm=`, put it under `marl/algorithms/`, add its name to `marl/recipes.py`, and let it pass the tests that every recipe passes.
