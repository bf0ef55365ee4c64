# %% [markdown]
# # Add a signal
#
# A stage maps rewards `[*, N]` to rewards `[*, N]` and declares what it keeps. With `audit=True` the chain checks the declarations on every call. Here: agents
# share a part of their reward with their neighbours on the graph.

# %%
import torch
from torch import Tensor

import marl
from coordination.signals import SharedReward, Trajectory


class Generosity:
    """`r <- (1 - share) r + share W r` with Metropolis weights W, which keep the sum."""

    name = "generosity"
    needs = "transition"
    conserves_sum = True
    policy_invariant = False

    def __init__(self, share: float = 0.5) -> None:
        self.share = share

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        assert context.graph.topology is not None
        mixing = context.graph.topology.mixing("metropolis")
        return (1 - self.share) * reward + self.share * mixing(reward)


# %%
run = marl.train(
    env="spread", signals=[Generosity(0.3)], total_steps=6_400, num_envs=64, evaluate={"final_episodes": 32}
)
print(run.summary()["return"])

# %% [markdown]
# The return that is reported is always that of the raw rewards. In a configuration file a stage of your own is named by its import path, `signals: ["my_signals:Generosity"]`.
# The audit on made-up data:

# %%
from coordination.graph import Graph
from coordination.topology import ring

shape = (8, 5)
yes, no = torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
context = Trajectory(
    reward=torch.randn(shape),
    action=torch.zeros(*shape, 1),
    alive=yes,
    acting=yes,
    terminated=no,
    cut=no,
    obs=torch.zeros(*shape, 1),
    graph=Graph(topology=ring(5)),
    team=torch.zeros(5, dtype=torch.long),
)
print(SharedReward([Generosity()], audit=True)(context).violations)
