"""Turns: an AEC environment with the Parallel API in which one step is the turn of one agent."""

from __future__ import annotations

from typing import Any

import numpy as np
from pettingzoo import AECEnv, ParallelEnv

MASK = "action_mask"  # PettingZoo's name for it, in Dict observations and in infos


class Turns(ParallelEnv):
    """A turn-based environment, stepped one turn at a time.

    A step reads the action of the one agent in :attr:`acting` and tells everybody what they see now and what that turn
    earned them; rewards that fall between an agent's own turns are told when they occur. Agents that have ended are
    stepped with None at once, as the AEC API wants it. Whoever does not choose is told that everything is allowed:
    its action is not read.

    Attributes:
        acting: Who chooses now: one agent, or nobody once the episode is over.

    Args:
        env: The AEC environment.
    """

    def __init__(self, env: AECEnv) -> None:
        self.env = env
        self.metadata = env.metadata
        self.render_mode = getattr(env, "render_mode", None)
        self.possible_agents = list(env.possible_agents)
        self.agents: list[Any] = []
        self.acting: list[Any] = []
        self._ended: set[Any] = set()  # agents whose end was told, while the AEC environment still lists them

    def observation_space(self, agent: Any) -> Any:
        """What this agent sees."""
        return self.env.observation_space(agent)

    def action_space(self, agent: Any) -> Any:
        """What this agent can do."""
        return self.env.action_space(agent)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[Any, Any], dict[Any, dict[str, Any]]]:
        """Begin an episode."""
        self.env.reset(seed=seed, options=options)
        self._ended = set()
        self._bury()
        return {a: self._observe(a) for a in self.agents}, {a: self._info(a) for a in self.agents}

    def step(
        self, actions: dict[Any, Any]
    ) -> tuple[dict[Any, Any], dict[Any, float], dict[Any, bool], dict[Any, bool], dict[Any, dict[str, Any]]]:
        """Take the turn of the agent that acts; all living agents are told the outcome."""
        env = self.env
        env.step(actions[env.agent_selection])
        told = [a for a in env.agents if a not in self._ended]
        rewards = {a: float(env.rewards.get(a, 0.0)) for a in told}
        terminated = {a: bool(env.terminations[a]) for a in told}
        truncated = {a: bool(env.truncations[a]) for a in told}
        over = [a for a in told if terminated[a] or truncated[a]]
        self._ended.update(over)
        self.acting = []
        observations, infos = {a: self._observe(a) for a in over}, {a: self._info(a) for a in over}
        self._bury()
        observations |= {a: self._observe(a) for a in self.agents}
        infos |= {a: self._info(a) for a in self.agents}
        return observations, rewards, terminated, truncated, infos

    def state(self) -> np.ndarray:
        """The environment's own global state."""
        return self.env.state()

    def render(self) -> Any:
        """What the environment draws."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _bury(self) -> None:
        """Step agents that have ended with None until a living one is to choose."""
        env = self.env
        while env.agents and (env.terminations[env.agent_selection] or env.truncations[env.agent_selection]):
            env.step(None)
        self._ended &= set(env.agents)
        self.agents = [a for a in env.agents if a not in self._ended]
        self.acting = [env.agent_selection] if self.agents else []

    def _observe(self, agent: Any) -> Any:
        seen = self.env.observe(agent)
        if agent in self.acting or not isinstance(seen, dict) or MASK not in seen:
            return seen
        return {**seen, MASK: np.ones_like(seen[MASK])}

    def _info(self, agent: Any) -> dict[str, Any]:
        info = self.env.infos.get(agent, {})
        return info if agent in self.acting else {name: value for name, value in info.items() if name != MASK}
