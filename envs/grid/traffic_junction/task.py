"""The rules of traffic junction: cars that hardly see each other must tell each other where they go, or crash."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from coordination import tree
from coordination.names import unknown
from envs.base import View
from envs.grid.traffic_junction.routes import Difficulty, Junction, junction
from envs.links import default_graph
from envs.native import Task
from envs.render.scene import Scene, cells
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec

GAS = 0  # the other choice, 1, is to brake
TIME_PENALTY = -0.01  # times the steps since arrival
CRASH_PENALTY = -10.0


@dataclass(frozen=True)
class Level:
    """What a difficulty means: cars, steps of an episode, and arrival rates at the start and end of the curriculum."""

    num_agents: int
    steps: int
    arrival: tuple[float, float]


LEVELS = {
    "easy": Level(5, 20, (0.1, 0.3)),
    "medium": Level(10, 40, (0.05, 0.2)),
    "hard": Level(20, 80, (0.02, 0.05)),
}
VISION = {"ic3net": 0, "magic": 1}


@tree.struct
class TrafficState:
    """The cars on the roads.

    Attributes:
        present: ``[B, N]`` bool: slots that hold a car.
        route: ``[B, N]`` int64 route of each car.
        place: ``[B, N]`` int64 cells it has come along its route.
        cell: ``[B, N]`` int64 where that is; the number of cells for an empty slot.
        waited: ``[B, N]`` int64 steps since it arrived.
        braked: ``[B, N]`` int64 its last choice; 0 (gas) before the first.
        crashed: ``[B, N]`` bool: whether it shares its cell with another car.
        finished: ``[B]`` float cars that left in the last step.
        safe: ``[B]`` bool: whether nobody has crashed in this episode.
        steps: ``[B]`` int64 steps of this copy in all its episodes; arrival rates that grow depend on it.
    """

    present: Tensor = tree.axes("N")
    route: Tensor = tree.axes("N")
    place: Tensor = tree.axes("N")
    cell: Tensor = tree.axes("N")
    waited: Tensor = tree.axes("N")
    braked: Tensor = tree.axes("N")
    crashed: Tensor = tree.axes("N")
    finished: Tensor = tree.axes("")
    safe: Tensor = tree.axes("")
    steps: Tensor = tree.axes("")


class TrafficJunction(Task[TrafficState]):
    """Traffic junction (Sukhbaatar et al. 2016, arXiv:1605.07736), as IC3Net and MAGIC set it.

    Cars arrive at random, follow a route given to them by gas or brake, and leave at its end. Two cars in one cell
    have crashed, and go on. A step: cars move; then, at every entry in turn, a car arrives with the arrival rate as
    long as fewer than N are under way, on a random route from there and whether or not the entry is free. A car is
    paid ``-0.01 t - 10 [crashed]``, with t steps since its arrival. An episode succeeds if nobody crashes in it.

    A car sees its last choice (0 gas, 1 brake), its route divided by their number less one, and the cells around it:
    one-hot in the class of each cell, with the number of cars there (itself included) in the last column. Classes are
    numbered as in the source (github.com/apsdehal/ic3net-envs), where one road cell of the easy junction has the class
    of the cells that are no road. All cars present hear each other.

    ============  ======  ====  =====  =======================  ======  ======================
    difficulty    grid    cars  steps  entries x routes         vision  arrival rate
    ============  ======  ====  =====  =======================  ======  ======================
    ``easy``      7       5     20     2 x 1                    0 or 1  .3, grown from .1
    ``medium``    14      10    40     4 x 3                    0 or 1  .2, grown from .05
    ``hard``      18      20    80     8 x 7                    0 or 1  .05, grown from .02
    ============  ======  ====  =====  =======================  ======  ======================

    The two published settings have one name and are different tasks: ``ic3net`` (Singh et al. 2019, arXiv:1812.09755)
    has vision 0 and a curriculum (give ``ramp``; the paper says 60 steps for hard, its commands 80); ``magic`` (Niu et
    al. 2021, AAMAS) has vision 1 and the last rate throughout.

    Braking for ever is not safe: the next car comes to the same cell. With gas only, cars crash on the easy junction
    where two arrive at once, so that a share ``(1 - p^2)^17`` of episodes succeeds as long as no car is turned away.

    Deviations: a slot is not taken again in the step in which its car left, so that now and then a car is turned away
    that the source admits (gas only then succeeds in 32% of easy episodes instead of 29%); a car that arrives on
    another is not punished in that step, having had no choice (the other is), and has not braked before, whatever the
    last car in its slot did; the curriculum is linear in steps and not in epochs; the end of an episode is a
    truncation.

    Args:
        difficulty: ``easy | medium | hard``.
        setting: ``ic3net | magic``.
        num_agents: Cars N under way at once; None for the difficulty's.
        vision: How many cells a car sees in each direction; None for the setting's.
        arrival: Arrival rate, or the rates at both ends of the ramp; None for the difficulty's.
        ramp: Environment steps over all copies between which the rate grows from its first to its last value; None
            for the last value throughout. Counted from the first reset, and saved with the state.
        max_steps: Steps after which an episode is truncated; None for the difficulty's.

    Raises:
        ValueError: If a name is unknown, or a number out of its range.
    """

    ends_early = False

    def __init__(
        self,
        *,
        difficulty: Difficulty = "easy",
        setting: Literal["ic3net", "magic"] = "ic3net",
        num_agents: int | None = None,
        vision: int | None = None,
        arrival: float | tuple[float, float] | None = None,
        ramp: tuple[int, int] | None = None,
        max_steps: int | None = None,
    ) -> None:
        if difficulty not in LEVELS:
            raise ValueError(unknown("difficulty", difficulty, LEVELS))
        if setting not in VISION:
            raise ValueError(unknown("setting", setting, VISION))
        level = LEVELS[difficulty]
        self.difficulty: Difficulty = difficulty
        self.num_agents = level.num_agents if num_agents is None else num_agents
        self.vision = VISION[setting] if vision is None else vision
        self.horizon = level.steps if max_steps is None else max_steps
        for name, value, least in (
            ("num_agents", self.num_agents, 1),
            ("vision", self.vision, 0),
            ("max_steps", self.horizon, 1),
        ):
            if value < least:
                raise ValueError(f"{name}: must be at least {least}, got {value}")
        self.arrival, self.ramp = _arrival(level.arrival if arrival is None else arrival, ramp)
        self.roads = junction(difficulty)
        window = (2 * self.vision + 1) ** 2 * (self.roads.outside + 3)
        self.agents = AgentSpec.single(
            self.num_agents,
            ObservationSpec.named(braked=1, route=1, cells=window),
            ActionSpec.discrete(2),
            name="car",
            info={"success": "last", "collisions": "sum", "finished": "sum", "arrival": "last"},
        )
        self._graph = default_graph(self.num_agents)

    def initial(self, generator: torch.Generator, n: int) -> TrafficState:
        """Empty roads."""
        device = generator.device
        number = torch.zeros(n, self.num_agents, dtype=torch.int64, device=device)
        nobody = torch.zeros(n, self.num_agents, dtype=torch.bool, device=device)
        none = torch.zeros(n, device=device)
        nowhere = torch.full_like(number, self.roads.size**2)
        always = torch.ones(n, dtype=torch.bool, device=device)
        steps = torch.zeros(n, dtype=torch.int64, device=device)
        return TrafficState(nobody, number, number, nowhere, number, number, nobody, none, always, steps)

    def restart(self, state: TrafficState, generator: torch.Generator, n: int) -> TrafficState:
        """Empty roads; the steps taken so far are kept."""
        return replace(self.initial(generator, n), steps=state.steps)

    def advance(
        self, state: TrafficState, action: Tensor, generator: torch.Generator
    ) -> tuple[TrafficState, Tensor, Tensor]:
        """Cars move, then others arrive; those at the end of their route terminate."""
        tables = _tables(self.difficulty, self.vision, action.device)
        chosen = action.squeeze(-1)
        place = state.place + (state.present & (chosen == GAS))
        leaving = state.present & (place == tables.length[state.route])
        staying = state.present & ~leaving
        new, route = self._arrivals(state, generator)
        present = staying | new
        place, route = torch.where(staying, place, 0), torch.where(staying, state.route, route)
        cell = torch.where(present, tables.cells[route, place], self.roads.size**2)
        crashed = present & (self._cars(cell).gather(1, cell) > 1)
        waited = torch.where(staying, state.waited + 1, 0)
        after = TrafficState(
            present=present,
            route=route,
            place=place,
            cell=cell,
            waited=waited,
            braked=torch.where(staying, chosen, 0),
            crashed=crashed,
            finished=leaving.sum(-1, dtype=torch.float32),
            safe=state.safe & ~crashed.any(-1),
            steps=state.steps + 1,
        )
        paid = TIME_PENALTY * waited + CRASH_PENALTY * crashed
        return after, torch.where(staying, paid, 0.0), leaving

    def _arrivals(self, state: TrafficState, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Slots ``[B, N]`` that get a car in this step, and the routes ``[B, N]`` such cars take.

        The k-th arrival goes to the k-th empty slot in random order.
        """
        copies, n = state.present.shape
        entries, options = self.roads.entries, self.roads.options
        drawn = torch.rand(copies, entries + 2 * n, generator=generator, device=generator.device)
        come, order, which = drawn.split([entries, n, n], -1)
        room = n - state.present.sum(-1, keepdim=True)
        come = come < self._rate(state).unsqueeze(-1)
        come = come & (come.cumsum(-1) <= room)
        rank = torch.where(state.present, 2.0, order).argsort(-1).argsort(-1)
        entry = (~come).long().argsort(dim=-1, stable=True).gather(1, rank.clamp(max=entries - 1))
        return rank < come.sum(-1, keepdim=True), entry * options + (which * options).long()

    def _rate(self, state: TrafficState) -> Tensor:
        """``[B]`` arrival rate of the coming step."""
        first, last = self.arrival
        if self.ramp is None:
            return torch.full(state.steps.shape, last, device=state.steps.device)
        start, end = self.ramp
        total = state.steps * state.steps.shape[0]
        return first + (last - first) * ((total - start) / (end - start)).clamp(0, 1)

    def _cars(self, cell: Tensor) -> Tensor:
        """``[B, cells + 1]`` int64 cars on each cell, and the empty slots at the end."""
        count = cell.new_zeros(cell.shape[0], self.roads.size**2 + 1)
        return count.scatter_add_(1, cell, torch.ones_like(cell))

    def view(self, state: TrafficState) -> View:
        """Last choice, route and the cells around; zeros for empty slots."""
        tables = _tables(self.difficulty, self.vision, state.cell.device)
        copies, n = state.cell.shape
        window = tables.seen.index_select(0, state.cell.view(-1)).view(copies, n, -1, self.roads.outside + 3)
        cars = self._cars(state.cell)
        cars[:, -1] = 0
        window[..., -1] = cars.gather(1, tables.around[state.cell].flatten(1)).view(copies, n, -1)
        route = torch.where(state.present, state.route / (len(self.roads.length) - 1), 0.0)
        own = torch.stack([state.braked.float(), route], -1)
        return View(torch.cat([own, window.flatten(2)], -1), state.present, self._graph)

    def scene(self, state: TrafficState) -> Scene:
        """Cars on the roads."""
        size, n = self.roads.size, state.cell.shape[0]
        road = torch.from_numpy(np.unique(self.roads.cells[self.roads.cells < size**2])).expand(n, -1)
        cars = cells(state.cell // size, state.cell % size, size, state.present)
        return Scene(cars, {"road": cells(road // size, road % size, size)}, (size, size))

    def info(self, state: TrafficState) -> dict[str, Tensor]:
        """Success so far, cars that have crashed in this step, cars that left in it, and the arrival rate."""
        return {
            "success": state.safe.float(),
            "collisions": state.crashed.sum(-1, dtype=torch.float32),
            "finished": state.finished,
            "arrival": self._rate(state),
        }


def _arrival(
    given: float | tuple[float, float], ramp: tuple[int, int] | None
) -> tuple[tuple[float, float], tuple[int, int] | None]:
    """Both rates, and the ramp, checked."""
    rates = (given, given) if isinstance(given, int | float) else tuple(given)
    if len(rates) != 2 or not all(0 <= rate <= 1 for rate in rates):
        raise ValueError(f"arrival: expected a rate in [0, 1], or the first and the last one, got {given!r}")
    if ramp is None:
        return (rates[0], rates[1]), None
    if len(ramp) != 2 or not 0 <= ramp[0] < ramp[1]:
        raise ValueError(f"ramp: expected two numbers of steps, the second one larger, got {ramp!r}")
    return (rates[0], rates[1]), (ramp[0], ramp[1])


@dataclass(frozen=True)
class _Tables:
    """A junction on a device: its routes, and what is seen from each cell; the row after the last cell is nowhere."""

    cells: Tensor  # [routes, longest + 1]
    length: Tensor  # [routes]
    around: Tensor  # [cells + 1, window] cells in sight, row by row
    seen: Tensor  # [cells + 1, window * classes] their classes, one-hot


@lru_cache(maxsize=16)
def _tables(difficulty: Difficulty, vision: int, device: torch.device) -> _Tables:
    roads: Junction = junction(difficulty)
    size, nowhere = roads.size, roads.size**2
    classes = torch.from_numpy(roads.classes).flatten()
    steps = torch.arange(-vision, vision + 1)
    y = torch.arange(size).view(-1, 1, 1, 1) + steps.view(1, 1, -1, 1)  # [rows, 1, window, 1]
    x = torch.arange(size).view(1, -1, 1, 1) + steps.view(1, 1, 1, -1)  # [1, columns, 1, window]
    inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
    around = torch.where(inside, y * size + x, nowhere).view(nowhere, -1)
    seen_class = torch.cat([classes, torch.tensor([roads.outside])])[around]
    seen = torch.nn.functional.one_hot(seen_class, roads.outside + 3).float().flatten(1)
    return _Tables(
        cells=torch.from_numpy(roads.cells).to(device),
        length=torch.from_numpy(roads.length).to(device),
        around=torch.cat([around, torch.full_like(around[:1], nowhere)]).to(device),
        seen=torch.cat([seen, torch.zeros_like(seen[:1])]).to(device),
    )
