"""Scenarios of VMAS: all copies stepped as tensors by VMAS itself, and one copy with the Parallel API.

VMAS (Bettini et al. 2022, arXiv:2207.03530) batches its own copies, so they need no workers. Its random draws are those
of all copies at once: the numbers depend on the root seed and on how many copies there are. Before every call VMAS's
generators are seeded from (root seed, number of the call), so that nothing of them has to be kept.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv
from torch import Tensor

from coordination import rng
from envs.base import Step, View, check_action
from envs.door.errors import EnvError, explain
from envs.door.foreign import VMAS, needed
from envs.door.layout import Layout, Teams
from envs.door.memory import recall, restore
from envs.graphs import GraphSetting, GraphSource
from envs.spaces import ActionSpec

STEPS = 100  # length of an episode where ``max_steps`` is not given; VMAS alone would go on for ever


class VmasCopy(ParallelEnv):
    """One copy of a scenario with the Parallel API.

    Args:
        scenario: Its name in ``vmas.scenarios``.
        num_envs: Copies inside; only the first is stepped, the others are the business of :class:`VmasVectorEnv`.
        device: Where the tensors live.
        num_agents: How many agents; None leaves it to the scenario.
        max_steps: Steps after which an episode is truncated.
        args: Arguments of ``vmas.make_env`` and of the scenario.
    """

    def __init__(
        self,
        scenario: str,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        num_agents: int | None = None,
        max_steps: int | None = STEPS,
        **args: Any,
    ) -> None:
        count = {} if num_agents is None else {"n_agents": num_agents}
        self.env = needed("vmas").make_env(
            scenario,
            num_envs,
            device,
            max_steps=max_steps,
            terminated_truncated=True,
            clamp_actions=True,
            **count,
            **args,
        )
        self.metadata, self.render_mode = {"name": scenario}, None
        self.possible_agents = [agent.name for agent in self.env.agents]
        self.agents: list[str] = []
        pairs = zip(self.env.observation_space, self.env.action_space, strict=True)
        own = [(_space(seen), _space(done)) for seen, done in pairs]  # VMAS's spaces are those of the old gym
        self._spaces = dict(zip(self.possible_agents, own, strict=True))

    def observation_space(self, agent: str) -> spaces.Space:
        """What this agent sees."""
        return self._spaces[agent][0]

    def action_space(self, agent: str) -> spaces.Space:
        """What this agent can do."""
        return self._spaces[agent][1]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Begin an episode."""
        self.agents = list(self.possible_agents)
        return self._each(self.env.reset(seed=seed)), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Advance by one step; the episode ends for all agents at once."""
        chosen = [torch.as_tensor(np.asarray(actions[a], np.float32)).reshape(1, -1) for a in self.possible_agents]
        obs, rewards, terminated, truncated, _ = self.env.step(chosen)
        agents, over, cut = self.agents, bool(terminated[0]), bool(truncated[0])
        if over or cut:
            self.agents = []
        told = {agent: float(reward[0]) for agent, reward in zip(agents, rewards, strict=True)}
        infos: dict[str, dict[str, Any]] = {agent: {} for agent in agents}
        return self._each(obs), told, dict.fromkeys(agents, over), dict.fromkeys(agents, cut), infos

    def _each(self, obs: list[Any]) -> dict[str, Any]:
        return {agent: _numpy(seen) for agent, seen in zip(self.possible_agents, obs, strict=True)}


class VmasVectorEnv:
    """B copies of a scenario as a VectorEnv, on any device.

    Attributes:
        resume_exact: Whether the agents saw the same when a state was last restored.
        layout: Where each agent stands on the axis.
        graph_source: What makes the graphs of its views.

    Args:
        path: ``vmas:SCENARIO``.
        args: Arguments of :class:`VmasCopy`.
        num_envs: Number of copies B.
        device: Where everything lives and is computed.
        seed: Root seed until :meth:`reset` gives another.
        graph: Who hears whom, one of the settings in :mod:`envs.graphs`.
        teams: Who wins together, as in :meth:`envs.door.layout.Layout.with_teams`.

    Raises:
        EnvError: If VMAS is not installed, or the scenario cannot be made.
        ValueError: If an argument does not fit.
    """

    def __init__(
        self,
        path: str,
        args: Mapping[str, Any],
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        seed: int = 0,
        graph: GraphSetting = None,
        teams: Teams = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs: must be at least 1, got {num_envs}")
        self.num_envs, self.device, self.resume_exact = num_envs, torch.device(device), True
        self._seed, self._calls, self._started, self._closed = seed, 0, False, False
        needed("vmas")
        try:
            with self._randomness():
                face = VmasCopy(path.removeprefix(VMAS), num_envs, self.device, **args)
        except Exception as error:
            raise explain(error, path) from error
        self.layout = Layout.of(face).with_teams(teams, face.possible_agents)
        self.agents, self._env = self.layout.agents, face.env
        self._packages = ("vmas", type(self._env.scenario).__module__.split(".")[0])
        slot_of = {slot.agent: i for i, slot in enumerate(self.layout.slots)}
        self._slots = [slot_of[name] for name in face.possible_agents]  # of each agent, as VMAS orders them
        self._widths = [ActionSpec.from_space(face.action_space(name)).components for name in face.possible_agents]
        shape = (num_envs, self.agents.num_agents)
        self._alive = torch.ones(shape, dtype=torch.bool, device=self.device)
        self.graph_source = GraphSource(graph, self, rng.derive(seed, "graph"))

    def reset(self, seed: int | None = None) -> View:
        """Start every copy anew; without a seed the current stream goes on."""
        self._check_open("reset")
        if seed is not None:
            self._seed, self._calls = seed, 0
        self._started = True
        with self._randomness():
            return self._view(self._env.reset())

    def step(self, action: Tensor) -> Step:
        """Advance every copy; those whose episode ends restart at once."""
        self._check_open("step")
        if not self._started:
            raise RuntimeError("step: call reset first")
        check_action(action, self.agents, self.num_envs)
        chosen = [action[:, slot, :width] for slot, width in zip(self._slots, self._widths, strict=True)]
        with self._randomness():
            obs, rewards, terminated, truncated, _ = self._env.step(chosen)
        reward = torch.zeros_like(self._alive, dtype=torch.float32)
        for slot, value in zip(self._slots, rewards, strict=True):
            reward[:, slot] = value.reshape(self.num_envs)  # some scenarios give [B, 1]
        over = terminated | truncated
        next_view = self._view(obs)
        view = self._view(self._begin_anew(over)) if over.any() else next_view
        flags = [flag.unsqueeze(-1).expand_as(self._alive) for flag in (terminated, truncated & ~terminated)]
        return Step(view, next_view, reward, flags[0], flags[1], over)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the objects of the scenario remember, the seed and the number of calls."""
        if not self._started:
            raise RuntimeError("state_dict: call reset first")
        held = recall(self._env, self._packages)
        return {"seed": self._seed, "calls": self._calls, "seen": self._look().obs, "held": held}

    def load_state_dict(self, state: dict[str, Any]) -> View:
        """Restore :meth:`state_dict`; returns the current view.

        A few scenarios remember in ways that are not found. Where the agents would see something else than before,
        all copies start new episodes and :attr:`resume_exact` is False.

        Raises:
            ValueError: If the state belongs to another scenario or number of copies.
        """
        self._check_open("load_state_dict")
        seen, shape = state["seen"].to(self.device), (*self._alive.shape, self.agents.obs_dim)
        if tuple(seen.shape) != shape:
            raise ValueError(
                f"saved observations: expected [B, N, O] = {shape}, got {tuple(seen.shape)}; "
                "resume with the same num_envs and environment"
            )
        self._seed, self._calls, self._started = state["seed"], state["calls"], True
        self.resume_exact = restore(self._env, self._packages, state["held"]) and bool((self._look().obs == seen).all())
        return self._look() if self.resume_exact else self.reset()

    def close(self) -> None:
        """Nothing to free; the environment takes no further steps."""
        self._closed = True

    def _begin_anew(self, over: Tensor) -> list[Any]:
        """Restart copies; what all agents see then."""
        with self._randomness():
            if bool(over.all()):
                return self._env.reset()
            for copy in over.nonzero().flatten().tolist():
                self._env.reset_at(copy, return_observations=False)
            return self._observe()

    def _look(self) -> View:
        with self._randomness(count=False):
            return self._view(self._observe())

    def _observe(self) -> list[Any]:
        return self._env.get_from_scenario(get_observations=True, get_rewards=False, get_infos=False, get_dones=False)[
            0
        ]

    def _view(self, obs: list[Any]) -> View:
        seen = torch.zeros(self.num_envs, self.agents.num_agents, self.agents.obs_dim, device=self.device)
        for slot, value in zip(self._slots, obs, strict=True):
            flat = _flat(value)
            seen[:, slot, : flat.shape[-1]] = flat
        return View(seen, self._alive, self.graph_source(seen, self._alive))

    def _check_open(self, what: str) -> None:
        if self._closed:
            raise RuntimeError(f"{what}: the environment is closed; make a new one")

    @contextlib.contextmanager
    def _randomness(self, count: bool = True) -> Iterator[None]:
        """Give VMAS generators seeded for this call, and put back what it had; the process's own stay untouched."""
        self._calls += count
        seed = rng.derive(self._seed, "vmas", self._calls)
        shared = needed("vmas", "vmas.simulator.environment.environment").Environment.vmas_random_state
        kept = list(shared)
        shared[:] = [
            torch.Generator().manual_seed(seed).get_state(),
            np.random.RandomState(seed % 2**32).get_state(),
            random.Random(seed).getstate(),
        ]
        on_gpu = self.device.type == "cuda"
        try:
            with torch.random.fork_rng(devices=[self.device] if on_gpu else [], enabled=on_gpu):
                if on_gpu:
                    with torch.cuda.device(self.device):
                        torch.cuda.manual_seed(seed)
                yield
        finally:
            shared[:] = kept


def _space(space: Any) -> spaces.Space:
    """A space of the old gym as one of gymnasium."""
    kind = type(space).__name__
    if kind == "Box":
        return spaces.Box(space.low, space.high, space.shape, space.dtype)
    if kind == "Discrete":
        return spaces.Discrete(int(space.n))
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(space.nvec)
    if kind == "Dict":
        return spaces.Dict({key: _space(child) for key, child in space.spaces.items()})
    raise EnvError(f"VMAS: {kind} spaces are not supported")


def _numpy(seen: Any) -> Any:
    """What one agent sees in the first copy."""
    return {key: _numpy(value) for key, value in seen.items()} if isinstance(seen, dict) else seen[0].cpu().numpy()


def _flat(seen: Any) -> Tensor:
    """What one agent sees in all copies, ``[B, O]``; parts of a dictionary in the order of its gymnasium space."""
    if isinstance(seen, dict):
        return torch.cat([_flat(seen[key]) for key in sorted(seen)], -1)
    return seen.flatten(1).float()
