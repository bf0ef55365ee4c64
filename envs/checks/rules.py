"""The rules of PettingZoo's Parallel API, watched step by step: what an environment must tell of whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from envs.door.errors import EnvError
from envs.door.layout import flat_mask
from envs.door.turns import MASK
from envs.spaces import ActionSpec, to_space

TOLD = ("observations", "rewards", "terminations", "truncations", "infos")


class Findings:
    """What was found, each kind of fault once, where it was first seen."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.notes: dict[str, str] = {}

    def problem(self, kind: str, text: str) -> None:
        """A broken rule."""
        self.problems.setdefault(kind, text)

    def note(self, kind: str, text: str) -> None:
        """Something worth knowing that breaks no rule."""
        self.notes.setdefault(kind, text)


class Referee:
    """Checks every reset and step of one environment, and finds actions that its masks allow.

    Args:
        env: The environment.
        findings: Where faults are written down.
    """

    def __init__(self, env: ParallelEnv, findings: Findings) -> None:
        self.env, self.findings = env, findings
        self.possible = list(env.possible_agents)
        if len(set(self.possible)) != len(self.possible) or not self.possible:
            raise EnvError(f"possible_agents: expected distinct names, got {self.possible}")
        self.seen = {agent: env.observation_space(agent) for agent in self.possible}
        self.done = {agent: env.action_space(agent) for agent in self.possible}
        self.spec = {agent: ActionSpec.from_space(space, f"action of {agent}") for agent, space in self.done.items()}
        for agent in self.possible:
            if env.observation_space(agent) is not self.seen[agent] or env.action_space(agent) is not self.done[agent]:
                findings.note("spaces", f"the spaces of {agent} are new objects at every call; keep them")
        self.ended: set[Any] = set()

    def reset(self, result: Any) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """Check what reset gave; returns its observations and infos.

        Raises:
            EnvError: If it has not the form of a reset, so that nothing can follow.
        """
        if not (isinstance(result, tuple) and len(result) == 2 and all(isinstance(part, Mapping) for part in result)):
            raise EnvError(f"reset: expected two dicts, observations and infos, got {type(result).__name__}")
        self.ended = set()
        obs, infos = result
        if not self.env.agents:
            raise EnvError("reset: no agents afterwards")
        self._agents("reset")
        self._told({"observations": obs, "infos": infos}, list(self.env.agents), "reset")
        self._observations(obs, infos, list(self.env.agents), "reset")
        return dict(obs), dict(infos)

    def step(self, acting: list[Any], result: Any, when: str) -> tuple[dict[Any, Any], ...]:
        """Check what a step gave to the agents that acted; returns its five dicts.

        Raises:
            EnvError: If it has not the form of a step, so that nothing can follow.
        """
        if not (isinstance(result, tuple) and len(result) == 5 and all(isinstance(part, Mapping) for part in result)):
            raise EnvError(f"{when}: expected five dicts, {', '.join(TOLD)}, got {type(result).__name__}")
        told = {name: dict(values) for name, values in zip(TOLD, result, strict=True)}
        obs, rewards, terminated, truncated, infos = told.values()
        self._agents(when)
        self._told(told, acting, when)
        self._observations(obs, infos, acting, when)
        for agent in acting:
            self._scalars(agent, rewards, terminated, truncated, when)
        self._lives(acting, rewards, terminated, truncated, when)
        return tuple(told.values())

    def act(self, obs: dict[Any, Any], infos: dict[Any, Any], generator: np.random.Generator) -> dict[Any, Any]:
        """Random actions of all living agents, uniform over what the masks allow."""
        actions = {}
        for agent in self.env.agents:
            spec = self.spec[agent]
            if spec.kind == "box":
                components = _sample_box(spec, generator)
            else:
                mask = self._mask(agent, obs.get(agent), infos.get(agent))
                components = _sample_discrete(spec, np.ones(spec.logits, bool) if mask is None else mask, generator)
            actions[agent] = to_space(self.done[agent], components)
        return actions

    def _mask(self, agent: Any, obs: Any, info: Any) -> np.ndarray | None:
        for told in (obs, info):
            if isinstance(told, Mapping) and MASK in told and self.spec[agent].kind == "discrete":
                return flat_mask(told[MASK], self.spec[agent].logits, agent)
        return None

    def _agents(self, when: str) -> None:
        agents = list(self.env.agents)
        if len(set(agents)) != len(agents):
            self.findings.problem("twice", f"{when}: agents lists the same agent twice: {agents}")
        if strangers := [agent for agent in agents if agent not in self.possible]:
            raise EnvError(f"{when}: agents holds {strangers}, which are not among possible_agents")

    def _told(self, told: dict[str, dict[Any, Any]], expected: list[Any], when: str) -> None:
        for name, values in told.items():
            if missing := [agent for agent in expected if agent not in values]:
                self.findings.problem(f"missing {name}", f"{when}: no {name} for {_some(missing)}, which took part")

    def _observations(self, obs: dict[Any, Any], infos: dict[Any, Any], told: list[Any], when: str) -> None:
        for agent in told:
            if agent in obs and (fault := space_fault(self.seen[agent], obs[agent])):
                self.findings.problem(f"observation {fault}", f"{when}: observation of {agent} {fault}")
        for agent in self.env.agents:
            mask = self._mask(agent, obs.get(agent), infos.get(agent))
            if mask is not None and not all(part.any() for part in _components(mask, self.spec[agent])):
                self.findings.problem("mask", f"{when}: action_mask of {agent} allows no choice")

    def _scalars(self, agent: Any, rewards: dict, terminated: dict, truncated: dict, when: str) -> None:
        reward = rewards.get(agent, 0.0)
        if np.size(reward) != 1 or not np.isfinite(reward).all():
            self.findings.problem("reward", f"{when}: reward of {agent}: expected a finite number, got {reward}")
        for name, flags in (("terminated", terminated), ("truncated", truncated)):
            if agent in flags and not isinstance(flags[agent], bool | np.bool_):
                self.findings.problem(name, f"{when}: {name} of {agent}: expected a bool, got {flags[agent]!r}")
        if terminated.get(agent) and truncated.get(agent):
            self.findings.note("both", f"{when}: {agent} is terminated and truncated at once; it counts as terminated")

    def _lives(self, acting: list[Any], rewards: dict, terminated: dict, truncated: dict, when: str) -> None:
        after = set(self.env.agents)
        out = {agent for agent in acting if terminated.get(agent) or truncated.get(agent)}
        if staying := [agent for agent in acting if agent in out & after]:
            self.findings.problem("stays", f"{when}: {_some(staying)} ended, but is still among agents")
        if vanished := [agent for agent in acting if agent not in out | after]:
            self.findings.problem(
                "vanishes", f"{when}: {_some(vanished)} left agents without being terminated or truncated"
            )
        if back := [agent for agent in self.possible if agent in self.ended & after]:
            self.findings.note("returns", f"{when}: {_some(back)} came back after its end")
        for agent in [a for a in rewards if a not in acting and a not in after]:
            if np.any(rewards[agent]):
                self.findings.problem("dead", f"{when}: reward {rewards[agent]} for {agent}, which is not alive")
            else:
                self.findings.note("dead", f"{when}: agents that are not alive are told zero rewards")
        self.ended = (self.ended | out) - after


def space_fault(space: spaces.Space, value: Any) -> str:
    """How a value fails to lie in its space, or the empty string; unlike ``contains``, dtypes must be equal."""
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or set(value) != set(space.spaces):
            return f"expected a dict of {', '.join(map(str, space.spaces))}, got {_keys(value)}"
        faults = [(key, space_fault(child, value[key])) for key, child in space.spaces.items()]
        return next((f"[{key!r}] {fault}" for key, fault in faults if fault), "")
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple) or len(value) != len(space.spaces):
            return f"expected a tuple of {len(space.spaces)}, got {_keys(value)}"
        return next((f for f in map(space_fault, space.spaces, value) if f), "")
    if isinstance(space, spaces.Box):
        return _box_fault(space, value)
    return "" if space.contains(value) else f"{value!r} is not in {space}"


def _box_fault(space: spaces.Box, value: Any) -> str:
    if not isinstance(value, np.ndarray | np.generic):
        return f"is a {type(value).__name__}, its space says an array"
    if value.shape != space.shape:
        return f"has shape {value.shape}, its space says {space.shape}"
    if value.dtype != space.dtype:
        return f"has dtype {value.dtype}, its space says {space.dtype}"
    if np.isnan(value).any():
        return "holds NaN"
    inside = np.greater_equal(value, space.low) & np.less_equal(value, space.high)
    return "" if inside.all() else f"lies outside {space}"


def _components(mask: np.ndarray, spec: ActionSpec) -> list[np.ndarray]:
    """The mask of each discrete component."""
    return np.split(mask, np.cumsum(spec.sizes)[:-1])


def _sample_discrete(spec: ActionSpec, mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One allowed choice for each component; the first where none is allowed."""
    return np.array([generator.choice(part.nonzero()[0]) if part.any() else 0 for part in _components(mask, spec)])


def _sample_box(spec: ActionSpec, generator: np.random.Generator) -> np.ndarray:
    low, high = np.array(spec.low), np.array(spec.high)
    bounded = np.isfinite(low) & np.isfinite(high)
    uniform = generator.uniform(np.where(bounded, low, 0), np.where(bounded, high, 1))
    return np.where(bounded, uniform, np.clip(generator.standard_normal(low.shape), low, high))


def _keys(value: Any) -> str:
    return f"a dict of {', '.join(map(str, value))}" if isinstance(value, Mapping) else type(value).__name__


def _some(agents: list[Any]) -> str:
    return str(agents[0]) if len(agents) == 1 else f"{agents[0]} and {len(agents) - 1} more"
