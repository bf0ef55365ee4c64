"""Painter: draws one copy of an environment, moment after moment of an episode."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from envs.base import View
from envs.render.canvas import FINE, RGB, SIZE, Canvas, Limits, Shape
from envs.render.colours import FAINT, MUTED, SERIES, on, ramp, rgb
from envs.render.layout import layout
from envs.render.links import lines, open_links
from envs.render.scene import Scene
from envs.spec import AgentSpec

MOST = 2_000  # agents in a picture; more cannot be told apart
MOST_LINES = 5_000  # links in a picture
NUMBERED = 30  # up to here agents show their number
RIMMED = 5  # pixels of radius above which agents have a rim that sets them apart
WHITE = (255, 255, 255)
ARROWS = 60  # up to here one-way links have heads


class Look(NamedTuple):
    """How a thing that is no agent is drawn; size as a share of an agent's."""

    shape: Shape
    fill: str
    line: str | None
    size: float


LOOKS = {
    "road": Look("square", "#eef1f4", None, 1.4),
    "landmark": Look("ring", "#f7efdd", "#c9ae74", 1.5),
    "goal": Look("ring", "#dff2ea", "#009E73", 1.3),
    "obstacle": Look("disc", "#c3cad2", "#8b96a3", 1.3),
    "task": Look("diamond", "#f7efdd", "#c9ae74", 1.2),
    "food": Look("diamond", "#009E73", None, 0.9),
    "prey": Look("disc", "#E69F00", None, 0.8),
}
OTHER = Look("ring", "#ffffff", MUTED, 1.2)


class Painter:
    """Agents, links, and what else there is, as pictures of one size.

    Agents stand at their places in the world, else in a fixed layout of the graph they have at first. Groups that act
    have a colour each; where there is one group alone, agents are coloured by what they were paid last, on a scale
    that holds all of the episode so far. Who is alive and does not act is drawn as a ring, empty slots of a layout as
    faint rings. Of more than 2,000 agents the first 2,000 are drawn, of more than 5,000 links every k-th.

    Args:
        agents: Who they are.
    """

    def __init__(self, agents: AgentSpec) -> None:
        self.agents, self.shown = agents, min(agents.num_agents, MOST)
        self._layout: NDArray[np.float64] | None = None
        self._group = agents.group_of[: self.shown]
        self._passive = np.array([group.action is None for group in agents.groups])[self._group]
        self._played = np.array([group.name in agents.partners for group in agents.groups])[self._group]
        self.begin()

    def begin(self) -> None:
        """A new episode: forget how far things were and what was paid."""
        self._limits: Limits | None = None
        self._range: tuple[float, float] | None = None

    def paint(
        self,
        view: View,
        scene: Scene | None = None,
        reward: Tensor | None = None,
        caption: str = "",
        copy: int = 0,
    ) -> NDArray[np.uint8]:
        """The picture of one copy.

        Args:
            view: What the agents see now, ``[B, N, ...]``; its graph is drawn.
            scene: Where everything is, of the same copies; None for a layout of the graph.
            reward: ``[B, N]`` what was paid by the step that led here, or None.
            caption: What to write above.
            copy: Which one.

        Returns:
            ``[704, 640, 3]`` uint8.
        """
        alive = _array(view.alive[copy, : self.shown])
        acting = _array(view.acting[copy, : self.shown]) | self._played  # those whom partners play act as well
        pairs = open_links(view.graph, alive, copy)
        places = self._places(view, scene, copy)
        marks = {} if scene is None else {name: _array(place[copy]) for name, place in scene.marks.items()}
        there = alive & np.isfinite(places).all(axis=1)
        grid = None if scene is None else scene.grid
        canvas = Canvas(self._see(places[there], marks, grid), margin=grid is None)
        radius = canvas.unit * 0.36 if grid else FINE * float(np.clip(130 / np.sqrt(self.shown), 2.5, 16))
        if grid is not None:
            canvas.lattice(*grid)
        for name, spots in marks.items():
            look = LOOKS.get(name, OTHER)
            _mark(canvas, canvas.pixels(spots[np.isfinite(spots).all(axis=1)]), look, radius)
        self._draw_links(canvas, places, pairs[there[pairs].all(axis=1)], radius)
        paid = None if reward is None else _array(reward[copy, : self.shown]).astype(np.float64)
        colours = self._colours(paid, alive & ~self._passive)
        self._draw_agents(canvas, places, colours, (there, acting), radius, hollow=scene is None)
        self._head(canvas, caption, marks)
        return canvas.array()

    def _places(self, view: View, scene: Scene | None, copy: int) -> NDArray[np.float64]:
        if scene is not None:
            return _array(scene.places[copy, : self.shown]).astype(np.float64)
        if self._layout is None:
            everyone = np.ones(self.shown, dtype=bool)
            graph = view.graph
            pairs = graph.topology.edges.T.numpy() if graph.topology is not None else open_links(graph, everyone, copy)
            self._layout = layout(pairs[(pairs < self.shown).all(axis=1)].T, self.shown)
        return self._layout

    def _see(self, places: NDArray, marks: dict[str, NDArray], grid: tuple[int, int] | None) -> Limits:
        """What to show: all of a grid, else all that was there in this episode."""
        if grid is not None:
            return (-0.5, grid[1] - 0.5, -0.5, grid[0] - 0.5)
        points = np.concatenate([places, *marks.values()])
        points = points[np.isfinite(points).all(axis=1)]
        low, high = (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(2), np.ones(2))
        seen = self._limits or (low[0], high[0], low[1], high[1])
        self._limits = (min(seen[0], low[0]), max(seen[1], high[0]), min(seen[2], low[1]), max(seen[3], high[1]))
        return self._limits

    def _colours(self, paid: NDArray[np.float64] | None, alive: NDArray[np.bool_]) -> list[RGB]:
        """``[n]`` by group, or by reward where one group acts."""
        if len(self.agents.acting) == 1 and paid is not None and alive.any():
            low, high = float(paid[alive].min()), float(paid[alive].max())
            self._range = (low, high) if self._range is None else (min(self._range[0], low), max(self._range[1], high))
            least, most = self._range
            if most > least:
                share = (np.clip(np.nan_to_num(paid, nan=least), least, most) - least) / (most - least)
                return [tuple(c) for c in ramp(share).tolist()]
        tint = np.zeros(len(self.agents.groups), dtype=int)
        tint[[group.action is not None for group in self.agents.groups]] = range(len(self.agents.acting))
        return [rgb(SERIES[tint[g] % len(SERIES)]) for g in self._group]

    def _draw_links(self, canvas: Canvas, places: NDArray, pairs: NDArray[np.int64], radius: float) -> None:
        ends, oneway = lines(pairs)
        every = -(-len(ends) // MOST_LINES) or 1
        ends, oneway = ends[::every], oneway[::every]
        canvas.links(places[ends], oneway & (len(ends) <= ARROWS), radius + FINE)

    def _draw_agents(
        self,
        canvas: Canvas,
        places: NDArray,
        colours: list[RGB],
        states: tuple[NDArray[np.bool_], NDArray[np.bool_]],
        radius: float,
        hollow: bool,
    ) -> None:
        there, acting = states
        pixels, rim = canvas.pixels(np.nan_to_num(places)), WHITE if radius > RIMMED * FINE else None
        for i in range(self.shown):
            if not there[i]:
                if hollow:
                    canvas.marker(pixels[i], "ring", radius, None, rgb(FAINT))
            elif self._passive[i]:
                _mark(canvas, pixels[i : i + 1], LOOKS.get(self.agents.groups[self._group[i]].name, OTHER), radius)
            else:
                fill, line = (colours[i], rim) if acting[i] else (WHITE, colours[i])
                canvas.marker(pixels[i], "disc", radius, fill, line)
                if self.shown <= NUMBERED:
                    canvas.text(tuple(pixels[i].tolist()), str(i), round(radius * 0.85 / FINE), "mm", on(fill))

    def _head(self, canvas: Canvas, caption: str, marks: dict[str, NDArray]) -> None:
        """The caption, and below it what shapes and colours mean."""
        left, key = 16.0 * FINE, 44.0 * FINE
        if self.shown < self.agents.num_agents:
            caption += f" · {self.shown:,} of {self.agents.num_agents:,} agents"
        canvas.text((left, 20.0 * FINE), caption, 17)
        groups = {g.name: Look("disc", SERIES[i % len(SERIES)], None, 1) for i, g in enumerate(self.agents.acting)}
        shown = groups if len(groups) > 1 else {}
        passive = [group.name for group in self.agents.groups if group.action is None]
        shown |= {name: LOOKS.get(name, OTHER) for name in [*passive, *marks] if name != "road"}
        for name, look in shown.items():
            _mark(canvas, np.array([[left + 6 * FINE, key]]), look._replace(size=1), 6 * FINE)
            left += 18 * FINE
            left += canvas.text((left, key), name, 13, colour=MUTED) + 16 * FINE
        if self._range is not None and self._range[1] > self._range[0]:
            least, most = self._range
            right = SIZE * FINE - 16.0 * FINE
            right -= canvas.text((right, key), f"{most:.3g}", 13, "rm", MUTED) + 8 * FINE
            canvas.strip((right - 80 * FINE, key - 5 * FINE, right, key + 5 * FINE), ramp(np.linspace(0, 1, 40)))
            canvas.text((right - 88 * FINE, key), f"reward {least:.3g}", 13, "rm", MUTED)


def _mark(canvas: Canvas, pixels: NDArray, look: Look, radius: float) -> None:
    """One thing at each of some pixels, in its look."""
    line = None if look.line is None else rgb(look.line)
    for pixel in pixels:
        canvas.marker(pixel, look.shape, radius * look.size, rgb(look.fill), line)


def _array(x: Tensor) -> NDArray:
    return x.detach().cpu().numpy()
