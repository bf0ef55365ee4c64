"""What can happen to a population: modules fail, leave and join, links drop or part, places on the topology are traded.

Every event is memoryless and has a rate, a probability per step; what has happened is a struct of tensors, so that it
is saved with the environment's state. An event whose rate is zero has no tensor and costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import cast

import torch
from torch import Tensor

from coordination import tree
from coordination.graph import Graph
from coordination.links import at_ends
from coordination.names import unknown
from coordination.topology import Topology


@tree.struct
class Conditions:
    """What has happened to each copy of a population; None where it cannot happen.

    Attributes:
        absent: ``[B, N]`` bool: slots without a module.
        failed: ``[B, N]`` bool: modules that live, but neither act nor communicate.
        cut: ``[B]`` int64: place at which the first of two parts begins; -1 while the population is whole.
        place: ``[B, N]`` int64: where on the topology each module stands, a permutation.
    """

    absent: Tensor | None = tree.axes("N", default=None)
    failed: Tensor | None = tree.axes("N", default=None)
    cut: Tensor | None = tree.axes("", default=None)
    place: Tensor | None = tree.axes("N", default=None)

    @property
    def alive(self) -> Tensor | None:
        """``[B, N]`` bool: slots that hold a module; None if all do."""
        return None if self.absent is None else ~self.absent

    @property
    def works(self) -> Tensor | None:
        """``[B, N]`` bool: modules that live and have not failed; None if all work."""
        idle = [x for x in (self.absent, self.failed) if x is not None]
        return None if not idle else ~(idle[0] | idle[-1])


@dataclass(frozen=True)
class Dynamics:
    """Rates of everything that can happen, each a probability per step; 0 switches an event off.

    Attributes:
        fail: A working module fails: it stays alive, but neither acts, sends nor receives.
        repair: A failed module works again; without it, failures last.
        leave: A module leaves for good: it terminates, and its slot is empty for at least one view. A copy that
            nobody is left in begins anew.
        join: An empty slot gets a fresh module; without it, nobody comes.
        drop: A link is down in a view, each link and view by itself.
        partition: The topology is cut in two halves, by place: nothing crosses until it heals.
        heal: The halves are joined again; without it, a cut lasts.
        rewire: A module trades its place on the topology, with all its links, with others that do so at the same step.
            Links are replaced while the shape of the topology stays.
    """

    fail: float = 0.0
    repair: float = 0.0
    leave: float = 0.0
    join: float = 0.0
    drop: float = 0.0
    partition: float = 0.0
    heal: float = 0.0
    rewire: float = 0.0

    @classmethod
    def of(cls, given: Mapping[str, float] | None) -> Dynamics:
        """Rates from their form in a configuration, None for none.

        Raises:
            ValueError: If an event is unknown, a rate is no probability, or an event undoes what cannot happen.
            TypeError: If a rate is no number.
        """
        known, given = [field.name for field in fields(cls)], {} if given is None else given
        if not isinstance(given, Mapping):
            raise TypeError(f"dynamics: expected rates by event, such as {{fail: 0.01, repair: 0.1}}, got {given!r}")
        for name, rate in given.items():
            if name not in known:
                raise ValueError(unknown("dynamics", name, known))
            if isinstance(rate, bool) or not isinstance(rate, int | float):
                raise TypeError(f"dynamics: {name} must be a probability per step, got {rate!r}")
            if not 0 <= rate <= 1:
                raise ValueError(f"dynamics: {name} must be a probability per step in [0, 1], got {rate}")
        for undoes, what in (("repair", "fail"), ("join", "leave"), ("heal", "partition")):
            if undoes in given and what not in given:
                raise ValueError(f"dynamics: {undoes} undoes {what}, which has no rate; give one or leave {undoes} out")
        return cls(**given)

    def begin(self, n: int, num_agents: int, device: torch.device) -> Conditions:
        """Nothing has happened yet in ``n`` copies."""
        nobody = torch.zeros(n, num_agents, dtype=torch.bool, device=device)
        return Conditions(
            absent=nobody if self.leave else None,
            failed=nobody if self.fail else None,
            cut=torch.full((n,), -1, device=device) if self.partition else None,
            place=torch.arange(num_agents, device=device).repeat(n, 1) if self.rewire else None,
        )

    def advance(
        self, now: Conditions, num_agents: int, generator: torch.Generator
    ) -> tuple[Conditions, Tensor | None, Tensor | None]:
        """One step of everything that happens to modules and to the topology as a whole.

        Returns:
            The conditions of the next view, and ``[B, N]`` bool who left and who joined (None if nobody can).
        """
        absent, failed, cut, place, left, joined = now.absent, now.failed, now.cut, now.place, None, None
        if absent is not None:
            left, joined = _flip(absent, self.leave, self.join, generator)
            absent = (absent & ~joined) | left
        if failed is not None:
            broken, mended = _flip(failed, self.fail, self.repair, generator)
            failed = (failed & ~mended) | broken
            if now.absent is not None and absent is not None:
                failed = failed & ~(absent | now.absent)  # who comes works
        if cut is not None:
            begins, ends = _flip(cut >= 0, self.partition, self.heal, generator)
            where = torch.randint(num_agents, cut.shape, generator=generator, device=cut.device)
            cut = torch.where(begins, where, torch.where(ends, -1, cut))
        if place is not None:
            place = _trade(place, self.rewire, generator)
        return Conditions(absent, failed, cut, place), left, joined

    def links(self, graph: Graph, now: Conditions, n: int, generator: torch.Generator) -> Graph:
        """The graph of the next view: links moved with their modules, and those marked that are up.

        Args:
            graph: Who could hear whom, without ``live``; returned as it is where nothing happens to links.
            now: The conditions of that view.
            n: Number of copies.
            generator: Decides which links drop, on the device of the conditions.
        """
        if now.place is not None and graph.topology is not None:
            graph = moved(graph.topology, now.place)
        up: list[Tensor] = []
        if self.drop:
            size = graph.edges.shape[-1] if graph.edges is not None else cast(Topology, graph.topology).num_edges
            up.append(torch.rand(n, size, generator=generator, device=generator.device) >= self.drop)
        if now.failed is not None:
            up += [at_ends(~now.failed, graph, "sender"), at_ends(~now.failed, graph, "receiver")]
        if now.cut is not None:
            part = _part(now.cut, now.place, graph.num_agents)
            up.append(at_ends(part, graph, "sender") == at_ends(part, graph, "receiver"))
        return graph if not up else replace(graph, live=reduce(torch.logical_and, up))


def moved(topology: Topology, place: Tensor) -> Graph:
    """The topology with module i at ``place[b, i]``: ``[B, 2, E]`` edges, isomorphic to it in every copy.

    Args:
        topology: Links between places.
        place: ``[B, N]`` int64, a permutation in every copy.
    """
    agents = torch.arange(place.shape[1], device=place.device).expand_as(place)
    holder = torch.empty_like(place).scatter_(1, place, agents)
    return Graph.from_edges(holder[:, topology.edges_on(place.device)], topology.num_agents)


def _flip(state: Tensor, on: float, off: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which entries of a bool tensor turn on, and which off, at the given rates."""
    chance = torch.rand(state.shape, generator=generator, device=state.device)
    return ~state & (chance < on), state & (chance < off)


def _part(cut: Tensor, place: Tensor | None, num_agents: int) -> Tensor:
    """``[B, N]`` bool: who is in the first half, ``N // 2`` places from ``cut [B]`` on; everybody while it is -1."""
    where = torch.arange(num_agents, device=cut.device).unsqueeze(0) if place is None else place
    first = cut.unsqueeze(-1)
    return ((where - first) % num_agents < num_agents // 2) | (first < 0)


def _trade(place: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Chosen modules hand their places round in a random circle; a single one stays where it is."""
    chance = torch.rand(place.shape, generator=generator, device=place.device)
    order = chance.argsort(-1)  # the chosen ones first, in random order
    chosen = (chance < rate).sum(-1, keepdim=True)
    slot = torch.arange(place.shape[1], device=place.device).expand_as(place)
    source = torch.where(slot < chosen, (slot + 1) % chosen.clamp(min=1), slot)
    return place.scatter(1, order, place.gather(1, order.gather(1, source)))
