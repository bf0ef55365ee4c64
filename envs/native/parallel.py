"""NativeParallel: the PettingZoo face of a native task, one copy at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv
from torch import Tensor

from envs.base import View
from envs.native import NativeEnv, Task
from envs.render.film import Film
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import Group

MASK = "action_mask"
RGB = "rgb_array"


class NativeParallel(ParallelEnv[str, Any, Any]):
    """One copy of a native task as a PettingZoo environment; its AEC form comes from ``parallel_to_aec``.

    Observations are flat float32 vectors without padding; where the task has action masks, agents with discrete
    actions get a dict of ``observation`` and ``action_mask`` (int8, in the form their action space samples by).
    Passive groups are not listed: they never act. Agents leave ``agents`` when they terminate, are truncated or die.
    PettingZoo knows no agent that comes back; where slots can be filled again (``ends_early`` is False) all agents
    stay listed until the horizon, and an empty slot sees zeros and is paid nothing.

    Args:
        task: The rules.
        seed: Root seed until :meth:`reset` gives another.
        name: What to call it; None for the name of the task's class.
        render_mode: ``rgb_array`` for pictures by :meth:`render`, or None.

    Raises:
        ValueError: If there is no such render mode.
    """

    def __init__(self, task: Task[Any], seed: int = 0, name: str | None = None, render_mode: str | None = None) -> None:
        if render_mode not in (None, RGB):
            raise ValueError(f"render_mode: expected {RGB!r} or None, got {render_mode!r}")
        self.task, self._env = task, NativeEnv(task, 1, seed=seed)
        name = name or type(task).__name__
        self.metadata = {"name": name, "render_modes": [RGB], "render_fps": 10, "is_parallelizable": True}
        self.render_mode = render_mode
        self._film = Film(self._env, name) if render_mode == RGB else None
        masked = task.view(task.initial(torch.Generator(), 1)).action_mask is not None
        self.possible_agents, self._index, self._group = [], {}, {}
        self.observation_spaces, self.action_spaces = {}, {}
        for group in task.agents.acting:
            for i in range(group.start, group.start + group.size):
                name = task.agents.names[i]
                self.possible_agents.append(name)
                self._index[name], self._group[name] = i, group
                self.observation_spaces[name] = _observation_space(group, masked)
                self.action_spaces[name] = _action_space(_acts(group))
        if task.agents.state_dim is not None:
            self.state_space = spaces.Box(-np.inf, np.inf, (task.agents.state_dim,), np.float32)
        self.agents: list[str] = []
        self._view: View | None = None

    def observation_space(self, agent: str) -> spaces.Space:
        """What this agent sees; always the same object."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        """What this agent can do; always the same object."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Begin an episode; without a seed the current stream goes on. There are no options."""
        self._view = self._env.reset(seed)
        if self._film is not None:
            self._film.begin(self._view)
        self.agents = self._listed(self._view.alive[0] | (not self.task.ends_early))
        return self._observe(self._view, self.agents), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Advance by one step; what is returned covers the agents that acted and those that came to life.

        Raises:
            RuntimeError: If no episode is running.
            ValueError: If a living agent has no action, or one that does not exist.
        """
        if not self.agents:
            raise RuntimeError("step: no episode is running, call reset first")
        step = self._env.step(self._pack(actions))
        before, view = self.agents, step.next_view
        if self._film is not None:
            self._film.step(step)
        self._view = view
        alive, terminated, truncated = view.alive[0], step.terminated[0], step.truncated[0]
        if not self.task.ends_early:
            alive, terminated, truncated = alive | True, terminated & False, step.over.expand_as(truncated)
        self.agents = self._listed(alive & ~(terminated | truncated))
        told = before + [agent for agent in self.agents if agent not in before]
        info = {name: value[0].tolist() for name, value in step.info.items()}
        return (
            self._observe(view, told),
            self._each(step.reward[0], told),
            self._each(terminated, told),
            self._each(truncated, told),
            {a: {k: v[self._index[a]] if isinstance(v, list) else v for k, v in info.items()} for a in told},
        )

    def state(self) -> np.ndarray:
        """``[S]`` global state.

        Raises:
            NotImplementedError: If the task has none.
            RuntimeError: Before the first reset.
        """
        if self.task.agents.state_dim is None:
            raise NotImplementedError(f"{self.metadata['name']} has no global state")
        if self._view is None or self._view.state is None:
            raise RuntimeError("state: call reset first")
        return self._view.state[0].numpy().copy()

    def render(self) -> np.ndarray | None:
        """The state just reached with the communication graph over it, ``[H, W, 3]`` uint8; None without render mode.

        Raises:
            RuntimeError: Before the first reset.
        """
        if self._film is None:
            return None
        if self._view is None:
            raise RuntimeError("render: call reset first")
        return self._film.frame()

    def _listed(self, present: Tensor) -> list[str]:
        there = present.tolist()
        return [agent for agent in self.possible_agents if there[self._index[agent]]]

    def _each(self, values: Tensor, agents: list[str]) -> dict[str, Any]:
        listed = values.tolist()
        return {agent: listed[self._index[agent]] for agent in agents}

    def _observe(self, view: View, agents: list[str]) -> dict[str, Any]:
        obs = torch.where(view.alive[0].unsqueeze(-1), view.obs[0], 0).numpy()  # dead slots may hold anything
        mask = None if view.action_mask is None else view.action_mask[0].numpy().astype(np.int8)
        seen = {}
        for agent in agents:
            i, group = self._index[agent], self._group[agent]
            seen[agent] = flat = obs[i, : group.observation.dim].copy()
            if mask is not None and (sizes := _acts(group).sizes):
                stops = np.cumsum(sizes)
                parts = tuple(mask[i, stop - size : stop].copy() for size, stop in zip(sizes, stops, strict=True))
                seen[agent] = {"observation": flat, MASK: parts[0] if len(parts) == 1 else parts}
        return seen

    def _pack(self, actions: dict[str, Any]) -> Tensor:
        """The actions of living agents as ``[1, N, A]``, zero elsewhere."""
        if missing := [agent for agent in self.agents if agent not in actions]:
            raise ValueError(f"actions: expected one for every living agent, none for {', '.join(missing)}")
        spec = self.task.agents
        packed = np.zeros((1, spec.num_agents, spec.action_dim), np.int64 if spec.discrete else np.float32)
        for agent in self.agents:
            flat = _components(_acts(self._group[agent]), actions[agent], agent)
            packed[0, self._index[agent], : flat.size] = flat
        return torch.from_numpy(packed)


def _acts(group: Group) -> ActionSpec:
    assert group.action is not None, "only acting groups are listed"
    return group.action


def _components(action: ActionSpec, given: Any, agent: str) -> np.ndarray:
    """One agent's action as ``[components]``, refused if it is not in its space (boxes are clipped by the task)."""
    flat = np.asarray(given).reshape(-1)
    if flat.size != action.components:
        raise ValueError(f"action of {agent}: expected {action.components} components, got {flat.size}")
    if action.kind == "discrete" and (flat.dtype.kind not in "iu" or ((flat < 0) | (flat >= action.sizes)).any()):
        raise ValueError(f"action of {agent}: expected integers from 0, below {action.sizes}, got {flat.tolist()}")
    return flat


def _observation_space(group: Group, masked: bool) -> spaces.Space:
    seen: ObservationSpec = group.observation
    flat = spaces.Box(-np.inf, np.inf, (seen.dim,), np.float32)
    parts = [spaces.Box(0, 1, (size,), np.int8) for size in _acts(group).sizes]
    if not masked or not parts:
        return flat
    return spaces.Dict({"observation": flat, MASK: parts[0] if len(parts) == 1 else spaces.Tuple(parts)})


def _action_space(action: ActionSpec) -> spaces.Space:
    if action.kind == "box":
        return spaces.Box(np.array(action.low, np.float32), np.array(action.high, np.float32), dtype=np.float32)
    return spaces.Discrete(action.sizes[0]) if action.components == 1 else spaces.MultiDiscrete(list(action.sizes))
