"""The base of population environments: module-agents on a topology, of one or several kinds, to which things happen.

A population environment says three things, over a struct ``M`` of its own with tensors ``[B, N, ...]``::

    @tree.struct
    class Heat:
        warmth: Tensor = tree.axes("N")

    class Heating(Population[Heat]):
        def __init__(self, *, num_agents=None, modules=None, topology="ring", dynamics=None, horizon=100):
            agents = modules_spec(num_agents, modules, ObservationSpec.named(warmth=1), ActionSpec.discrete(2))
            super().__init__(agents, topology=topology, dynamics=dynamics, horizon=horizon)

        def begin(self, generator, n):  # fresh modules of n copies
            return Heat(torch.rand(n, self.num_agents, generator=generator, device=generator.device))

        def play(self, state, action, generator):  # the next modules, and what each is paid [B, N]
            warmth = 0.9 * state.modules.warmth + 0.1 * action[..., 0] + 0.01 * state.heard(state.modules.warmth)
            return Heat(warmth), -(warmth - 0.5).square()

        def observe(self, state):  # [B, N, O]
            return state.modules.warmth.unsqueeze(-1)

The rest is here and is the same for all: the groups, the view, and the dynamics (:mod:`envs.population.dynamics`).
Links that :class:`PopulationState` shows are those of the step that follows, for messages and for ``play`` alike. What
``play`` must know of dynamics: ``state.heard`` leaves out who is not there and what is down; the action of a module
that does not work reads zero; numbers of empty slots may be anything, must stay out of sums over agents
(``state.alive``, None while all are there), and are overwritten by :meth:`Population.join` when a module comes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from coordination import tree
from coordination.gather import neighbour_sum
from coordination.graph import Graph
from coordination.topology import Topology
from coordination.topology.builders import build
from envs.base import View
from envs.native import Task
from envs.population.dynamics import Conditions, Dynamics
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group

M = TypeVar("M")
TopologySetting = str | Mapping[str, Any] | Topology
DEFAULT_AGENTS = 16


@tree.struct
class PopulationState(Generic[M]):
    """A population at one moment.

    Attributes:
        modules: The environment's own struct of tensors ``[B, N, ...]``.
        conditions: What has happened to modules and topology.
        graph: Who hears whom during the step that follows.
        reward: ``[B, N]`` paid by the step that led here; zero at the beginning.
    """

    modules: M = tree.axes("")
    conditions: Conditions = tree.axes("")
    graph: Graph = tree.axes("")
    reward: Tensor = tree.axes("N")

    @property
    def alive(self) -> Tensor | None:
        """``[B, N]`` bool: slots that hold a module; None if all do."""
        return self.conditions.alive

    @property
    def works(self) -> Tensor | None:
        """``[B, N]`` bool: who can act; None if all can."""
        return self.conditions.works

    def heard(self, x: Tensor) -> Tensor:
        """``[B, N]`` float: sum of ``x [B, N]`` over the living modules that each one hears."""
        alive = self.alive
        x = x.float() if alive is None else torch.where(alive, x, 0).float()
        graph = self.graph
        if graph.topology is not None and graph.live is None:
            return graph.topology.adjacency()(x)
        return neighbour_sum(x.unsqueeze(-1), graph).squeeze(-1)

    def num_heard(self) -> Tensor:
        """Float: how many living modules each one hears, ``[B, N]``, or ``[1, N]`` where it is always the same."""
        graph = self.graph
        if graph.topology is not None and graph.live is None and self.conditions.absent is None:
            return _degree(graph.topology, self.reward.device)
        return self.heard(torch.ones_like(self.reward))


class Population(Task[PopulationState[M]]):
    """Modules on a topology; what a subclass writes is shown at the top of this file.

    Attributes:
        topology: Links between places, fixed; the graph of a state may differ from it by dynamics.
        dynamics: Rates of what can happen.
        moving: Whether :meth:`links` depends on the modules; places on the topology then mean nothing.

    Args:
        agents: Groups of modules; all act.
        topology: A name or mapping that :func:`coordination.topology.builders.build` knows, or a Topology.
        dynamics: Rates by event, the fields of :class:`~envs.population.dynamics.Dynamics`; None for none.
        horizon: Steps after which an episode is truncated; None for no limit.

    Raises:
        ValueError: If the topology has another number of agents, an event is unknown or has no place here, or the
            horizon is below 1.
    """

    moving: ClassVar[bool] = False

    def __init__(
        self,
        agents: AgentSpec,
        *,
        topology: TopologySetting = "ring",
        dynamics: Mapping[str, float] | None = None,
        horizon: int | None = None,
    ) -> None:
        if horizon is not None and horizon < 1:
            raise ValueError(f"horizon: must be at least 1, got {horizon}")
        self.agents, self.horizon = agents, horizon
        self.topology = topology if isinstance(topology, Topology) else build(topology, agents.num_agents)
        if self.topology.num_agents != agents.num_agents:
            raise ValueError(f"topology: expected {agents.num_agents} agents, got {self.topology.num_agents}")
        self.dynamics = Dynamics.of(dynamics)
        if self.moving and self.dynamics.rewire:
            raise ValueError(f"dynamics: rewire needs fixed places, and the links of {type(self).__name__} move anyway")
        self.ends_early = self.dynamics.leave > 0
        self._graph = Graph(topology=self.topology)

    @property
    def num_agents(self) -> int:
        """Number of modules N, a capacity where they leave and join."""
        return self.agents.num_agents

    # -- what a population environment writes ---------------------------------------------------------

    @abstractmethod
    def begin(self, generator: torch.Generator, n: int) -> M:
        """Fresh modules of ``n`` copies, on the device of the generator."""

    @abstractmethod
    def play(self, state: PopulationState[M], action: Tensor, generator: torch.Generator) -> tuple[M, Tensor]:
        """One step of ``action [B, N, A]``: the next modules, and ``[B, N]`` what each is paid."""

    @abstractmethod
    def observe(self, state: PopulationState[M]) -> Tensor:
        """``[B, N, O]`` what each module sees."""

    def links(self, modules: M) -> Graph:
        """Who could hear whom, without ``live``: the topology, unless the environment is ``moving``."""
        return self._graph

    def join(self, modules: M, joined: Tensor, generator: torch.Generator) -> M:
        """Modules with fresh ones where ``joined [B, N]`` holds; written anew where a field is not ``[B, N, ...]``."""
        return tree.where(joined, self.begin(generator, joined.shape[0]), modules)

    # -- the same for all -----------------------------------------------------------------------------

    def initial(self, generator: torch.Generator, n: int) -> PopulationState[M]:
        """Fresh modules in all slots; nothing has happened yet."""
        modules = self.begin(generator, n)
        conditions = self.dynamics.begin(n, self.num_agents, generator.device)
        graph = self.dynamics.links(self.links(modules), conditions, n, generator)
        reward = torch.zeros(n, self.num_agents, device=generator.device)
        return PopulationState(modules, conditions, graph, reward)

    def advance(
        self, state: PopulationState[M], action: Tensor, generator: torch.Generator
    ) -> tuple[PopulationState[M], Tensor, Tensor]:
        """Play, then let things happen; who leaves terminates, paid for the last step."""
        n, alive, works = action.shape[0], state.alive, state.works
        if works is not None:
            action = torch.where(works.unsqueeze(-1), action, 0)
        modules, reward = self.play(state, action, generator)
        if alive is not None:
            reward = torch.where(alive, reward, 0.0)
        conditions, left, joined = self.dynamics.advance(state.conditions, self.num_agents, generator)
        if joined is not None:
            modules = self.join(modules, joined, generator)
        graph = self.dynamics.links(self.links(modules), conditions, n, generator)
        terminated = _all(False, n, self.num_agents, action.device) if left is None else left
        return PopulationState(modules, conditions, graph, reward), reward, terminated

    def view(self, state: PopulationState[M]) -> View:
        """What the modules see, who is there, who works, and who hears whom."""
        alive = _all(True, *state.reward.shape, state.reward.device) if state.alive is None else state.alive
        acts = None if state.conditions.failed is None else state.works
        return View(self.observe(state), alive, state.graph, acts=acts)

    def factors(self, state: PopulationState[M]) -> Tensor | None:
        """``[B, N]`` the rewards of the modules, where the environment declares on whom each depends."""
        return None if self.agents.factor_scopes is None else state.reward


def modules_spec(
    num_agents: int | None,
    modules: Mapping[str, int] | None,
    observation: ObservationSpec,
    action: ActionSpec,
    **fields: Any,
) -> AgentSpec:
    """Modules of one team with equal spaces, in one group or in groups by kind.

    Args:
        num_agents: Number of modules; None for as many as ``modules`` count, or 16.
        modules: How many there are of each kind, e.g. ``{"sensor": 400, "actuator": 292}``; None for one kind.
        observation, action: The spaces of all.
        fields: Further fields of :class:`~envs.spec.AgentSpec`.

    Raises:
        ValueError: If there are fewer than 2 modules, a kind has none, or the two numbers differ.
    """
    for name, size in (modules or {}).items():
        if size < 1:
            raise ValueError(f"modules: expected at least one {name!r}, got {size}; leave the kind out")
    if modules is None:
        modules = {"module": DEFAULT_AGENTS if num_agents is None else num_agents}
    total = sum(modules.values())
    if num_agents is not None and num_agents != total:
        raise ValueError(f"num_agents: modules count {total}, got {num_agents}; leave one of the two out")
    if total < 2:
        raise ValueError(f"num_agents: must be at least 2, got {total}")
    groups, start = [], 0
    for name, size in modules.items():
        groups.append(Group(name, start, size, observation, action))
        start += size
    names = tuple(f"{name}_{i}" for name, size in modules.items() for i in range(size))
    return AgentSpec(tuple(groups), names, **fields)


@lru_cache(maxsize=16)
def _degree(topology: Topology, device: torch.device) -> Tensor:
    """``[1, N]`` float: how many each place hears."""
    return topology.in_degree.to(device, torch.float32).unsqueeze(0)


@lru_cache(maxsize=16)
def _all(value: bool, n: int, num_agents: int, device: torch.device) -> Tensor:
    """``[n, N]`` bool of one value, made once."""
    return torch.full((n, num_agents), value, device=device)
