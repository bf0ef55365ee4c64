"""NativeParallel passes PettingZoo's own tests and says what the task says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test
from pettingzoo.utils.conversions import parallel_to_aec
from toy_tasks import Fading

import envs
from envs import registry
from envs.matrix.games import Climbing, TwoStep
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel
from envs.particle.spread import Spread
from envs.spaces import ActionSpec
from envs.spec import AgentSpec

TASKS = {
    "spread": Spread,
    "continuous": lambda: Spread(num_agents=2, continuous_actions=True),
    "climbing": Climbing,
    "two_step": TwoStep,
    "fading": Fading,
    "fading, cut": lambda: Fading(horizon=3),
}


@pytest.mark.parametrize("make", TASKS.values(), ids=TASKS.keys())
@pytest.mark.filterwarnings("error:Live agent", "error:Agent was given", "error:No agents")
@pytest.mark.filterwarnings("ignore:.*observation")  # that climbing shows nothing, and that nothing is bounded
def test_passes_pettingzoo(make):
    parallel_api_test(NativeParallel(make()), num_cycles=60)
    parallel_seed_test(lambda: NativeParallel(make()), num_cycles=30)
    api_test(parallel_to_aec(NativeParallel(make())), num_cycles=60)


@pytest.mark.parametrize("name", registry.ENVIRONMENTS)
@pytest.mark.filterwarnings("error:Live agent", "error:Agent was given", "error:No agents")
@pytest.mark.filterwarnings("ignore:.*observation")
def test_every_native_id_passes_pettingzoo_and_our_own_check(name):
    parallel_api_test(envs.parallel(name), num_cycles=30)
    parallel_seed_test(lambda: envs.parallel(name), num_cycles=15)
    api_test(parallel_to_aec(envs.parallel(name)), num_cycles=30)
    report = envs.check(lambda: envs.parallel(name), episodes=2, max_steps=40)
    assert report.passed, report.problems
    assert report.replayable


def test_equals_the_vectorised_environment():
    """The same seed and actions give the same numbers as one copy of NativeEnv."""
    env, many = NativeParallel(Spread()), NativeEnv(Spread(), 1)
    obs, _ = env.reset(seed=7)
    view = many.reset(seed=7)
    for t in range(25):
        assert np.array_equal(np.stack(list(obs.values())), view.obs[0].numpy())
        choices = [t % 5, (2 * t) % 5, 3]
        obs, reward, _, truncated, infos = env.step(dict(zip(env.agents, choices, strict=True)))
        step = many.step(torch.tensor(choices).view(1, 3, 1))
        view = step.next_view
        assert list(reward.values()) == step.reward[0].tolist()
        assert infos["agent_1"]["distance"] == float(step.info["distance"][0])
        assert all(truncated.values()) == (t == 24)
    assert env.agents == []


def test_spaces_follow_the_groups():
    env = NativeParallel(Fading())
    assert env.possible_agents == ["walker_0", "walker_1", "flyer_0"]
    assert env.action_space("walker_1") == spaces.Discrete(3)
    assert env.action_space("flyer_0") == spaces.Box(-1, 1, (2,), np.float32)
    assert env.observation_space("flyer_0") == spaces.Box(-np.inf, np.inf, (2,), np.float32)
    seen = env.observation_space("walker_0")
    assert isinstance(seen, spaces.Dict)
    assert (seen["observation"].shape, seen["action_mask"].shape) == ((3,), (3,))
    obs, _ = env.reset(seed=1)
    assert all(env.observation_space(agent).contains(obs[agent]) for agent in env.agents)
    assert env.state_space.shape == (1,)


class TwoWheels(Spread):
    """One agent with two discrete components, of which some choices are barred."""

    def __init__(self) -> None:
        super().__init__(num_agents=1)
        self.agents = AgentSpec.single(1, self.agents.groups[0].observation, ActionSpec.discrete(2, 3))

    def advance(self, state, action, generator):
        assert action.tolist() in ([[[1, 0]]], [[[1, 2]]])
        return super().advance(state, action[..., :1], generator)

    def view(self, state):
        return replace(super().view(state), action_mask=torch.tensor([[[False, True, True, False, True]]]))


def test_multi_discrete_actions_and_their_masks():
    parallel_api_test(NativeParallel(TwoWheels()), num_cycles=60)
    env = NativeParallel(TwoWheels())
    assert env.action_space("agent_0") == spaces.MultiDiscrete([2, 3])
    obs, _ = env.reset(seed=0)
    assert env.observation_space("agent_0").contains(obs["agent_0"])


def test_agents_leave_when_they_die():
    env = NativeParallel(Fading())
    for seed in range(5):
        env.reset(seed=seed)
        lived = dict.fromkeys(env.possible_agents, 0)
        while env.agents:
            before = list(env.agents)
            obs, reward, terminated, truncated, infos = env.step({a: env.action_space(a).sample() for a in before})
            assert set(obs) == set(reward) == set(terminated) == set(truncated) == set(infos) == set(before)
            assert env.agents == [a for a in before if not terminated[a]]
            assert not any(truncated.values())
            assert all(infos[a]["left"] == 0 for a in before if terminated[a])
            lived.update({a: lived[a] + 1 for a in before})
            assert np.isfinite(env.state()).all()
        assert set(lived.values()) <= {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ({"agent_0": 1}, "none for agent_1"),
        ({"agent_0": 1, "agent_1": 5}, r"action of agent_1: expected integers from 0, below \(5,\), got \[5\]"),
        ({"agent_0": 0.5, "agent_1": 1}, "action of agent_0: expected integers"),
        ({"agent_0": [1, 1], "agent_1": 1}, "action of agent_0: expected 1 components, got 2"),
    ],
)
def test_refuses_bad_actions(actions, message):
    env = NativeParallel(Spread(num_agents=2))
    env.reset()
    with pytest.raises(ValueError, match=message):
        env.step(actions)


def test_refuses_what_has_not_begun():
    env = NativeParallel(TwoStep())
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step({})
    with pytest.raises(RuntimeError, match="call reset first"):
        env.state()
    with pytest.raises(NotImplementedError, match="Spread has no global state"):
        NativeParallel(Spread()).state()
