# %% [markdown]
# # Add an environment
#
# A native environment is a struct of tensors and three pure functions over it. Everything else (copies, restarts, time limits, seeds, checkpoints, a PettingZoo
# face) comes from the base class. Here: agents on a ring each hold a number and want to agree on one.

# %%
from dataclasses import dataclass

import torch
from torch import Tensor

import envs
import marl
from coordination import tree
from coordination.graph import Graph
from coordination.topology import ring
from envs.base import View
from envs.native import Task
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec


@tree.struct
class Numbers:
    """The number that each agent holds."""

    value: Tensor = tree.axes("N")  # [B, N]


@dataclass
class Agree(Task[Numbers]):
    """Lower, keep or raise your number; the team pays for the spread of all numbers."""

    num_agents: int = 6
    ends_early = False

    def __post_init__(self) -> None:
        self.horizon = 10
        self.agents = AgentSpec.single(self.num_agents, ObservationSpec.named(value=1), ActionSpec.discrete(3))
        self.links = ring(self.num_agents)

    def initial(self, generator: torch.Generator, n: int) -> Numbers:
        return Numbers(torch.randn(n, self.num_agents, generator=generator, device=self.device))

    def advance(self, state: Numbers, action: Tensor, generator: torch.Generator) -> tuple[Numbers, Tensor, Tensor]:
        value = state.value + 0.2 * (action.squeeze(-1) - 1)
        reward = -(value - value.mean(-1, keepdim=True)).square()
        return Numbers(value), reward, torch.zeros_like(reward, dtype=torch.bool)

    def view(self, state: Numbers) -> View:
        alive = torch.ones_like(state.value, dtype=torch.bool)
        return View(state.value.unsqueeze(-1), alive, Graph(topology=self.links))


# %% [markdown]
# It steps in batches, passes the checks of a PettingZoo environment, and trains with any recipe.

# %%
env = envs.make(Agree, num_envs=64)
print(env.reset(seed=0).obs.shape)
print(envs.check(envs.parallel(Agree)))

# %%
run = marl.train(
    env=Agree, policy="graph", total_steps=40_000, num_envs=64, rollout_steps=10, evaluate={"final_episodes": 64}
)
print(run.summary()["return"])

# %% [markdown]
# To list it under a name, add one line to `envs/registry.py` with its known optimum and source, and a test that the optimum is attained.
