"""Where the communication graph comes from: the ``graph:`` setting, turned into a Graph for each view.

======================================================  =====================================================
setting                                                 who hears whom
======================================================  =====================================================
``None``                                                everyone, up to 64 agents; above, choose one below
``"none"``                                              nobody
``"ring"``, ``{"name": "small_world", "k": 4}`` ...      a fixed topology (``coordination.topology.builders``)
``"knn:3"``, ``{"name": "knn", "k": 3, "on": ...}``      the k nearest by position, anew at every view
``"radius:0.5"``, ``{"name": "radius", "r": 0.5, ...}``  those within a distance, anew at every view
``"net.graphml"``, ``"net.edgelist"``                   a file
a function                                              the edges ``[2, E]`` or Topology it returns for the env
======================================================  =====================================================

``on`` says which observation columns hold an agent's position: the name of a part, or ``[start, stop]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from coordination.graph import Graph
from coordination.names import unknown
from coordination.proximity import nearest, within
from coordination.topology import Topology
from coordination.topology.builders import build
from coordination.topology.files import EDGE_LIST_SUFFIXES, GRAPHML_SUFFIX, from_file
from envs.base import VectorEnv
from envs.links import COMPLETE_UP_TO, default_graph
from envs.spec import AgentSpec, Group

GraphSetting = None | str | Mapping[str, Any] | Topology | Callable[[VectorEnv], Any]
Rule = Callable[[Tensor, Tensor], tuple[Graph, Tensor | None]]  # obs, alive -> graph, links dropped [*]
DEFAULT_PART = "position"  # the observation part that holds positions where ``on`` is not given
DEFAULT_CAPACITY = 16  # most neighbours of an agent under ``radius``; farther ones are dropped


class GraphSource:
    """Turns observations into who hears whom.

    Attributes:
        dropped: How many links ``radius`` has left out so far because a receiver had no slot for them; raise its
            ``capacity`` where this is not zero.

    Args:
        setting: One of the forms above.
        env: The environment; a function is called with it, once.
        seed: Seed of random topologies.

    Raises:
        ValueError: If the setting is unknown, does not fit the agents, or is missing above 64 agents.
    """

    def __init__(self, setting: GraphSetting, env: VectorEnv, seed: int = 0) -> None:
        made = _graph_of(setting, env, seed)
        if isinstance(made, Graph) and made.num_agents != env.agents.num_agents:
            raise ValueError(f"graph: expected {env.agents.num_agents} agents, got {made.num_agents}")
        self._made = made
        self.dropped = torch.zeros((), dtype=torch.int64)

    @property
    def counters(self) -> dict[str, Tensor | int]:
        """``links_dropped``, where links can be."""
        return {} if isinstance(self._made, Graph) else {"links_dropped": self.dropped}

    def __call__(self, obs: Tensor, alive: Tensor) -> Graph:
        """The graph of a view with ``obs [*, N, O]`` and ``alive [*, N]``."""
        if isinstance(self._made, Graph):
            return self._made
        graph, dropped = self._made(obs, alive)
        if dropped is not None:
            self.dropped = self.dropped.to(obs.device) + dropped.sum()
        return graph


def columns(group: Group, which: str | Sequence[int]) -> range | None:
    """The observation columns of a group that a part's name or ``[start, stop]`` means; None if it has no such part.

    Raises:
        ValueError: If the range does not lie within the observation.
    """
    if isinstance(which, str):
        return next((range(p.start, p.stop) for p in group.observation.parts if p.name == which), None)
    ends = [x for x in which if type(x) is int] if isinstance(which, Sequence) else []
    if len(ends) != 2 or len(which) != 2 or not 0 <= ends[0] < ends[1] <= group.observation.dim:
        raise ValueError(
            f"columns: expected a part or [start, stop] within the {group.observation.dim} columns of group "
            f"{group.name!r}, got {which!r}"
        )
    return range(*ends)


def part_names(agents: AgentSpec) -> list[str]:
    """Names of all observation parts, of any group."""
    return list(dict.fromkeys(part.name for group in agents.groups for part in group.observation.parts))


def _graph_of(setting: GraphSetting, env: VectorEnv, seed: int) -> Graph | Rule:
    n = env.agents.num_agents
    if setting is None:
        if n > COMPLETE_UP_TO:
            raise ValueError(
                f"graph: choose who hears whom among {n} agents, such as knn:8 or ring; "
                f"everyone hearing everyone is the default up to {COMPLETE_UP_TO} only"
            )
        return default_graph(n)
    if isinstance(setting, Topology):
        return Graph(topology=setting)
    if isinstance(setting, str):
        return _from_text(setting, env.agents, seed)
    if isinstance(setting, Mapping):
        return _from_mapping(setting, env.agents, seed)
    if not callable(setting):
        raise TypeError(f"graph: expected a name, a mapping, a file or a function, got {type(setting).__name__}")
    edges = setting(env)
    return Graph(topology=edges if isinstance(edges, Topology) else Topology(edges, n, "custom"))


def _from_text(text: str, agents: AgentSpec, seed: int) -> Graph | Rule:
    name, colon, value = text.partition(":")
    if name in ("knn", "radius"):
        if not colon:
            raise ValueError(f"graph {text!r}: say how many or how far, as in knn:3 or radius:0.5")
        try:
            number = int(value) if name == "knn" else float(value)
        except ValueError:
            kind = "a whole number" if name == "knn" else "a number"
            raise ValueError(f"graph {text!r}: expected {kind} after the colon, got {value!r}") from None
        return _from_mapping({"name": name, "k" if name == "knn" else "r": number}, agents, seed)
    if text.endswith((GRAPHML_SUFFIX, *EDGE_LIST_SUFFIXES)):
        try:
            return Graph(topology=from_file(text, agents.num_agents))
        except FileNotFoundError:
            raise ValueError(f"graph: there is no file {text!r}") from None
    return Graph(topology=build("empty" if text == "none" else text, agents.num_agents, seed))


def _from_mapping(given: Mapping[str, Any], agents: AgentSpec, seed: int) -> Graph | Rule:
    name = given.get("name")
    if name == "knn":
        args = _arguments(given, {"k": None, "on": DEFAULT_PART})
        if type(args["k"]) is not int or args["k"] < 1:
            raise ValueError(f"graph knn: k must be a whole number from 1 up, got {args['k']!r}")
        return partial(_near, _columns_of_all(agents, args["on"]), args["k"])
    if name == "radius":
        capacity = min(DEFAULT_CAPACITY, max(agents.num_agents - 1, 1))
        args = _arguments(given, {"r": None, "on": DEFAULT_PART, "capacity": capacity})
        if isinstance(args["r"], bool) or not isinstance(args["r"], int | float) or not args["r"] > 0:
            raise ValueError(f"graph radius: r must be a positive number, got {args['r']!r}")
        if type(args["capacity"]) is not int or args["capacity"] < 1:
            raise ValueError(f"graph radius: capacity must be a whole number from 1 up, got {args['capacity']!r}")
        return partial(_around, _columns_of_all(agents, args["on"]), float(args["r"]), args["capacity"])
    return Graph(topology=build(given, agents.num_agents, seed))


def _arguments(given: Mapping[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    for key in given:
        if key != "name" and key not in defaults:
            raise ValueError(unknown(f"argument of graph {given['name']}", key, defaults))
    return {key: given.get(key, default) for key, default in defaults.items()}


def _near(where: Tensor, k: int, obs: Tensor, alive: Tensor) -> tuple[Graph, None]:
    return nearest(_take(obs, where), k, alive), None


def _around(where: Tensor, radius: float, capacity: int, obs: Tensor, alive: Tensor) -> tuple[Graph, Tensor]:
    return within(_take(obs, where), radius, capacity, alive)


def _columns_of_all(agents: AgentSpec, on: str | Sequence[int]) -> Tensor:
    """``[N, D]`` columns that hold each agent's position."""
    found = [columns(group, on) for group in agents.groups]
    if any(f is None for f in found):
        raise ValueError(
            f"graph: not every agent's observation has a part {on!r}; say which part or columns hold positions, "
            f"as in {{'name': 'knn', 'k': 3, 'on': [2, 4]}}. Parts: {', '.join(part_names(agents))}"
        )
    ranges = [f for f in found if f is not None]
    if len({len(r) for r in ranges}) != 1:
        raise ValueError(f"graph: {on!r} has different widths in different groups, so no distance between them")
    return torch.tensor([list(r) for r, g in zip(ranges, agents.groups, strict=True) for _ in range(g.size)])


def _take(obs: Tensor, where: Tensor) -> Tensor:
    """Positions ``[*, N, D]`` out of observations."""
    return obs.gather(-1, where.to(obs.device).expand(*obs.shape[:-1], -1))
