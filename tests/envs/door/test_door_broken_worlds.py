"""Environments that break the rules before they are stepped are refused in one line that says what and where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

import envs
from envs.door.errors import EnvError


class World(ParallelEnv):
    """Two agents that do next to nothing."""

    metadata = {"name": "world"}  # noqa: RUF012
    possible_agents: Any = ["a_0", "a_1"]  # noqa: RUF012

    def observation_space(self, agent: str) -> Any:
        return spaces.Box(-1, 1, (2,))

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        self.agents = list(self.possible_agents)
        return {a: np.zeros(2, np.float32) for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        none = dict.fromkeys(self.agents, False)
        return self.reset()[0], dict.fromkeys(self.agents, 0.0), none, none, {a: {} for a in self.agents}


def broken(**parts: Any) -> type[World]:
    return type("Broken", (World,), parts)


def fails(*_: Any, **__: Any) -> Any:
    raise KeyError("nothing here")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"possible_agents": 5}, "possible_agents: expected a list of agents: TypeError"),
        ({"possible_agents": None}, "possible_agents: expected a list of agents: TypeError"),
        ({"possible_agents": []}, "possible_agents: expected at least one agent"),
        ({"possible_agents": ["a", "a"]}, "possible_agents: expected at least one agent and no name twice"),
        ({"observation_space": fails}, "observation_space of agent 'a_0': KeyError: 'nothing here'"),
        ({"action_space": fails}, "action_space of agent 'a_0': KeyError"),
        ({"action_space": lambda self, agent: 3}, "action_space of agent 'a_0': expected a gymnasium space, got int"),
        ({"reset": lambda self, seed=None, options=None: (5, 6)}, "got int, int; both are dicts by agent"),
        ({"reset": fails}, "first reset: KeyError"),
    ],
)
def test_broken_worlds_are_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(EnvError, match=message) as caught:
        envs.make(broken(**parts), 2)
    assert "\n" not in str(caught.value)


def test_ends_are_true_or_false() -> None:
    def step(self: World, actions: dict[str, Any]) -> Any:
        result = World.step(self, actions)
        return (*result[:2], dict.fromkeys(self.agents, "no"), *result[3:])

    env = envs.make(broken(step=step), 1)
    env.reset(0)
    with pytest.raises(EnvError, match="terminations of agent 'a_0': expected True or False, got 'no'"):
        env.step(torch.zeros(1, 2, 1, dtype=torch.int64))


def test_a_world_that_cannot_be_closed_says_so() -> None:
    env = envs.make(broken(close=fails), 1)
    env.reset(0)
    with pytest.raises(EnvError, match="close: KeyError"):
        env.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_cycles": "x"}, "argument max_cycles of environment 'spread': expected a whole number, got 'x'"),
        ({"max_cycles": 1.5}, "expected a whole number, got 1.5"),
        ({"max_cycles": True}, "expected a whole number, got True"),
        ({"continuous_actions": "x"}, "expected true or false, got 'x'"),
        ({"num_agent_neighbors": 0.5}, "expected a whole number or nothing, got 0.5"),
        ({"local_ratio": "half"}, "expected a number, got 'half'"),
    ],
)
def test_arguments_of_native_worlds_are_of_their_types(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        envs.make("spread", **arguments)
    assert envs.make("spread", local_ratio=1, num_agent_neighbors=None).num_envs == 1
