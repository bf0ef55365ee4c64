"""Memory: GRU and LSTM against torch, unrolling against stepping, forgetting, and PPO on sequences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import envs
from coordination import rng, tree
from coordination.graph import Graph
from coordination.signals import build
from coordination.topology import Topology
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec
from marl.algorithms.base import Setting
from marl.algorithms.config import PPOConfig
from marl.algorithms.ppo import PPO
from marl.collector import Collector
from marl.networks.build import build_critic, build_policy
from marl.networks.config import CriticConfig, GraphConfig, MemoryConfig, MLPConfig, NetworkConfig
from marl.networks.layers.recurrent import GRU, LSTM
from marl.networks.layers.sharing import Sharing

N, STEPS, COPIES = 3, 6, 4
ONE = Sharing([0] * N, "all")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(memory: str = "gru", critic: str = "local", graph: bool = False, sharing: str = "all") -> NetworkConfig:
    policy = GraphConfig(hidden=8) if graph else MLPConfig(hidden=(8,))
    return NetworkConfig(
        policy=policy, critic=CriticConfig(name=critic), memory=MemoryConfig(name=memory, hidden=8), sharing=sharing
    )


def spec() -> AgentSpec:
    return AgentSpec.single(N, ObservationSpec.flat(4), ActionSpec.discrete(3))


def views(alive: Tensor | None = None) -> View:
    obs = torch.randn(STEPS, COPIES, N, 4, generator=seeded(1))
    alive = torch.ones(STEPS, COPIES, N, dtype=torch.bool) if alive is None else alive
    return View(obs, alive, Graph(topology=Topology([[0, 1, 2], [1, 2, 0]], N)))


def test_gru_equals_torch() -> None:
    own, torchs = GRU(4, 8, ONE, seeded()), nn.GRUCell(4, 8)
    for linear, weight, bias in ((own.feed, "weight_ih", "bias_ih"), (own.recur, "weight_hh", "bias_hh")):
        getattr(torchs, weight).data = linear.weight[0].T.clone()
        getattr(torchs, bias).data = linear.bias[0].clone()
    x, h = torch.randn(5, N, 4, generator=seeded(1)), torch.randn(5, N, 8, generator=seeded(2))
    found, _ = own(x, h, torch.zeros(5, N, dtype=torch.bool))
    torch.testing.assert_close(found.flatten(0, 1), torchs(x.flatten(0, 1), h.flatten(0, 1)))


def test_lstm_equals_torch() -> None:
    own, torchs = LSTM(4, 8, ONE, seeded()), nn.LSTMCell(4, 8)
    swap = torch.tensor([0, 1, 3, 2]).repeat_interleave(8) * 8 + torch.arange(8).repeat(4)  # torch: i f g o
    for linear, weight, bias in ((own.feed, "weight_ih", "bias_ih"), (own.recur, "weight_hh", "bias_hh")):
        getattr(torchs, weight).data = linear.weight[0].T[swap].clone()
        getattr(torchs, bias).data = linear.bias[0][swap].clone()
    torchs.bias_ih.data[8:16] += LSTM.KEEP_BIAS
    x, hc = torch.randn(5, N, 4, generator=seeded(1)), torch.randn(5, N, 16, generator=seeded(2))
    _, found = own(x, hc, torch.zeros(5, N, dtype=torch.bool))
    h, c = torchs(x.flatten(0, 1), tuple(part.flatten(0, 1) for part in hc.chunk(2, -1)))
    torch.testing.assert_close(found.flatten(0, 1), torch.cat([h, c], -1))


@pytest.mark.parametrize("memory", ["gru", "lstm"])
@pytest.mark.parametrize("critic", ["local", "central", "graph"])
@pytest.mark.parametrize("sharing", ["all", "none"])
def test_unrolling_equals_stepping_and_episodes_are_isolated(memory: str, critic: str, sharing: str) -> None:
    alive = torch.rand(STEPS, COPIES, N, generator=seeded(3)) < 0.8
    view, start = views(alive), torch.rand(STEPS, COPIES, generator=seeded(4)) < 0.3
    config = network(memory, critic, graph=critic == "graph", sharing=sharing)
    for make in (build_policy, build_critic):
        net = make(config, spec(), seeded())
        readers = 1 if critic == "central" and make is build_critic else N
        hidden: Tensor | None = torch.randn(COPIES, readers, net.state_dim, generator=seeded(5))
        first = hidden
        whole, memories = net.unroll(view, hidden, start)
        for t in range(STEPS):
            out, hidden = net(tree.index(view, t), hidden, start[t])
            torch.testing.assert_close(whole[t][alive[t]], out[alive[t]])
            torch.testing.assert_close(memories[t], hidden)
        other, _ = net.unroll(view, first + 1, start)
        forgotten = start.cumsum(0) > 0
        assert torch.equal(other[forgotten], whole[forgotten])


def test_a_newborn_remembers_nothing_of_the_slot_before() -> None:
    alive = torch.ones(STEPS, COPIES, N, dtype=torch.bool)
    alive[2, :, 1] = False
    policy, start = build_policy(network(), spec(), seeded()), torch.zeros(STEPS, COPIES, dtype=torch.bool)
    whole, _ = policy.unroll(views(alive), None, start)
    fresh, _ = policy.unroll(tree.index(views(alive), slice(3, None)), None, start[3:])
    torch.testing.assert_close(whole[3:, :, 1], fresh[:, :, 1])
    assert not torch.allclose(whole[3:, :, 0], fresh[:, :, 0])


@pytest.mark.parametrize("critic", ["local", "central", "graph"])
def test_before_the_first_update_every_ratio_is_one(critic: str) -> None:
    env = envs.make("spread", 4)
    algorithm = PPO.build(
        PPOConfig(epochs=1, minibatches=2, normalise_value=False),
        network(critic=critic),
        Setting(env.agents, 4, build(None), 0, torch.device("cpu")),
    )
    collector = Collector(env, algorithm.policy, rng.generator(0, "act"))
    collector.reset(0)
    for _ in range(3):  # 10 steps each: rollouts begin and end inside the 25 steps of an episode
        rollout = collector.collect(10)
        remembered = algorithm.remembered.clone()
        samples = algorithm.prepare(rollout)
        log_prob, _ = algorithm.evaluate(samples)
        torch.testing.assert_close(log_prob, samples.log_prob, atol=1e-6, rtol=0)
        torch.testing.assert_close(algorithm.critic_output(samples), samples.value)
        algorithm.remembered.copy_(remembered)
        algorithm.learn(rollout)


def test_values_of_true_successors_remember_their_own_episode() -> None:
    env = envs.make("spread", 2, max_cycles=3)
    algorithm = PPO.build(
        PPOConfig(normalise_value=False), network(), Setting(env.agents, 2, build(None), 0, torch.device("cpu"))
    )
    collector = Collector(env, algorithm.policy, rng.generator(0, "act"))
    collector.reset(0)
    rollout = collector.collect(5)
    _, memory = algorithm.critic.unroll(rollout.view, algorithm.remembered, rollout.start)
    found = algorithm._final_value(rollout, memory)
    episode = tree.map(lambda *x: torch.stack(x), *(tree.index(rollout.view, t) for t in range(3)), rollout.final)
    never = torch.zeros(4, 2, dtype=torch.bool)
    torch.testing.assert_close(found, algorithm.critic.unroll(episode, None, never)[0][3])
