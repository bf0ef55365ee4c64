"""Drawing who talks to whom: the communication graph at a few moments of an episode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_hex, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from numpy.typing import NDArray

from envs.render.colours import LINK
from envs.render.layout import layout
from marl.report import style

MOMENTS = 5
NUMBERED = 12  # up to here agents are drawn with their number
ARROWS = 60  # up to here one-way links have heads
RASTER = 3000  # above so many marks over all moments, an SVG is larger and slower than a PNG
_COLOURMAP = "cividis"  # made for colour-blind readers (Nuñez, Anderton and Renslow 2018)

Array = NDArray[np.float64]


def communication_graph(episode: Mapping[str, Any], by: Literal["auto", "action", "return"] = "auto") -> str:
    """Agents and links at five moments of a recorded episode, first and last included.

    Agents stand where they are if positions are known, with their paths so far and the landmarks; otherwise the graph
    has one fixed layout. Dead agents are not drawn on a map, and hollow in a fixed layout.

    Args:
        episode: A record as :func:`marl.report.episode.episode_record` makes it.
        by: What colours an agent: its action, or its return up to that moment. ``auto`` takes the action where there
            are at most six to choose from.

    Returns:
        An SVG element, or an HTML image element where there are very many marks.
    """
    reward = _table(episode["reward"])  # [T, N]
    alive = np.asarray(episode["alive"], dtype=bool)
    moments = np.unique(np.linspace(0, len(reward) - 1, MOMENTS).round().astype(int))
    positions, fixed = _positions(episode)
    values = _actions(episode) if by != "return" else None
    if values is not None and by == "auto" and values.max() >= len(style.SERIES):
        values = None
    with style.styled():
        figure = Figure(figsize=(9.0, 2.5))
        panels = figure.subplots(1, len(moments), squeeze=False)[0]
        norm = None
        if values is None:
            returns = np.where(alive, reward, 0.0).cumsum(axis=0)
            norm = Normalize(float(returns[moments].min()), float(returns[moments].max()))
            colours = colormaps[_COLOURMAP](norm(returns))
        else:
            colours = to_rgba_array([style.colour(int(v)) for v in values.flat])
            colours = colours.reshape(*values.shape, 4)
        limits = _limits(positions, alive, episode.get("landmarks"))
        marks = 0
        for t, axes in zip(moments, panels, strict=True):
            place = positions if fixed else positions[t]
            edges = moment_edges(episode, int(t))
            if not fixed:
                _paths(axes, positions[: t + 1], alive[: t + 1])
                _landmarks(axes, episode.get("landmarks"), int(t))
            _links(axes, place, edges[:, alive[t][edges].all(axis=0)])
            _agents(axes, place, colours[t], alive[t], hollow=fixed)
            marks += alive.shape[1] + edges.shape[1]
            axes.set_title(f"step {t}", fontsize=9)
            axes.set(xlim=limits[0], ylim=limits[1], aspect="equal")
            style.blank(axes)
            if not fixed:
                axes.spines[:].set(visible=True, color=style.FAINT)
        _key(figure, panels, values, norm)
        if marks > RASTER:
            return style.png_element(style.to_png(figure))
        return style.to_svg(figure)


def moment_edges(episode: Mapping[str, Any], t: int) -> NDArray[np.int64]:
    """Links ``[2, E]`` (src, dst) of a recorded episode at step ``t``."""
    pairs = episode["edges"][t] if episode.get("edges") is not None else episode["edges_shared"]
    return np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T


def _table(nested: Any) -> Array:
    """Nested lists as an array; None, which JSON has for missing numbers, becomes nan."""
    return np.asarray(nested, dtype=np.float64)


def _positions(episode: Mapping[str, Any]) -> tuple[Array, bool]:
    """``[T, N, 2]`` and False where agents have places in the world, else a layout ``[N, 2]`` and True."""
    if episode.get("positions") is not None:
        return _table(episode["positions"]), False
    steps, num_agents = np.shape(episode["reward"])
    links = np.concatenate([moment_edges(episode, t) for t in range(steps)], axis=1)
    return layout(np.unique(links, axis=1), num_agents), True


def _actions(episode: Mapping[str, Any]) -> NDArray[np.int64] | None:
    """``[T, N]`` choices where every agent makes one discrete choice, else None."""
    action = np.asarray(episode["action"])
    if action.ndim != 3 or action.shape[-1] != 1 or not np.issubdtype(action.dtype, np.integer):
        return None
    return action[..., 0]


def _limits(positions: Array, alive: NDArray[np.bool_], landmarks: Any) -> tuple[tuple[float, float], ...]:
    """Square limits that hold everything ever shown, with a margin for the markers."""
    points = positions if positions.ndim == 2 else positions[alive]
    if landmarks is not None and positions.ndim == 3:
        points = np.concatenate([points, _table(landmarks).reshape(-1, 2)])
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    centre, half = (low + high) / 2, max(float((high - low).max()) / 2, 1e-9) * 1.22
    return tuple((float(c - half), float(c + half)) for c in centre)


def _links(axes: Axes, place: Array, edges: NDArray[np.int64]) -> None:
    """Two-way links as one line, one-way links with a head where there are few."""
    pairs = {(int(a), int(b)) for a, b in edges.T}
    lines = sorted(p for p in pairs if p[0] < p[1] or p[::-1] not in pairs)
    width = float(np.clip(40 / max(len(lines), 1), 0.3, 1.3))
    oneway = [p for p in lines if p[::-1] not in pairs] if len(lines) <= ARROWS else []
    for a, b in oneway:
        head = FancyArrowPatch(
            place[a].tolist(),  # type: ignore[arg-type]
            place[b].tolist(),  # type: ignore[arg-type]
            arrowstyle="-|>",
            mutation_scale=7,
            shrinkA=4,
            shrinkB=6,
            lw=width,
            color=LINK,
            zorder=1,
        )
        axes.add_patch(head)
    plain = [place[[a, b]] for a, b in lines if (a, b) not in set(oneway)]
    axes.add_collection(LineCollection(plain, colors=LINK, linewidths=width, zorder=1), autolim=False)


def _agents(axes: Axes, place: Array, colours: Array, alive: NDArray[np.bool_], hollow: bool) -> None:
    size = float(np.clip(1400 / len(place), 6, 110))
    if hollow:
        axes.scatter(*place[~alive].T, s=size, facecolor="none", edgecolor=style.FAINT, linewidth=1, zorder=2)
    axes.scatter(
        *place[alive].T, s=size, c=colours[alive], edgecolor="white", linewidth=0.8 if size > 20 else 0, zorder=3
    )
    if len(place) <= NUMBERED:
        for i in np.flatnonzero(alive):
            tint = style.on(to_hex(colours[i]))
            axes.annotate(str(i), place[i], ha="center", va="center_baseline", fontsize=6.5, color=tint, zorder=4)


def _paths(axes: Axes, positions: Array, alive: NDArray[np.bool_]) -> None:
    """Where each living agent has come from."""
    lines = np.where(alive[..., None], positions, np.nan).swapaxes(0, 1)  # [N, t, 2]
    axes.add_collection(LineCollection(list(lines), colors="#cfd8e3", linewidths=1.6, zorder=0), autolim=False)


def _landmarks(axes: Axes, landmarks: Any, t: int) -> None:
    """Rings a little wider than an agent, so that a landmark stays in sight under the agent that covers it."""
    if landmarks is not None:
        axes.scatter(*_table(landmarks[t]).T, s=210, facecolor="#f7efdd", edgecolor="#c9ae74", linewidth=1.1, zorder=0)


def _key(figure: Figure, panels: NDArray[Any], values: NDArray[np.int64] | None, norm: Normalize | None) -> None:
    """What the colours mean."""
    if values is None:
        source = ScalarMappable(norm, _COLOURMAP)
        bar = figure.colorbar(source, ax=list(panels), orientation="horizontal", shrink=0.35, aspect=40, pad=0.04)
        bar.set_label("return so far of each agent")
        bar.outline.set_visible(False)  # type: ignore[operator]
        return
    taken = range(int(values.max()) + 1)
    handles = [Line2D([], [], marker="o", ls="", ms=6, color=style.colour(v), label=f"action {v}") for v in taken]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.1)
