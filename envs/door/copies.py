"""Copies: some copies of a PettingZoo environment, stepped one after the other into preallocated arrays.

The same class runs in process and in every worker, so the numbers do not depend on where the copies live. All
randomness of a copy descends from (root seed, copy, episode): the seed of each reset, and before every call the
global generators of ``numpy`` and ``random``, which many environments draw from. Seeding those anew at each step
(5 us) is cheaper than saving and restoring them for each copy (60 us), and needs nothing in a checkpoint.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from coordination import rng
from envs.door.errors import EnvError, explain
from envs.door.layout import Layout, begin, flat_mask
from envs.door.source import Source
from envs.door.turns import MASK, Turns

Arrays = dict[str, np.ndarray]
STEP_STRIDE = 0x9E3779B9  # odd, so the seeds of 2**32 successive steps differ


def seed_globals(seed: int) -> None:
    """Seed the global generators of ``random`` and ``numpy``, for environments that draw from them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - these are the generators that such environments use


@contextlib.contextmanager
def global_generators_kept() -> Iterator[None]:
    """Leave the caller's global generators as they were."""
    numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(numpys)  # noqa: NPY002
        random.setstate(pythons)


def build_copies(source: Source, seed: int, first: int, stop: int) -> list[ParallelEnv]:
    """The copies ``first`` to ``stop - 1``, each built under its own seed of the global generators."""
    made = []
    for copy in range(first, stop):
        seed_globals(rng.derive(seed, "copy", copy, "build"))
        made.append(source.build())
    return made


class Copies:
    """Copies ``first`` onwards of an environment, and their rows of the arrays of all B copies.

    Commands read and write the arrays alone (:meth:`Layout.shapes`) and concern the copies marked ``active``.

    Attributes:
        restarts, last_crash: How often a worker was started again, and why: never, since there is none.

    Args:
        envs: The copies.
        layout: How their agents lie on the agent axis.
        arrays: The arrays of all B copies.
        first: Number of the first of these copies.
        private: Whether the global generators of this process belong to the copies (in a worker they do).
    """

    restarts, last_crash = 0, None

    def __init__(
        self, envs: Sequence[ParallelEnv], layout: Layout, arrays: Arrays, first: int = 0, private: bool = False
    ) -> None:
        self.envs, self.arrays, self.first, self.private = envs, arrays, first, private
        self.rows = {n: a if n == "seed" else a[first : first + len(envs)] for n, a in arrays.items()}
        self.slots, self.turns = layout.slots, layout.turns
        self.slot_of = {slot.agent: i for i, slot in enumerate(layout.slots)}
        self.views = [name.removeprefix("final_") for name in arrays if name.startswith("final_")]
        self._living: list[list[Any]] = [[] for _ in envs]  # names, as the environment orders them
        self._seeds = [0] * len(envs)

    def reset(self) -> None:
        """Start the episode numbered ``episode`` in every active copy."""
        self._each(self._start)

    def step(self) -> None:
        """Take the actions in every active copy; those whose episode ends start the next one."""
        active = self.rows["active"]
        for name in ("reward", "terminated", "truncated", "over", "differs"):
            self.rows[name][active] = 0
        self.rows["clock"][active] += 1
        self._each(self._advance)

    def close(self) -> None:
        """Close every copy."""
        for env in self.envs:
            try:
                env.close()
            except Exception as error:
                raise explain(error, "close") from error

    def _each(self, act: Callable[[int], None]) -> None:
        """Do something with every active copy; an error says which copy it was, and where in its episode."""
        with contextlib.nullcontext() if self.private else global_generators_kept():
            for j in np.flatnonzero(self.rows["active"]).tolist():
                try:
                    act(j)
                except Exception as error:
                    episode, clock = int(self.rows["episode"][j]), int(self.rows["clock"][j])
                    raise explain(error, f"copy {self.first + j}, episode {episode}, step {clock}") from error

    def _start(self, j: int) -> None:
        episode = int(self.rows["episode"][j])
        seed = rng.derive(int(self.rows["seed"][0]), "copy", self.first + j, "episode", episode) % 2**31
        self._seeds[j] = seed
        self.rows["clock"][j] = 0
        seed_globals(seed)
        observations, infos = begin(self.envs[j], seed)
        agents = list(self.envs[j].agents)
        if not agents:
            raise EnvError("reset left no agents in env.agents")
        self._show(j, agents, observations, infos)
        self._living[j] = agents

    def _advance(self, j: int) -> None:
        env, living = self.envs[j], self._living[j]
        at, slots, components = self._at(living), self.slots, self.rows["action"][j]
        choosing = self._choosing(j) if self.turns else living
        theirs = self._at(choosing) if self.turns else at
        actions = {agent: slots[s].write(components[s]) for agent, s in zip(choosing, theirs, strict=True)}
        seed_globals(self._seeds[j] + STEP_STRIDE * int(self.rows["clock"][j]))
        result = env.step(actions)
        if not isinstance(result, tuple) or len(result) != 5:
            raise EnvError("step: expected (observations, rewards, terminations, truncations, infos)")
        observations, rewards, terminations, truncations, infos = result
        self.rows["reward"][j, at] = [_get(rewards, agent, "rewards") for agent in living]
        if env.agents == living and not any(terminations.values()) and not any(truncations.values()):
            self._write(j, living, observations, infos)
        else:
            self._change(j, observations, terminations, truncations, infos)

    def _change(self, j: int, observations: Mapping, terminations: Mapping, truncations: Mapping, infos: Mapping):
        """A step after which agents leave, join, or the episode ends.

        The true successor holds those who stay, those who join and those who were cut off, whose value is bootstrapped;
        the next view holds the first two. Flags decide, since some environments keep the dead in ``agents``.
        """
        rows, before = self.rows, self._living[j]
        for name, flags in (("terminations", terminations), ("truncations", truncations)):
            if odd := [agent for agent, flag in flags.items() if isinstance(flag, str | Mapping | list | tuple)]:
                raise EnvError(f"{name} of agent {odd[0]!r}: expected True or False, got {flags[odd[0]]!r}")
        terminated = [a for a in before if terminations.get(a)]
        truncated = [a for a in before if truncations.get(a) and a not in terminated]
        gone = {*terminated, *truncated}
        staying = [a for a in self.envs[j].agents if a not in gone]
        if lost := [a for a in before if a not in gone and a not in staying]:
            raise EnvError(f"agent {lost[0]!r} left env.agents without a termination or truncation")
        rows["terminated"][j][self._at(terminated)] = True
        rows["truncated"][j][self._at(truncated)] = True
        self._living[j] = staying
        self._show(j, staying + truncated, observations, infos, leaving=truncated)
        if truncated or not staying:
            rows["differs"][j] = True
            for name in self.views:
                rows[f"final_{name}"][j] = rows[name][j]
        if not staying:
            rows["over"][j] = True
            rows["episode"][j] += 1
            self._start(j)
        elif truncated:
            away = self._at(truncated)
            rows["obs"][j][away] = 0
            rows["alive"][j][away] = False
            if "mask" in rows:
                rows["mask"][j][away] = True

    def _show(self, j: int, agents: list[Any], observations: Mapping, infos: Mapping, leaving: Sequence[Any] = ()):
        """Write the view of exactly these agents; the slots of all others are empty."""
        self.rows["obs"][j] = 0
        self.rows["alive"][j] = False
        self.rows["alive"][j][self._at(agents)] = True
        if "mask" in self.rows:
            self.rows["mask"][j] = True
        self._write(j, agents, observations, infos, leaving)

    def _write(self, j: int, agents: list[Any], observations: Mapping, infos: Mapping, leaving: Sequence[Any] = ()):
        """Write what the living agents see."""
        obs, masked = self.rows["obs"][j], "mask" in self.rows
        for agent, s in zip(agents, self._at(agents), strict=True):
            slot, value = self.slots[s], _get(observations, agent, "observations")
            obs[s, : slot.obs_dim] = slot.read(value)
            info = infos.get(agent)
            if masked or (info and MASK in info):
                mask = value[MASK] if slot.mask_in_obs else (info or {}).get(MASK)
                if mask is not None and agent not in leaving:
                    self._write_mask(j, agent, s, mask)
        if self.turns:
            self.rows["acts"][j] = False
            self.rows["acts"][j, self._at(self._choosing(j))] = True
        if "state" in self.rows:  # some environments have none once all have ended
            self.rows["state"][j] = np.asarray(self.envs[j].state()).reshape(-1) if agents else 0

    def _write_mask(self, j: int, agent: Any, s: int, mask: Any) -> None:
        if "mask" not in self.rows:
            raise EnvError(f"infos of agent {agent!r} hold an action_mask, but not at the first reset; give it always")
        flat = flat_mask(mask, self.slots[s].logits, agent)
        if not flat.any():
            raise EnvError(f"action_mask of agent {agent!r} allows nothing")
        row = self.rows["mask"][j, s]
        row[:] = True
        row[: flat.size] = flat

    def _choosing(self, j: int) -> list[Any]:
        """Who takes the next turn in a turn-based environment."""
        env = self.envs[j]
        assert isinstance(env, Turns)
        return env.acting

    def _at(self, agents: Sequence[Any]) -> list[int]:
        """Slots of agents.

        Raises:
            EnvError: If one is not in ``possible_agents``.
        """
        try:
            return [self.slot_of[a] for a in agents]
        except KeyError as error:
            raise EnvError(f"agent {error.args[0]!r} is not in possible_agents") from None


def _get(values: Mapping, agent: Any, what: str) -> Any:
    try:
        return values[agent]
    except KeyError:
        raise EnvError(f"{what} lack agent {agent!r}") from None
