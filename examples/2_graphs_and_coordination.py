# %% [markdown]
# # Who hears whom, and how fast they agree
#
# `coordination` stands alone: it works on tensors from any library. Here: how the shape of a network decides how fast its agents agree.

# %%
import matplotlib.pyplot as plt
import torch

from coordination.consensus import Averaging, Chebyshev, run
from coordination.topology import build

NAMES = ["ring", "torus", {"name": "small_world", "k": 8, "p": 0.1}, {"name": "random_regular", "degree": 8}]
graphs = [build(name, num_agents=692) for name in NAMES]
for graph in graphs:
    print(f"{graph.name:40} links {graph.num_edges:6}  lambda2 {graph.lambda2():.4f}  SLEM {graph.slem():.5f}")

# %% [markdown]
# 692 agents hold random numbers and average with their neighbours. On a ring that takes hundreds of thousands of rounds, on a random graph of eight links each about twenty.

# %%
x = torch.randn(692, generator=torch.Generator().manual_seed(0))
for graph in graphs:
    error = [
        float((run(Averaging("metropolis"), x, graph, rounds=k).value - x.mean()).abs().max()) for k in range(0, 61, 10)
    ]
    plt.semilogy(range(0, 61, 10), error, label=graph.name)
fast = [float((run(Chebyshev(), x, graphs[1], rounds=k).value - x.mean()).abs().max()) for k in range(0, 61, 10)]
plt.semilogy(range(0, 61, 10), fast, "k--", label="torus, Chebyshev")
plt.xlabel("rounds")
plt.ylabel("largest error")
plt.legend()

# %% [markdown]
# Metrics of behaviour take actions, rewards and values of any trajectory.

# %%
from coordination.metrics import action_synchrony, gini, total_correlation

actions = torch.randint(4, (1000, 5), generator=torch.Generator().manual_seed(1))
copied = actions[:, :1].expand(-1, 5)
print("independent:", float(action_synchrony(actions, 4).mean()), float(total_correlation(actions)))
print("all the same:", float(action_synchrony(copied, 4).mean()), float(total_correlation(copied)))
print("Gini of (1, 1, 1, 0):", float(gini(torch.tensor([1.0, 1.0, 1.0, 0.0]))))
