"""Learners from replay: targets by hand, losses that stay in their groups, warm-up, schedules and refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import marl
from coordination import rng
from coordination.graph import Graph
from coordination.signals import build
from coordination.topology import Topology
from envs.base import View
from envs.native import NativeEnv
from envs.particle.spread import Spread
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec
from marl.algorithms.base import Algorithm, Setting
from marl.algorithms.config import DDPGConfig, SACConfig, ValueConfig
from marl.algorithms.ddpg import DDPG
from marl.algorithms.sac import SAC
from marl.algorithms.value import ValueLearner
from marl.batch import Batch
from marl.collector import Collector
from marl.networks.config import CriticConfig, MemoryConfig, MLPConfig, NetworkConfig

GAMMA = 0.5


def setting(agents: AgentSpec, copies: int = 2, reward: str | None = None) -> Setting:
    return Setting(agents, copies, build(reward), 0, torch.device("cpu"))


def network(critic: str = "local", memory: bool = False) -> NetworkConfig:
    return NetworkConfig(
        policy=MLPConfig(hidden=(8,)),
        critic=CriticConfig(name=critic),
        memory=MemoryConfig(hidden=8) if memory else None,
    )


def made(kind: str, agents: AgentSpec, **keys: Any) -> Any:
    """A learner that begins to learn at once."""
    common = {"warmup": 0, "batch_size": 16, "capacity": 400, "gamma": GAMMA}
    if kind == "value":
        return ValueLearner.build(ValueConfig(**{**common, **keys}), network(), setting(agents))
    config: Any = (DDPGConfig if kind == "ddpg" else SACConfig)(**{**common, **keys})
    return (DDPG if kind == "ddpg" else SAC).build(config, network("central"), setting(agents))


def two_agents(team: tuple[int, ...] = (0, 0)) -> AgentSpec:
    return AgentSpec.single(2, ObservationSpec.flat(1), ActionSpec.discrete(2), team=team)


def batch(terminated: Any, truncated: Any = None, alive: Any = None) -> Batch:
    """One step of three copies, paid 1 and 2, whose true successors are the second views."""
    no = torch.zeros(1, 3, 2, dtype=torch.bool)
    lives = torch.ones(2, 3, 2, dtype=torch.bool)
    if alive is not None:
        lives[0] = torch.tensor(alive)
    obs = torch.randn(2, 3, 2, 1, generator=torch.Generator().manual_seed(0))
    return Batch(
        view=View(obs, lives, Graph(topology=Topology([[0], [1]], 2))),
        action=torch.zeros(1, 3, 2, 1, dtype=torch.int64),
        reward=torch.tensor([1.0, 2.0]).expand(1, 3, 2).clone(),
        terminated=no | torch.tensor(terminated),
        truncated=no if truncated is None else no | torch.tensor(truncated),
        start=torch.zeros(2, 3, dtype=torch.bool),
    )


def test_a_teams_target_bootstraps_until_its_last_member_terminates() -> None:
    learner = made("value", two_agents(), mixer="sum", double=False)
    some = batch([[[False, False], [True, False], [True, True]]])
    with torch.no_grad():
        following = learner.target_policy(some.later())[0].amax(-1).sum(-1)
    expected = 3 + GAMMA * torch.where(torch.tensor([True, True, False]), following[0], 0.0)
    torch.testing.assert_close(learner.target(some)[0, :, 0], expected)


def test_alone_each_agent_has_its_own_reward_and_end() -> None:
    learner = made("value", two_agents(), mixer="none", double=False)
    some = batch([[[False, False], [True, False], [True, True]]])
    with torch.no_grad():
        following = learner.target_policy(some.later())[0].amax(-1)
    expected = torch.tensor([1.0, 2.0]) + GAMMA * torch.where(some.terminated[0], 0.0, following[0])
    torch.testing.assert_close(learner.target(some)[0], expected)


def test_the_double_target_asks_the_learning_network_which_and_the_target_network_how_much() -> None:
    learner = made("value", two_agents(), mixer="none", double=True)
    with torch.no_grad():
        for p in learner.policy.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    some = batch(False)
    with torch.no_grad():
        which = learner.policy(some.later())[0].argmax(-1, keepdim=True)
        following = learner.target_policy(some.later())[0].gather(-1, which).squeeze(-1)
    torch.testing.assert_close(learner.target(some)[0], torch.tensor([1.0, 2.0]) + GAMMA * following[0])


def test_the_dead_are_paid_nothing_and_two_teams_do_not_mix() -> None:
    learner = made("value", two_agents((0, 1)), mixer="sum", double=False)
    some = batch(True, alive=[[True, True], [False, True], [True, False]])
    assert learner.target(some)[0].tolist() == [[1.0, 2.0], [0.0, 2.0], [1.0, 0.0]]


@pytest.mark.parametrize("kind", ["ddpg", "sac"])
def test_no_loss_moves_another_groups_weights(kind: str) -> None:
    learner = made(kind, Spread(continuous_actions=True).agents)
    collector = Collector(NativeEnv(Spread(continuous_actions=True), 2), learner.policy, rng.generator(0, "act"))
    collector.reset(0)
    some = collector.collect(1)
    action = learner.policy.head.encode(some.action)
    losses, _ = learner.policy_losses(some, action)
    losses["policy"].backward()
    assert all(p.grad is not None for p in learner.policy.parameters())
    assert all(p.grad is None for p in learner.critics.parameters())
    learner.policy.zero_grad(set_to_none=True)
    before = [p.clone() for p in learner.policy.parameters()]
    learner.policy_losses = lambda *_: ({}, {})
    learner.update(some, torch.ones(2))
    assert all(torch.equal(p, q) for p, q in zip(before, learner.policy.parameters(), strict=True))
    assert all(p.grad is None for p in learner.policy.parameters())


def test_targets_follow_slowly_or_all_at_once() -> None:
    for keys, share in (({"tau": 0.25}, 0.25), ({"target_every": 1}, 1.0), ({"target_every": 2}, 0.0)):
        learner = made("value", two_agents(), mixer="sum", **keys)
        with torch.no_grad():
            for p in learner.policy.parameters():
                p.add_(1.0)
        learner.updates = 1
        learner._follow()
        old, new = next(learner.target_policy.parameters()), next(learner.policy.parameters())
        torch.testing.assert_close(old, new - 1 + share)


def test_the_warm_up_is_random_and_learns_nothing() -> None:
    learner: Algorithm = made("value", Spread().agents, warmup=40, epsilon=0.5, epsilon_end=0.1, exploration=0.5)
    collector = Collector(NativeEnv(Spread(), 2), learner.policy, rng.generator(0, "act"))
    collector.reset(0)
    found = []
    for progress in (0.0, 0.1, 0.25, 0.5, 1.0):
        learner.schedule(progress)
        found.append((learner.policy.head.epsilon, bool(learner.learn(collector.collect(10)))))
    assert found == [
        (1.0, False),
        (1.0, True),
        (pytest.approx(0.3), True),
        (pytest.approx(0.1), True),
        (pytest.approx(0.1), True),
    ]


def test_lower_values_of_twins_are_believed() -> None:
    learner = made("ddpg", two_agents(), twin=True)
    view, action = batch(False).later(), torch.rand(1, 3, 2, 2)
    values = torch.stack([critic(view, action) for critic in learner.critics])
    assert torch.equal(learner.lowest(learner.critics, view, action), values.amin(0))
    assert not torch.equal(values[0], values[1])


def test_target_noise_touches_reals_alone_and_keeps_their_bounds() -> None:
    agents = Spread(continuous_actions=True).agents
    learner = made("ddpg", agents, smoothing=1.0, smoothing_clip=9.0)
    seen = []
    learner.lowest = lambda critics, view, action, own=None: seen.append(action) or action.sum(-1)
    env = NativeEnv(Spread(continuous_actions=True), 2)
    view = env.reset(0)
    learner.successor_values(torch.zeros(2, 3, agents.logits_dim), view)
    assert seen[0].abs().max() <= 1
    assert seen[0].unique().numel() > 5
    discrete = made("ddpg", two_agents(), smoothing=5.0)
    discrete.lowest = lambda critics, view, action, own=None: seen.append(action) or action.sum(-1)
    discrete.successor_values(torch.zeros(1, 3, 2, 2), batch(False).later())
    torch.testing.assert_close(seen[1], seen[1].round())  # one-hot, up to the rounding of the straight-through sum


@pytest.mark.parametrize("recipe", ["iql", "vdn", "qmix", "qplex"])
def test_learners_of_values_refuse_reals(recipe: str) -> None:
    with pytest.raises(ValueError, match="need discrete actions, got reals; use mappo, maddpg, matd3 or masac"):
        marl.train(env="spread", env_args={"continuous_actions": True}, algorithm=recipe, total_steps=10)


@pytest.mark.parametrize("recipe", ["maddpg", "masac"])
def test_actors_with_q_critics_need_bounds(recipe: str) -> None:
    class Unbounded(Spread):
        def __init__(self) -> None:
            super().__init__(continuous_actions=True)
            self.agents = AgentSpec.single(3, ObservationSpec.flat(18), ActionSpec.box(-float("inf"), 1, 5))

    with pytest.raises(ValueError, match="this algorithm needs finite bounds"):
        marl.train(env=Unbounded(), algorithm=recipe, num_envs=2, total_steps=10)


@pytest.mark.parametrize("recipe", ["vdn", "maddpg", "masac"])
def test_policies_that_remember_learn_from_sequences(recipe: str, tmp_path: Any) -> None:
    keys = {"name": recipe, "sequence": 4, "burn_in": 2, "warmup": 0, "batch_size": 8, "n_step": 2, "priority": 0.5}
    run = marl.train(
        env="spread",
        algorithm=keys,
        memory="gru",
        num_envs=2,
        rollout_steps=8,
        total_steps=160,
        run_dir=tmp_path / "run",
    )
    assert "learn/value_loss" in run.metrics()[-1]  # type: ignore[union-attr]
