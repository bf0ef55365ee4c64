"""Ising: modules choose spins and are paid for agreeing with those they hear; Onsager's closed form is the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse import csgraph
from torch import Tensor

from coordination import tree
from coordination.names import unknown
from coordination.topology import Topology, torus
from envs.base import View
from envs.population.base import Population, PopulationState, TopologySetting, modules_spec
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec

UPDATES = ("all", "half")
FACTORS_UP_TO = 1_024  # modules; beyond, the scopes of the factors would be a large Python object


@tree.struct
class Spins:
    """The spins of a population.

    Attributes:
        spin: ``[B, N]`` int8, -1 or 1.
        half: ``[B]`` bool: which half of the modules chooses next; means nothing where all do.
    """

    spin: Tensor = tree.axes("N")
    half: Tensor = tree.axes("")


class Ising(Population[Spins]):
    """The Ising model as a game (Yang et al. 2018, arXiv:1802.05438): everyone wants the spin of those around.

    Choice 0 is spin -1, choice 1 spin +1. With coupling ``lambda``, the local field of module i is ``f_i = lambda
    sum_j s_j`` over the living modules j it hears, and its reward ``r_i = s_i f_i / 2`` at the spins just chosen. On an
    undirected topology rewards add up to ``-H = lambda sum_<ij> s_i s_j``, each link once. A module sees its own spin
    and its field, which is all that a best response needs.

    **Optimum.** A ground state pays ``|lambda| / 2`` a step for every one-way edge (:attr:`ground`): all spins equal
    for ``lambda > 0``, the two colours opposed for ``lambda < 0``; where two colours are not enough it is a bound.

    **Temperature.** :func:`heat_bath` is the Gibbs sampler of ``exp(-H / T)``. Its chance of +1, ``sigmoid(2 f_i /
    T)``, is a Boltzmann policy over *own* rewards at temperature ``tau = T / 2``, as the source plays it: a flip
    changes one's own reward half as much as the energy. The square lattice orders below ``T_c = 2 lambda / ln(1 + sqrt
    2) = 2.269 lambda`` (``tau_c = 1.135 lambda``) with magnetisation ``(1 - sinh(2 lambda / T) ** -4) ** (1 / 8)``
    (Onsager 1944; Yang 1952).

    **Updates.** With ``all``, as in the source, everyone chooses at every step, not knowing what the others choose
    now: best responses to a chequered pattern flip everybody for ever, and the heat bath's stationary law is another
    one than ``exp(-H / T)``. With ``half`` the two colours of the topology take turns, through ``View.acts``: nobody
    chooses together with one it hears, best responses never lose energy, and the heat bath samples ``exp(-H / T)``.

    Deviations from the source: there is no external field (its experiments have none), an episode does not end when
    all agree, and the field is seen instead of the neighbours' spins one by one. A failed module keeps its spin.
    Rewards are local; up to 1,024 modules whose places stay, they are declared as factors of the team reward.

    Attributes:
        ground: Team reward of a step in a ground state, while all modules and links are there.

    Args:
        num_agents: Number of modules; None for as many as ``modules`` count, or 16.
        modules: How many there are of each kind; kinds differ by name only.
        coupling: ``lambda``, not zero; below zero neighbours are paid to differ.
        updates: Who chooses at a step, ``all`` or ``half`` as above.
        up: Chance of +1 at the beginning; 1 begins in a ground state.
        topology, dynamics: As in :class:`~envs.population.base.Population`; the source has a square lattice, ``torus``.
        horizon: Steps after which an episode is truncated; None for no limit.

    Raises:
        ValueError: If an argument is out of range, or the topology has no two colours to take turns.
    """

    def __init__(
        self,
        *,
        num_agents: int | None = None,
        modules: Mapping[str, int] | None = None,
        coupling: float = 1.0,
        updates: Literal["all", "half"] = "all",
        up: float = 0.5,
        topology: TopologySetting = "torus",
        dynamics: Mapping[str, float] | None = None,
        horizon: int | None = 100,
    ) -> None:
        if not np.isfinite(coupling) or coupling == 0:
            raise ValueError(f"coupling: must be a number other than 0, got {coupling}")
        if updates not in UPDATES:
            raise ValueError(unknown("updates", updates, UPDATES))
        if not 0 <= up <= 1:
            raise ValueError(f"up: must be a probability in [0, 1], got {up}")
        info: dict = {"magnetisation": "last", "order": "last", "energy": "mean"}
        agents = modules_spec(
            num_agents, modules, ObservationSpec.named(spin=1, field=1), ActionSpec.discrete(2), info=info
        )
        super().__init__(agents, topology=topology, dynamics=dynamics, horizon=horizon)
        if agents.num_agents <= FACTORS_UP_TO and not self.dynamics.rewire:
            self.agents = replace(agents, factor_scopes=_scopes(self.topology))
        self.coupling, self.up = float(coupling), float(up)
        self.ground = abs(self.coupling) * self.topology.num_edges / 2
        self._lattice = _lattice(self.topology)
        self._colour: dict[torch.device, Tensor] = {}
        if updates == "half":
            self._colour[torch.device("cpu")] = _two_colours(self.topology)

    def begin(self, generator: torch.Generator, n: int) -> Spins:
        """Spins drawn one by one; the first half begins."""
        chance = torch.rand(n, self.num_agents, generator=generator, device=generator.device)
        return Spins(_signs(chance < self.up), torch.zeros(n, dtype=torch.bool, device=generator.device))

    def play(self, state: PopulationState[Spins], action: Tensor, generator: torch.Generator) -> tuple[Spins, Tensor]:
        """Those whose turn it is choose; everyone is paid for the spins there are then."""
        chosen, chooses = _signs(action[..., 0] == 1), self._chooses(state)
        spin = chosen if chooses is None else torch.where(chooses, chosen, state.modules.spin)
        return Spins(spin, ~state.modules.half), self._field(state, spin).mul_(spin).mul_(0.5)

    def join(self, modules: Spins, joined: Tensor, generator: torch.Generator) -> Spins:
        """Who comes draws a spin and waits for the turn of its place."""
        fresh = self.begin(generator, joined.shape[0])
        return Spins(torch.where(joined, fresh.spin, modules.spin), modules.half)

    def observe(self, state: PopulationState[Spins]) -> Tensor:
        """Own spin, and the local field."""
        spin = state.modules.spin
        return torch.stack([spin.float(), self._field(state, spin)], -1)

    def view(self, state: PopulationState[Spins]) -> View:
        """As in the base; with ``half``, only those whose turn it is act."""
        view = super().view(state)
        return replace(view, acts=self._chooses(state)) if self._colour else view

    def info(self, state: PopulationState[Spins]) -> dict[str, Tensor]:
        """Mean spin of the living, its size, and the energy just paid for per slot."""
        spin, alive = state.modules.spin, state.alive
        if alive is None:
            mean = spin.sum(-1, dtype=torch.float32) / self.num_agents
        else:
            mean = torch.where(alive, spin, 0).sum(-1, dtype=torch.float32) / alive.sum(-1).clamp(min=1)
        return {"magnetisation": mean, "order": mean.abs(), "energy": -state.reward.mean(-1)}

    def _chooses(self, state: PopulationState[Spins]) -> Tensor | None:
        """``[B, N]`` bool: who chooses in this step; None if all do."""
        works = state.works
        if not self._colour:
            return works
        half = state.modules.half
        if half.device not in self._colour:
            self._colour[half.device] = self._colour[torch.device("cpu")].to(half.device)
        colour, place = self._colour[half.device], state.conditions.place
        turn = (colour if place is None else colour[place]) == half.unsqueeze(-1)
        return turn if works is None else turn & works

    def _field(self, state: PopulationState[Spins], spin: Tensor) -> Tensor:
        """``[B, N]`` float: the local field of spins under the state's links; rolled where the lattice is whole."""
        if self._lattice is None or state.graph.topology is None or state.graph.live is not None:
            return state.heard(spin).mul_(self.coupling)
        there = spin if state.alive is None else torch.where(state.alive, spin, 0)
        square = there.unflatten(-1, self._lattice)
        total = square.roll(1, -1) + square.roll(-1, -1)
        total.add_(square.roll(1, -2)).add_(square.roll(-1, -2))
        return total.flatten(-2).float().mul_(self.coupling)


def heat_bath(view: View, temperature: float, generator: torch.Generator) -> Tensor:
    """Choices of the Gibbs sampler: +1 with chance ``sigmoid(2 f_i / T)``, the law of a spin given all others.

    Args:
        view: What the modules of :class:`Ising` see.
        temperature: ``T``, above zero, in the units of the coupling; raising it makes choices more random.
        generator: Where the draws come from, on the device of the view.

    Returns:
        ``[*, N, 1]`` int64.

    Raises:
        ValueError: If the temperature is not above zero.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: must be above 0, got {temperature}; follow_field is the limit at 0")
    field = view.obs[..., 1:2]
    chance = torch.rand(field.shape, generator=generator, device=field.device)
    return (chance < torch.sigmoid(field * (2 / temperature))).long()


def follow_field(view: View, agents: AgentSpec) -> Tensor:
    """Best responses to the spins as they are: the sign of the field, one's own spin where it is zero.

    It climbs to a state that no single flip improves, where modules take turns; all at once, it may flip for ever.

    Args:
        view: What the modules of :class:`Ising` see.
        agents: Who they are.

    Returns:
        ``[*, N, 1]`` int64.
    """
    spin, field = view.obs[..., :1], view.obs[..., 1:2]
    return (torch.where(field == 0, spin, field) > 0).long()


def _signs(up: Tensor) -> Tensor:
    """Int8 +1 where ``up`` holds, else -1."""
    return up.to(torch.int8).mul_(2).sub_(1)


def _scopes(topology: Topology) -> tuple[tuple[int, ...], ...]:
    """Oneself and whom one hears, for every module."""
    sender, start = topology.edges[0].tolist(), topology.row_start.tolist()
    return tuple((i, *sender[start[i] : start[i + 1]]) for i in range(topology.num_agents))


def _lattice(topology: Topology) -> tuple[int, int] | None:
    """Rows and columns of a torus with at least three of each, whatever its name; None for other topologies."""
    n = topology.num_agents
    if topology.num_edges != 4 * n:
        return None
    for cols in topology.edges[0, : int(topology.row_start[1])].tolist():  # whom agent 0 hears, one of them a row below
        rows = n // max(cols, 1)
        if min(rows, cols) >= 3 and rows * cols == n and topology.edges.equal(torus(n, rows, cols).edges):
            return rows, cols
    return None


def _two_colours(topology: Topology) -> Tensor:
    """``[N]`` bool: colours that differ at the ends of every edge.

    Two copies of every agent, each edge crossing over: the copies of an agent meet where it lies on an odd circle.

    Raises:
        ValueError: If there is an odd circle, so that two colours are not enough.
    """
    n, (sender, receiver) = topology.num_agents, topology.edges.numpy()
    ends = np.concatenate([sender, sender + n]), np.concatenate([receiver + n, receiver])
    cover = sp.coo_array((np.ones(ends[0].size, dtype=np.int8), ends), shape=(2 * n, 2 * n))
    _, label = csgraph.connected_components(cover, directed=False)
    first, second = torch.from_numpy(label).view(2, n)
    if bool((first == second).any()):
        raise ValueError(
            f"updates: 'half' needs a topology of two colours, {topology.name!r} has circles of odd length; "
            "choose a torus with even sides, or 'all'"
        )
    return first > second
