# %% [markdown]
# # Train a team and look at it
#
# Three agents must cover three landmarks (`spread`, equal to `mpe2.simple_spread_v3`). A graph policy lets each agent hear the others. This notebook trains for a
# minute's worth of steps; `make demo` does the same on the real third-party environment, for longer.

# %%
import matplotlib.pyplot as plt

import envs
import marl

run = marl.train(
    env="spread",
    policy={"name": "graph", "hidden": 64},
    algorithm={"name": "mappo", "learning_rate": 1e-3, "gamma": 0.9, "epochs": 5},
    total_steps=60_000,
    num_envs=64,
    evaluate={"every": 10, "final_episodes": 100},
)
run.summary()["return"]

# %% [markdown]
# A run is a folder; its metrics are rows.

# %%
rows = run.metrics()
plt.plot([r["env_steps"] for r in rows], [r["train/return"] for r in rows])
plt.xlabel("env steps")
plt.ylabel("team return per episode")

# %% [markdown]
# The trained team acts in PettingZoo's own loop, outside the trainer.

# %%
world = envs.parallel("spread")
actor = run.actor()
observations, infos = world.reset(seed=0)
total = 0.0
while world.agents:
    observations, rewards, terminations, truncations, infos = world.step(actor.act(observations, infos))
    total += sum(rewards.values())
print(f"team return of one episode: {total:.1f}")

# %% [markdown]
# The same weights are tested elsewhere by changing the environment's settings: on the real mpe2, or with all links cut.

# %%
for name, changes in {"native": {}, "mpe2": {"env": "mpe2.simple_spread_v3"}, "no links": {"graph": "none"}}.items():
    result = run.evaluate(100, policies=["greedy"], **changes)["greedy"]
    print(f"{name:10} {result.mean:7.1f} +- {result.standard_error:.1f}")
