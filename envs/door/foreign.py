"""Environments of other kinds than PettingZoo's, each as a ParallelEnv, by ids such as ``gymnasium:CartPole-v1``.

===============================  ================================================================================
id                               what it names
===============================  ================================================================================
``gymnasium:CartPole-v1``        a single-agent environment of gymnasium's registry
``lbforaging:Foraging-...-v3``   level-based foraging (Christianos et al. 2020, arXiv:2006.07169), of any size
``rware:rware-tiny-2ag-v2``      the warehouse (Papoudakis et al. 2021, arXiv:2006.07869)
``mamujoco:Ant-2x4``             a MuJoCo body shared by agents (Peng et al. 2021, arXiv:2003.06709): scenario and parts
``vmas:balance``                 a scenario of VMAS (Bettini et al. 2022, arXiv:2207.03530): :mod:`envs.door.vmas`
===============================  ================================================================================

A package is imported when one of its environments is made. Keyword arguments go to the environment itself.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from envs.door.errors import EnvError

VMAS = "vmas:"  # how its ids begin; the package steps all copies by itself
PACKAGES = {  # module -> what to install
    "gymnasium_robotics": "gymnasium-robotics",
    "lbforaging": "lbforaging",
    "magent2": "magent2",
    "rware": "rware",
    "vmas": "vmas",
}
FORAGING = re.compile(
    r"Foraging(?P<sight>-2s)?-(?P<size>\d+)x(?P=size)-(?P<players>\d+)p-(?P<food>\d+)f(?P<coop>-coop)?-v3"
)


class Together(ParallelEnv):
    """A gymnasium environment whose agents act at once, with the Parallel API; one without tuples has one agent.

    Observations, actions and rewards of several agents are tuples or lists; ends are flags of the whole episode.

    Args:
        env: The gymnasium environment.
        timed_out: Says whether an episode that the environment calls terminated was only cut by its time limit; then
            it is told as truncated.
    """

    def __init__(self, env: gymnasium.Env, timed_out: Callable[[Any], bool] | None = None) -> None:
        self.env, self._timed_out = env, timed_out
        self.metadata, self.render_mode = env.metadata, env.render_mode
        seen, done = env.observation_space, env.action_space
        self._several = isinstance(seen, spaces.Tuple) and isinstance(done, spaces.Tuple)
        self._seen = list(seen.spaces) if isinstance(seen, spaces.Tuple) and self._several else [seen]
        self._done = list(done.spaces) if isinstance(done, spaces.Tuple) and self._several else [done]
        self.possible_agents = [f"agent_{i}" for i in range(len(self._seen))]
        self._index = {agent: i for i, agent in enumerate(self.possible_agents)}
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> spaces.Space:
        """What this agent sees."""
        return self._seen[self._index[agent]]

    def action_space(self, agent: str) -> spaces.Space:
        """What this agent can do."""
        return self._done[self._index[agent]]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Begin an episode."""
        seen, info = self.env.reset(seed=seed, options=options)
        self.agents = list(self.possible_agents)
        return self._each(seen), self._infos(info)

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Advance by one step; the episode ends for all agents at once."""
        chosen = [actions[agent] for agent in self.possible_agents]
        seen, reward, terminated, truncated, info = self.env.step(tuple(chosen) if self._several else chosen[0])
        over, cut = bool(np.all(terminated)), bool(np.all(truncated))
        if over and self._timed_out is not None and self._timed_out(self.env.unwrapped):
            over, cut = False, True
        agents = self.agents
        if over or cut:
            self.agents = []
        rewards = {agent: float(r) for agent, r in self._each(reward).items()}
        return self._each(seen), rewards, dict.fromkeys(agents, over), dict.fromkeys(agents, cut), self._infos(info)

    def render(self) -> Any:
        """What the environment draws."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _each(self, values: Any) -> dict[str, Any]:
        return dict(zip(self.possible_agents, values if self._several else [values], strict=True))

    def _infos(self, info: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {agent: {} if self._several else info for agent in self.possible_agents}


class Foragers(Together):
    """Level-based foraging, with three things put right.

    An episode that ends by its step limit with food left is truncated. An episode does not depend on the one before,
    from which the environment keeps the players' places while it looks for new ones. Players are hashed by their
    number, since the order in which the environment walks through sets of them decides who gets contested food.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env, lambda e: e.current_step >= e._max_episode_steps and e.field.sum() > 0)
        self._players: list[Any] = env.unwrapped.players  # type: ignore[attr-defined]
        numbered = type("NumberedPlayer", (type(self._players[0]),), {"__hash__": lambda self: self.number})
        for number, player in enumerate(self._players):
            player.__class__, player.number = numbered, number

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Begin an episode."""
        for player in self._players:
            player.position = None
        return super().reset(seed, options)


def solo(name: str, num_agents: int = 1, **args: Any) -> Together:
    """A single-agent environment of gymnasium's registry; its agent is ``agent_0``.

    Raises:
        ValueError: If more than one agent is asked for.
    """
    if num_agents != 1:
        raise ValueError(f"num_agents: gymnasium environments have one agent, got {num_agents}")
    return Together(gymnasium.make(name, disable_env_checker=True, **args))


def foraging(name: str, num_agents: int | None = None, **args: Any) -> Together:
    """Level-based foraging of lbforaging 2.0, whose own registry stops at 4 foods, 9 players and side 19.

    Raises:
        ValueError: If there is no task of this name.
    """
    needed("lbforaging")
    players = {} if num_agents is None else {"players": num_agents}
    if name not in gymnasium.registry:
        _register_foraging(name)
    return Foragers(gymnasium.make(name, disable_env_checker=True, **players, **args))


def _register_foraging(name: str) -> None:
    """Add a task that the package knows how to play but does not list, with the arguments it gives its own."""
    match = FORAGING.fullmatch(name)
    if match is None:
        raise ValueError(f"lbforaging has no task {name!r}; expected a name such as Foraging-2s-10x10-3p-3f-coop-v3")
    size = int(match["size"])
    gymnasium.register(
        id=name,
        entry_point="lbforaging.foraging:ForagingEnv",
        kwargs={
            "players": int(match["players"]),
            "min_player_level": 1,
            "max_player_level": 2,
            "field_size": (size, size),
            "min_food_level": 1,
            "max_food_level": None,
            "max_num_food": int(match["food"]),
            "sight": 2 if match["sight"] else size,
            "max_episode_steps": 50,
            "force_coop": bool(match["coop"]),
            "grid_observation": False,
            "penalty": 0.0,
        },
    )


def warehouse(name: str, num_agents: int | None = None, **args: Any) -> Together:
    """The multi-robot warehouse of rware 2.0; its episodes end by limits alone and are told as truncated."""
    needed("rware")
    agents = {} if num_agents is None else {"n_agents": num_agents}
    return Together(gymnasium.make(name, disable_env_checker=True, **agents, **args), lambda env: True)


def body(name: str, **args: Any) -> ParallelEnv:
    """A MuJoCo body whose joints are shared out over agents, ``Scenario-parts``, such as ``HalfCheetah-6x1``."""
    scenario, _, parts = name.partition("-")
    module = needed("gymnasium_robotics", "gymnasium_robotics.envs.multiagent_mujoco.mamujoco_v1")
    return module.parallel_env(scenario=scenario, agent_conf=parts or None, **args)


def _scenario(name: str, **args: Any) -> ParallelEnv:
    needed("vmas")
    return importlib.import_module("envs.door.vmas").VmasCopy(name, **args)


MAKERS: dict[str, Callable[..., ParallelEnv]] = {
    "gymnasium": solo,
    "lbforaging": foraging,
    "mamujoco": body,
    "rware": warehouse,
    "vmas": _scenario,
}


def maker(path: str) -> Callable[..., ParallelEnv] | None:
    """What makes the environment of an id above; None for everything else."""
    prefix, colon, name = path.partition(":")
    return partial(MAKERS[prefix], name) if colon and prefix in MAKERS else None


def needed(package: str, module: str | None = None) -> ModuleType:
    """Import a module of an optional package.

    Raises:
        EnvError: If the package is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module or package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise EnvError(f"the package {package} is not installed; pip install {PACKAGES[package]}") from None
