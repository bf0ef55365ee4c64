"""How the agents of a PettingZoo environment lie on one agent axis: slots, groups, and the arrays of B copies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from envs.door.errors import EnvError, explain
from envs.door.turns import MASK, Turns
from envs.spaces import ActionSpec, ObservationSpec, flatten, to_space
from envs.spec import AgentSpec, Group

Shapes = dict[str, tuple[tuple[int, ...], str]]
Teams = Mapping[str, int] | Sequence[int] | str | None


@dataclass(frozen=True)
class Slot:
    """One place on the agent axis and how its agent's values become numbers.

    Attributes:
        agent: The environment's own name of the agent.
        obs_dim, logits: Columns of its observation and of its action mask.
        read: Its observation as a flat vector.
        write: Its action from components ``[A]``.
        mask_in_obs: Whether its observation is a Dict with an ``action_mask``.
    """

    agent: Any
    obs_dim: int
    logits: int
    read: Callable[[Any], np.ndarray]
    write: Callable[[np.ndarray], Any]
    mask_in_obs: bool


@dataclass(frozen=True)
class Layout:
    """Slots in the order of the agent axis, and the spec learners see.

    Attributes:
        agents: Groups of agents with equal spaces and name stem, each contiguous, in order of first appearance.
        slots: One for each agent.
        masked: Whether there are action masks.
        state_dim: Width of the environment's own global state, or None where it is not used.
        obs_dtype: ``uint8`` if every agent sees images or other bytes alone, else ``float32``.
        turns: Whether agents choose one after the other, so that views say who acts.
    """

    agents: AgentSpec
    slots: tuple[Slot, ...]
    masked: bool
    state_dim: int | None
    obs_dtype: str = "float32"
    turns: bool = False

    @classmethod
    def of(cls, env: ParallelEnv, masked: bool | None = None, state_dim: int | None = None) -> Layout:
        """The layout of one environment, from its spaces.

        Args:
            env: Any copy.
            masked: Whether there are action masks; None if only its observation spaces say.
            state_dim: Width of its state, if used.

        Raises:
            EnvError: If its agents or spaces cannot be had.
            UnsupportedSpaceError: If a space has no flat form.
        """
        kinds: list[tuple[str, spaces.Space, spaces.Space, list[Any]]] = []
        for agent in _agents(env):
            stem, (seen, done) = _stem(agent), _spaces(env, agent)
            for kind in kinds:
                if kind[0] == stem and kind[1] == seen and kind[2] == done:
                    kind[3].append(agent)
                    break
            else:
                kinds.append((stem, seen, done, [agent]))
        groups: list[Group] = []
        slots: list[Slot] = []
        as_bytes = []
        for stem, seen, done, members in kinds:
            plain, mask_in_obs = _without_mask(seen)
            observation = ObservationSpec.from_space(plain, f"observation of agent {members[0]!r}")
            action = ActionSpec.from_space(done, f"action of agent {members[0]!r}")
            name = _unused(stem, [g.name for g in groups])
            groups.append(Group(name, len(slots), len(members), observation, action))
            as_bytes.append(_is_bytes(plain))
            read = _reader(plain, mask_in_obs)
            write = _writer(done)
            slots += [Slot(a, observation.dim, action.logits, read, write, mask_in_obs) for a in members]
        agents = AgentSpec(tuple(groups), tuple(str(s.agent) for s in slots), state_dim=state_dim)
        if masked is None:
            masked = any(s.mask_in_obs for s in slots)
        obs_dtype = "uint8" if all(as_bytes) else "float32"
        return cls(agents, tuple(slots), masked, state_dim, obs_dtype, isinstance(env, Turns))

    @classmethod
    def probe(cls, env: ParallelEnv, use_state: bool = False, teams: Teams = None) -> Layout:
        """The layout of one environment, which is reset once to see masks in its infos and the width of its state.

        Args:
            env: Any copy.
            use_state: Whether its state is used.
            teams: Who wins together, as in :meth:`with_teams`.

        Raises:
            EnvError: If the reset fails or there is no state.
            ValueError: If ``teams`` does not fit its agents.
        """
        first = cls.of(env)
        try:
            _, infos = begin(env, 0)
        except Exception as error:
            raise explain(error, "first reset") from error
        state_dim = None
        if use_state:
            try:
                state_dim = int(np.asarray(env.state()).size)
            except Exception as error:
                raise explain(error, "use_state: the environment has no working state()") from error
        masked = first.masked or any(MASK in info for info in infos.values())
        return cls.of(env, masked, state_dim).with_teams(teams, list(env.possible_agents))

    def with_teams(self, teams: Teams, order: Sequence[Any]) -> Layout:
        """The same layout with teams.

        Args:
            teams: None for one team; ``"group"`` for one team for each name stem; a number for each agent, in the
                environment's own order; or numbers by name or beginning of a name, the longest that fits.
            order: The environment's own order, ``possible_agents``.

        Raises:
            ValueError: If an agent has no team, a name fits nobody, or the numbers are not 0, 1, 2 ...
        """
        if teams is None:
            return self
        names = [str(slot.agent) for slot in self.slots]
        if isinstance(teams, str):
            if teams != "group":
                raise ValueError(f"teams: expected 'group', numbers, or numbers by name, got {teams!r}")
            stems = list(dict.fromkeys(map(_stem, names)))
            number = {name: stems.index(_stem(name)) for name in names}
        elif isinstance(teams, Mapping):
            number = _by_prefix(teams, names)
        else:
            if len(teams) != len(names):
                raise ValueError(f"teams: expected one number for each of {len(names)} agents, got {len(teams)}")
            number = dict(zip(map(str, order), teams, strict=True))
        given = set(number.values())
        if not all(type(team) is int for team in given) or given != set(range(len(given))):
            raise ValueError(f"teams: expected whole numbers from 0 without gaps, got {sorted(map(str, given))}")
        return replace(self, agents=replace(self.agents, team=tuple(number[name] for name in names)))

    def shapes(self, num_envs: int) -> Shapes:
        """Shape and dtype of every array of ``num_envs`` copies, by name."""
        a = self.agents
        lead = (num_envs, a.num_agents)
        views: Shapes = {"obs": ((*lead, a.obs_dim), self.obs_dtype), "alive": (lead, "bool")}
        if self.turns:
            views["acts"] = (lead, "bool")
        if self.masked:
            views["mask"] = ((*lead, a.logits_dim), "bool")
        if self.state_dim is not None:
            views["state"] = ((num_envs, self.state_dim), "float32")
        copies = ((num_envs,), "bool")
        return {
            **views,
            **{f"final_{name}": shape for name, shape in views.items()},
            "action": ((*lead, a.action_dim), "int64" if a.discrete else "float32"),
            "reward": (lead, "float32"),
            "terminated": (lead, "bool"),
            "truncated": (lead, "bool"),
            "over": copies,
            "differs": copies,  # the true successor stands in the final arrays
            "active": copies,  # which copies the next command concerns
            "episode": ((num_envs,), "int64"),
            "clock": ((num_envs,), "int64"),
            "seed": ((1,), "int64"),
        }


def begin(env: ParallelEnv, seed: int) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Reset an environment; returns its observations and infos.

    Raises:
        EnvError: If it returns something else.
    """
    result = env.reset(seed=seed)
    if not isinstance(result, tuple) or len(result) != 2 or not all(isinstance(part, Mapping) for part in result):
        got = ", ".join(type(part).__name__ for part in result) if isinstance(result, tuple) else type(result).__name__
        raise EnvError(f"reset: expected (observations, infos), got {got}; both are dicts by agent")
    return dict(result[0]), dict(result[1])


def _agents(env: ParallelEnv) -> list[Any]:
    """The possible agents of an environment."""
    try:
        agents = list(env.possible_agents)
    except Exception as error:
        raise explain(error, "possible_agents: expected a list of agents") from error
    if not agents or len(set(agents)) != len(agents):
        raise EnvError(f"possible_agents: expected at least one agent and no name twice, got {agents}")
    return agents


def _spaces(env: ParallelEnv, agent: Any) -> tuple[spaces.Space, spaces.Space]:
    """What an agent observes and does."""
    found = []
    for name in ("observation_space", "action_space"):
        try:
            space = getattr(env, name)(agent)
        except Exception as error:
            raise explain(error, f"{name} of agent {agent!r}") from error
        if not isinstance(space, spaces.Space):
            raise EnvError(f"{name} of agent {agent!r}: expected a gymnasium space, got {type(space).__name__}")
        found.append(space)
    return found[0], found[1]


def _stem(agent: Any) -> str:
    """The agent's name without its number: ``speaker`` for ``speaker_0``."""
    return re.sub(r"[_\-\s]*\d+$", "", str(agent)) or "agent"


def _by_prefix(teams: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """The team of each agent by the longest key its name begins with; its full name goes before all others."""
    found, used = {}, set()
    for name in names:
        fitting = [key for key in teams if name.startswith(str(key))]
        if not fitting:
            raise ValueError(f"teams: agent {name!r} has none; give its name or the beginning of it")
        key = max(fitting, key=len)
        used.add(key)
        found[name] = teams[key]
    if idle := [key for key in teams if key not in used]:
        raise ValueError(f"teams: {idle[0]!r} is the beginning of no agent's name; agents: {_some(names)}")
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _unused(stem: str, taken: list[str]) -> str:
    name, k = stem, 2
    while name in taken:
        name, k = f"{stem}{k}", k + 1
    return name


def _without_mask(space: spaces.Space) -> tuple[spaces.Space, bool]:
    """An observation space without its ``action_mask``, and whether it had one."""
    if not isinstance(space, spaces.Dict) or MASK not in space.spaces:
        return space, False
    rest = {key: child for key, child in space.spaces.items() if key != MASK}
    return spaces.Dict(rest) if set(rest) != {"observation"} else rest["observation"], True


def _is_bytes(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8


def _reader(space: spaces.Space, mask_in_obs: bool) -> Callable[[Any], np.ndarray]:
    if mask_in_obs:
        inner = _reader(space, False)
        if isinstance(space, spaces.Dict):
            return lambda value: inner({key: value[key] for key in space.spaces})
        return lambda value: inner(value["observation"])
    if not isinstance(space, spaces.Box):
        return lambda value: flatten(space, value)
    shape, flat = space.shape, len(space.shape) == 1

    def read(value: Any) -> np.ndarray:
        array = np.asarray(value)
        if array.shape != shape:
            raise EnvError(f"an observation has shape {array.shape}, its space says {shape}")
        return array if flat else array.reshape(-1)

    return read


def _writer(space: spaces.Space) -> Callable[[np.ndarray], Any]:
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return lambda components: int(components[0]) + start
    width = ActionSpec.from_space(space).components  # other groups may choose more
    return lambda components: to_space(space, components[:width])


def flat_mask(mask: Any, width: int, agent: Any) -> np.ndarray:
    """An action mask as ``[K]`` bool.

    Raises:
        EnvError: If it has another size than the action space.
    """
    parts = mask if isinstance(mask, tuple | list) and np.ndim(mask[0]) else (mask,)
    flat = np.concatenate([np.ravel(part) for part in parts]).astype(bool)
    if flat.size != width:
        raise EnvError(f"action_mask of agent {agent!r}: expected {width} entries, got {flat.size}")
    return flat
