"""Learning on probe worlds with known answers: values, discounts, choices, and what only a link can tell."""

from __future__ import annotations

import pytest
import torch
from probes import Chosen, Constant, Delayed, Partner, Probe, Remembered, Seen

from coordination import rng
from coordination.signals import build
from envs.native import NativeEnv
from marl.algorithms.base import Setting
from marl.algorithms.config import PPOConfig
from marl.algorithms.ppo import PPO
from marl.collector import Collector
from marl.networks.config import CriticConfig, GraphConfig, MemoryConfig, MLPConfig, NetworkConfig
from marl.report.evaluate import NetworkAct, evaluate

GAMMA = 0.9


def learned(
    task: Probe, critic: str = "central", policy: object = None, iterations: int = 60, memory: str | None = None
) -> PPO:
    env = NativeEnv(task, 32)
    remembers = None if memory is None else MemoryConfig(name=memory, hidden=32)
    network = NetworkConfig(
        policy=policy or MLPConfig(hidden=(32,)), critic=CriticConfig(name=critic), memory=remembers
    )
    config = PPOConfig(gamma=GAMMA, lam=1.0, epochs=4, minibatches=1, learning_rate=3e-3)
    algorithm = PPO.build(config, network, Setting(env.agents, 32, build(None), 0, torch.device("cpu")))
    collector = Collector(env, algorithm.policy, rng.generator(0, "act"))
    collector.reset(0)
    for _ in range(iterations):
        algorithm.learn(collector.collect(8))
    return algorithm


def values(algorithm: PPO, task: Probe, step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    state = task.initial(rng.generator(1), 64)
    state = type(state)(state.bit, state.step + step)
    with torch.no_grad():
        return algorithm.value(task.view(state)), state.bit


@pytest.mark.parametrize("critic", ["local", "central", "graph"])
def test_the_value_of_a_constant_reward_is_that_reward(critic: str) -> None:
    value, _ = values(learned(Constant(), critic, iterations=40), Constant())
    assert (value - 1).abs().max() < 0.05


@pytest.mark.parametrize("critic", ["local", "central", "graph"])
def test_the_value_follows_what_is_seen(critic: str) -> None:
    value, bit = values(learned(Seen(), critic), Seen())
    assert (value - (2 * bit - 1)).abs().max() < 0.15


def test_the_value_of_a_delayed_reward_is_discounted_and_stops_at_the_end() -> None:
    algorithm = learned(Delayed())
    assert (values(algorithm, Delayed())[0] - GAMMA).abs().max() < 0.1
    assert (values(algorithm, Delayed(), step=1)[0] - 1).abs().max() < 0.1


def mean_reward(algorithm: PPO, task: Probe) -> float:
    return evaluate(NativeEnv(task, 64), NetworkAct(algorithm.policy), 256, 3).mean / task.agents.num_agents


@pytest.mark.parametrize("critic", ["local", "central"])
def test_the_policy_learns_what_it_sees(critic: str) -> None:
    assert mean_reward(learned(Chosen(), critic), Chosen()) > 0.99


@pytest.mark.parametrize("layer", ["mean", "sum", "attention", "GCNConv"])
def test_a_graph_policy_learns_what_only_a_link_can_tell(layer: str) -> None:
    if layer == "GCNConv":  # it cannot tell itself from its neighbours, so not whose bit it sees: 1/2 + 1/4 at most
        assert 0.65 < mean_reward(learned(Partner(), "central", GraphConfig(hidden=32, layer=layer)), Partner()) < 0.85
    else:
        assert mean_reward(learned(Partner(), "central", GraphConfig(hidden=32, layer=layer)), Partner()) > 0.99


def test_without_links_nothing_better_than_chance_is_possible() -> None:
    task = Partner(linked=False)
    assert 0.4 < mean_reward(learned(task, "central", GraphConfig(hidden=32)), task) < 0.6


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_memory_learns_what_was_seen_before(memory: str) -> None:
    assert mean_reward(learned(Remembered(), "local", memory=memory), Remembered()) > 0.99


def test_without_memory_the_past_is_a_coin() -> None:
    assert 0.4 < mean_reward(learned(Remembered(), "local"), Remembered()) < 0.6


def test_unshared_weights_learn_as_well() -> None:
    env = NativeEnv(Chosen(), 32)
    network = NetworkConfig(policy=MLPConfig(hidden=(32,)), critic=CriticConfig(name="local"), sharing="none")
    config = PPOConfig(epochs=4, minibatches=1, learning_rate=3e-3)
    algorithm = PPO.build(config, network, Setting(env.agents, 32, build("team"), 0, torch.device("cpu")))
    collector = Collector(env, algorithm.policy, rng.generator(0, "act"))
    collector.reset(0)
    for _ in range(60):
        algorithm.learn(collector.collect(8))
    assert mean_reward(algorithm, Chosen()) > 0.99
