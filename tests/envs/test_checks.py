"""envs.check finds what is wrong with broken environments, and nothing wrong with good ones."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv
from toy_tasks import Fading

from envs.checks import check
from envs.checks.rules import space_fault
from envs.door.errors import EnvError
from envs.matrix.games import Climbing, TwoStep
from envs.native.parallel import NativeParallel
from envs.particle.spread import Spread


class Good(ParallelEnv):
    """Two agents walk on a line; a leaves after 3 steps, b is cut after 5."""

    metadata = {"name": "good"}  # noqa: RUF012 - PettingZoo's form

    def __init__(self):
        self.possible_agents = ["a", "b"]
        seen = spaces.Dict({"observation": spaces.Box(-9, 9, (2,), np.float32), "action_mask": spaces.MultiBinary(3)})
        self.spaces = {agent: (seen, spaces.Discrete(3)) for agent in self.possible_agents}
        self.agents = []

    def observation_space(self, agent):
        return self.spaces[agent][0]

    def action_space(self, agent):
        return self.spaces[agent][1]

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.agents, self.t = list(self.possible_agents), 0
        self.place = {agent: float(self.random.uniform(-1, 1)) for agent in self.agents}
        return {agent: self.observe(agent) for agent in self.agents}, {agent: {} for agent in self.agents}

    def mask(self, agent):
        return np.array([1, self.t % 2, 1], np.int8)

    def observe(self, agent):
        return {"observation": np.array([self.place[agent], self.t], np.float32), "action_mask": self.mask(agent)}

    def step(self, actions):
        for agent, action in actions.items():
            if not self.mask(agent)[action]:
                raise RuntimeError("a barred action")
            self.place[agent] += action - 1 + 0.1 * self.noise()
        self.t += 1
        acting = self.agents
        terminated = {agent: agent == "a" and self.t == 3 for agent in acting}
        truncated = {agent: agent == "b" and self.t == 5 for agent in acting}
        self.agents = [agent for agent in acting if not (terminated[agent] or truncated[agent])]
        obs = {agent: self.observe(agent) for agent in acting}
        return obs, {agent: self.place[agent] for agent in acting}, terminated, truncated, {a: {} for a in acting}

    def noise(self):
        return self.random.uniform()


class Drifts(Good):
    """Random from step 2 on, from a generator nobody seeds: PettingZoo's own test passes it."""

    hidden = np.random.default_rng()

    def noise(self):
        return self.hidden.uniform() if self.t >= 2 else 0.0


class Remembers(Good):
    """Something survives a reset."""

    total = 0

    def noise(self):
        self.total += 1
        return self.total


class GlobalNumpy(Good):
    def noise(self):
        return np.random.uniform()  # noqa: NPY002


class GlobalPython(Good):
    def noise(self):
        return random.random()


class GlobalTorch(Good):
    def noise(self):
        return float(torch.rand(()))


class GlobalSeeded(GlobalNumpy):
    """Seeds the global generator at reset: exact alone, but not beside another copy."""

    def reset(self, seed=None, options=None):
        np.random.seed(seed)  # noqa: NPY002
        return super().reset(seed)


class Unseeded(Good):
    def reset(self, seed=None, options=None):
        return super().reset(seed=0)


class WrongShape(Good):
    def observe(self, agent):
        obs = super().observe(agent)
        return {**obs, "observation": obs["observation"][:1]} if self.t == 2 else obs


class WrongDtype(Good):
    def observe(self, agent):
        obs = super().observe(agent)
        return {**obs, "observation": obs["observation"].astype(np.float64)}


class OutOfBounds(Good):
    def observe(self, agent):
        obs = super().observe(agent)
        return {**obs, "observation": obs["observation"] + np.float32(20)}


class HoldsNaN(Good):
    def observe(self, agent):
        obs = super().observe(agent)
        return {**obs, "observation": obs["observation"] * np.float32(np.nan)}


class NoChoice(Good):
    def mask(self, agent):
        return np.zeros(3, np.int8) if self.t == 1 else np.ones(3, np.int8)


class ShortMask(Good):
    def reset(self, seed=None, options=None):
        obs, infos = super().reset(seed)
        return obs, {agent: {"action_mask": np.ones(3, np.int8)} for agent in infos}

    def observe(self, agent):
        return {**super().observe(agent), "action_mask": np.ones(2, np.int8)}


class Changed(Good):
    """A good environment whose step returns something else, by :meth:`change`."""

    def step(self, actions):
        return self.change(*super().step(actions))


class RewardsTheDead(Changed):
    def change(self, obs, rewards, terminated, truncated, infos):
        return obs, {"a": 1.0, **rewards}, terminated, truncated, infos


class ToldZero(Changed):
    def change(self, obs, rewards, terminated, truncated, infos):
        return obs, {"a": 0.0, **rewards}, terminated, truncated, infos


class NaNReward(Changed):
    def change(self, obs, rewards, terminated, truncated, infos):
        return obs, dict.fromkeys(rewards, float("nan")), terminated, truncated, infos


class NoReward(Changed):
    def change(self, obs, rewards, terminated, truncated, infos):
        return obs, {}, terminated, truncated, infos


class Stays(Changed):
    def change(self, obs, rewards, terminated, truncated, infos):
        self.agents = [agent for agent in self.possible_agents if self.t < 6]
        return obs, rewards, terminated, truncated, infos


class Vanishes(Changed):
    def change(self, obs, rewards, terminated, truncated, infos):
        return obs, rewards, dict.fromkeys(terminated, False), truncated, infos


class Both(Changed):
    def change(self, obs, rewards, terminated, truncated, infos):
        return obs, rewards, terminated, {k: v or terminated[k] for k, v in truncated.items()}, infos


class FourThings(Changed):
    def change(self, obs, rewards, terminated, truncated, infos):
        return obs, rewards, terminated, infos


class Crashes(Changed):
    def change(self, *told):
        raise KeyError("lost")


class Returns(Changed):
    """Agent a comes back two steps after it ended."""

    def change(self, obs, rewards, terminated, truncated, infos):
        if self.t == 4:
            self.agents = ["a", "b"]
            obs, infos = {**obs, "a": self.observe("a")}, {**infos, "a": {}}
        if self.t == 5:
            terminated["a"], self.agents = True, []
        return obs, rewards, terminated, truncated, infos


BROKEN = {
    Drifts: "the same seed and actions gave other observations at step 2",
    Remembers: "the same seed and actions gave other observations at step 0",
    WrongShape: r"step 1: observation of a \['observation'\] has shape \(1,\), its space says \(2,\)",
    WrongDtype: r"reset: observation of a \['observation'\] has dtype float64, its space says float32",
    OutOfBounds: "lies outside Box",
    HoldsNaN: "holds NaN",
    NoChoice: "step 0: action_mask of a allows no choice",
    ShortMask: "action_mask of agent 'a': expected 3 entries, got 2",
    RewardsTheDead: "step 3: reward 1.0 for a, which is not alive",
    NaNReward: "step 0: reward of a: expected a finite number, got nan",
    NoReward: "step 0: no rewards for a and 1 more, which took part",
    Stays: "step 2: a ended, but is still among agents",
    Vanishes: "step 2: a left agents without being terminated or truncated",
    FourThings: "step 0: expected five dicts",
    Crashes: "seed 0, step 0: KeyError: 'lost'",
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_finds_the_fault(kind):
    report = check(kind())
    assert not report.passed
    assert any(re.search(BROKEN[kind], problem) for problem in report.problems), report.problems
    with pytest.raises(EnvError, match=BROKEN[kind]):
        report.raise_if_failed()


NOTED = {
    GlobalNumpy: "other observations at step 0 once the global generators were disturbed",
    GlobalPython: "other observations at step 0 once the global generators were disturbed",
    GlobalSeeded: "other observations at step 0 once the global generators were disturbed",
    GlobalTorch: "other observations at step 0 once the global generators were disturbed",
    Unseeded: "seeds 0 and 1 give the same episode",
    ToldZero: "step 3: agents that are not alive are told zero rewards",
    Both: "step 2: a is terminated and truncated at once",
    Returns: "step 3: a came back after its end",
}


@pytest.mark.parametrize("kind", NOTED, ids=lambda kind: kind.__name__)
def test_notes_what_breaks_no_rule(kind):
    report = check(kind())
    report.raise_if_failed()
    assert any(NOTED[kind] in note for note in report.notes), report.notes
    assert report.replayable == (not kind.__name__.startswith("Global"))


@pytest.mark.parametrize(
    ("make", "length"),
    [
        (Good, 5),
        (lambda: NativeParallel(Spread()), 25),
        (lambda: NativeParallel(Spread(num_agents=2, continuous_actions=True)), 25),
        (lambda: NativeParallel(Fading(horizon=2)), 2),
        (lambda: NativeParallel(TwoStep()), 2),
        (lambda: NativeParallel(Climbing(steps=7)), 7),
        ("mpe2.simple_spread_v3", 25),
    ],
)
def test_finds_nothing_wrong_with_good_ones(make, length):
    """Objects, factories and import paths alike."""
    report = check(make if isinstance(make, str) else make())
    report.raise_if_failed()
    assert report.passed
    assert report.replayable
    assert report.episode_length == length
    assert len(report.agents) in (2, 3)


def test_global_generators_are_put_back():
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    check(GlobalNumpy)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002


def test_leaves_an_endless_episode():
    report = check(NativeParallel(Spread(max_cycles=1_000)), episodes=1, max_steps=10)
    report.raise_if_failed()
    assert "no end within 10 steps" in report.notes[0]


def test_refuses_nonsense():
    with pytest.raises(TypeError, match="expected"):
        check(3)
    with pytest.raises(ValueError, match="at least one episode"):
        check(Good(), episodes=0)


@pytest.mark.parametrize(
    ("space", "value", "fault"),
    [
        (spaces.Box(0, 1, (2,)), [0.0, 1.0], "is a list, its space says an array"),
        (spaces.Discrete(3), 3, "3 is not in Discrete"),
        (spaces.Dict({"x": spaces.Discrete(2)}), {"y": 1}, "expected a dict of x, got a dict of y"),
        (spaces.Tuple([spaces.Discrete(2)]), (1, 1), "expected a tuple of 1, got tuple"),
        (spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1, ())]), (1, np.float32(0.5)), ""),
    ],
)
def test_space_fault(space, value, fault):
    found = space_fault(space, value)
    assert found.startswith(fault)
    assert bool(found) == bool(fault)
