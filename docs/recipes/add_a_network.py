# %% [markdown]
# # Add a network
#
# A body maps `x [*, N, in]` and the view to `[*, N, out_dim]`. Built from `Linear` layers it works under every sharing; the policy and the critics take it from there.

# %%
import torch
from torch import Tensor, nn

import envs
from coordination import rng
from coordination.gather import neighbour_mean
from coordination.signals import build
from envs.base import View
from marl.algorithms.config import PPOConfig
from marl.algorithms.ppo import PPO
from marl.collector import Collector
from marl.networks.critics import LocalCritic
from marl.networks.inputs import Inputs
from marl.networks.layers.sharing import Linear, Sharing
from marl.networks.policy import Policy
from marl.networks.trunk import Trunk
from marl.rewards.signals import Rewards
from marl.trainer import Trainer


class Contrast(nn.Module):
    """Each agent hears how it differs from the mean of its neighbours."""

    def __init__(self, in_dim: int, out_dim: int, sharing: Sharing, generator: torch.Generator) -> None:
        super().__init__()
        self.own = Linear(in_dim, out_dim, sharing, generator)
        self.other = Linear(in_dim, out_dim, sharing, generator)
        self.out_dim = out_dim

    def forward(self, x: Tensor, view: View) -> Tensor:
        return torch.relu(self.own(x) + self.other(x - neighbour_mean(x, view.graph, view.alive)))


# %%
env = envs.make("spread", num_envs=32)
generator = rng.generator(0, "initial")
sharing = Sharing.of("all", env.agents)


def trunk() -> Trunk:
    inputs = Inputs(env.agents, "none", False, generator)
    return Trunk(inputs, Contrast(inputs.out_dim, 64, sharing, generator))


policy = Policy(env.agents, trunk(), sharing, generator)
critic = LocalCritic(trunk(), sharing, generator, pooled=True)

# %% [markdown]
# The parts of an experiment are plain objects; this is all the wiring there is.

# %%
algorithm = PPO(policy, critic, Rewards(env.agents, build(None)), PPOConfig(), rng.generator(0, "learn"))
collector = Collector(env, policy, rng.generator(0, "act"))
collector.reset(seed=0)
trainer = Trainer(collector, algorithm, rollout_steps=25, total_env_steps=32 * 25 * 3)
for _ in range(3):
    print(trainer.iterate()["train/return"])

# %% [markdown]
# To make it a choice of `policy=`, add its settings and its case to `marl/networks/build.py`, and a test against a loop over agents.
