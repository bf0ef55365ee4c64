"""Before the first update every probability ratio is one: masks, deaths, reals, memory, graphs, any sharing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from small_worlds import Mortals

import envs
from coordination import rng
from coordination.signals import build
from marl.algorithms.base import Setting
from marl.algorithms.config import PPOConfig
from marl.algorithms.ppo import PPO
from marl.collector import Collector
from marl.networks.config import CriticConfig, GraphConfig, MemoryConfig, MLPConfig, NetworkConfig

BODIES = {"mlp": MLPConfig(hidden=(8,), layer_norm=True), "graph": GraphConfig(hidden=8, layer="attention")}
WORLDS = {"choices": Mortals(3, 0), "reals": Mortals(0, 3), "both": Mortals(2, 1)}
CASES = [  # without sharing every world, body and memory; the other sharings where agents are of two kinds
    *itertools.product(WORLDS, BODIES, ("none",), (None, "gru")),
    *itertools.product(("both",), BODIES, ("all", "group"), (None, "lstm")),
]


@pytest.mark.parametrize(("world", "body", "sharing", "memory"), CASES)
def test_before_the_first_update_of_an_iteration_every_ratio_is_one(
    world: str, body: str, sharing: Any, memory: Any
) -> None:
    env = envs.make(WORLDS[world], 6)
    network = NetworkConfig(
        policy=BODIES[body],
        critic=CriticConfig(name="graph" if body == "graph" else "local"),
        memory=None if memory is None else MemoryConfig(name=memory, hidden=8),
        sharing=sharing,
        normalise_obs=True,
    )
    setting = Setting(env.agents, 6, build(None), 0, torch.device("cpu"))
    algorithm = PPO.build(PPOConfig(epochs=2, minibatches=2, learning_rate=0.01), network, setting)
    collector = Collector(env, algorithm.policy, rng.generator(0, "act"))
    collector.reset(0)
    for _ in range(3):  # 7 steps each: rollouts begin inside episodes of up to 5
        rollout = collector.collect(7)
        assert not rollout.view.alive.all()
        assert rollout.view.action_mask is not None
        assert not rollout.view.action_mask[rollout.view.alive].all()
        parameters = {name: x.clone() for name, x in algorithm.state_dict().items()}
        with torch.no_grad():
            losses, report = algorithm.losses(algorithm.prepare(rollout))
        assert float(report["kl"]) < 1e-10  # its terms are (ratio - 1) ** 2 / 2 and higher
        assert float(report["clipped"]) == 0
        assert all(bool(loss.isfinite()) for loss in losses.values())
        algorithm.load_state_dict(parameters)  # preparing takes targets into the moments, and the critic's memory
        algorithm.learn(rollout)


def test_the_ratio_moves_as_soon_as_the_policy_does() -> None:
    """The law above can fail: after an update the same report is far from zero."""
    env = envs.make(WORLDS["both"], 6)
    setting = Setting(env.agents, 6, build(None), 0, torch.device("cpu"))
    network = NetworkConfig(policy=BODIES["mlp"], critic=CriticConfig(name="local"))
    algorithm = PPO.build(PPOConfig(epochs=1, minibatches=1, learning_rate=0.01), network, setting)
    collector = Collector(env, algorithm.policy, rng.generator(0, "act"))
    collector.reset(0)
    rollout = collector.collect(7)
    algorithm.learn(rollout)
    with torch.no_grad():
        _, report = algorithm.losses(algorithm.prepare(rollout))
    assert float(report["kl"]) > 1e-6
