"""Pictures of runs with axes: learning curves, evaluation against baselines, small multiples, phase times.

Each function returns SVG text. Only matplotlib's figures are used, never pyplot and its global state.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from marl.report import style
from marl.report.statistics import Curve, Estimate

MULTIPLES = 24  # most panels of small multiples in one picture


@dataclass(frozen=True)
class Line:
    """One recipe in a learning curve.

    Attributes:
        name, colour: Shown in the legend.
        curve: Interquartile mean and interval over its seeds.
        seeds: ``(env_steps, return)`` of each seed, drawn faintly.
        evaluated: ``(env_steps, return)`` of greedy evaluations on the way, drawn as dots; or None.
    """

    name: str
    colour: str
    curve: Curve
    seeds: Sequence[tuple[ArrayLike, ArrayLike]] = ()
    evaluated: tuple[ArrayLike, ArrayLike] | None = None


@dataclass(frozen=True)
class Score:
    """One row of an evaluation.

    Attributes:
        name, colour: The policy.
        level: What it reaches, with its 95% interval.
        scores: The scores of single seeds or episodes behind it.
        unit: What ``level`` is, in words.
        dots: Whether to show the single scores.
    """

    name: str
    colour: str
    level: Estimate
    scores: Sequence[float]
    unit: str = ""
    dots: bool = True


def learning_curve(
    lines: Sequence[Line], baselines: Mapping[str, float], label: str = "team return per episode"
) -> str:
    """Returns over env steps, with the band of the seeds and the level of each baseline.

    Args:
        lines: One a recipe.
        baselines: Mean return by name of policy.
        label: What the y axis shows.
    """
    with style.styled():
        figure = Figure(figsize=(7.4, 3.5))
        axes = figure.add_subplot()
        for line in lines:
            for steps, value in line.seeds:
                axes.plot(steps, value, color=line.colour, linewidth=0.7, alpha=0.3)
            axes.fill_between(
                line.curve.env_steps, line.curve.low, line.curve.high, color=line.colour, alpha=0.16, lw=0
            )
            axes.plot(line.curve.env_steps, line.curve.iqm, color=line.colour, label=line.name)
            if line.evaluated is not None:
                axes.plot(*line.evaluated, "o", ms=4, mfc="white", mec=line.colour, mew=1.2, label="greedy evaluation")
        for name, value in baselines.items():
            tint = style.BASELINE.get(name, style.MUTED)
            axes.axhline(value, color=tint, linewidth=1.1, linestyle=(0, (4, 3)))
            axes.annotate(
                f"{name} {number(value)}",
                (1, value),
                (0, 3),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                color=tint,
                fontsize=8.5,
            )
        axes.set_ylabel(label)
        style.steps_axis(axes)
        axes.margins(x=0.01)
        _legend(figure)
        return style.to_svg(figure)


def _legend(figure: Figure) -> None:
    """A legend above the axes, every name once, in as many columns as their width allows."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    columns = max(1, 84 // (max(map(len, once)) + 7))
    figure.legend(once.values(), once.keys(), loc="outside upper left", ncols=columns, handlelength=1.4)


def evaluation(scores: Sequence[Score], label: str = "team return per episode") -> str:
    """Policies one above the other: what each reaches, its 95% interval, and single scores as faint dots.

    Dots on a common axis are used rather than bars: returns have no natural zero to start a bar from.

    Args:
        scores: From top to bottom.
        label: What the x axis shows.
    """
    with style.styled():
        figure = Figure(figsize=(7.4, 0.75 + 0.42 * len(scores)))
        axes = figure.add_subplot()
        for row, score in enumerate(scores):
            level, dots = score.level, score.scores if score.dots else ()
            spread = np.linspace(-0.22, 0.22, max(len(dots), 2))[: len(dots)]
            order = np.argsort((np.arange(len(dots)) * 0.618) % 1)  # spreads dots evenly, the same every time
            axes.plot(dots, row + spread[order], ".", ms=4, color=score.colour, alpha=0.35, mew=0)
            if math.isfinite(level.low):
                ends = [level.low, level.high]
                axes.plot(ends, [row, row], color=score.colour, linewidth=10, alpha=0.3, solid_capstyle="butt")
            axes.plot(level.value, row, "o", ms=5, color=score.colour, mec="white", mew=0.7)
        axes.set_yticks(range(len(scores)), [textwrap.fill(score.name, 34) for score in scores])
        axes.tick_params(axis="y", labelcolor=style.INK)
        axes.set_ylim(len(scores) - 0.45, -0.55)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)
        return style.to_svg(figure)


def small_multiples(panels: Mapping[str, Sequence[tuple[str, ArrayLike, ArrayLike]]]) -> str:
    """One small panel for each quantity over env steps.

    Args:
        panels: By title, the lines ``(colour, env_steps, value)`` of a panel; at most the first MULTIPLES are drawn.
    """
    chosen = list(panels.items())[:MULTIPLES]
    columns = min(3, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    with style.styled():
        figure = Figure(figsize=(7.4, 1.55 * rows + 0.15))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(chosen) :]:
            axes.set_visible(False)
        for position, ((title, lines), axes) in enumerate(zip(chosen, grid.flat, strict=False)):
            for tint, steps, value in lines:
                axes.plot(steps, value, color=tint, linewidth=0.9, alpha=0.75)
            axes.set_title(title)
            style.steps_axis(axes)
            axes.locator_params(nbins=4)
            if position + columns < len(chosen):
                axes.set_xlabel("")
        return style.to_svg(figure)


PHASES = {"collect": style.SERIES[0], "learn": style.SERIES[4], "evaluate": style.SERIES[2], "other": style.FAINT}


def phase_times(runs: Mapping[str, Mapping[str, float]]) -> str:
    """Where the time of each run went: one bar a run, one piece a phase, in seconds.

    Args:
        runs: Seconds by phase, by name of the run or recipe.
    """
    names = [*PHASES, *dict.fromkeys(p for phases in runs.values() for p in phases if p not in PHASES)]
    tints = {name: PHASES.get(name, style.colour(1 + i)) for i, name in enumerate(names)}
    total = max((sum(phases.values()) for phases in runs.values()), default=0) or 1
    with style.styled():
        figure = Figure(figsize=(7.4, 1.0 + 0.36 * len(runs)))
        axes = figure.add_subplot()
        for name in names:
            if not any(phases.get(name) for phases in runs.values()):
                continue
            widths = np.array([phases.get(name, 0.0) for phases in runs.values()])
            lefts = [sum(phases.get(n, 0.0) for n in names[: names.index(name)]) for phases in runs.values()]
            bars = axes.barh(range(len(runs)), widths, left=lefts, height=0.6, color=tints[name], label=name, lw=0)
            texts = [f"{w:.0f} s" if w > 0.07 * total else "" for w in widths]
            axes.bar_label(bars, texts, label_type="center", fontsize=8.5, color=style.on(tints[name]))
        axes.set_yticks(range(len(runs)), [textwrap.fill(name, 34) for name in runs])
        axes.tick_params(axis="y", labelcolor=style.INK)
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("wall-clock seconds")
        axes.margins(x=0.01)
        _legend(figure)
        return style.to_svg(figure)


def number(value: float | None) -> str:
    """A number as a reader wants it: whole numbers whole, others to about four figures, a dash where there is none.

    Below 1e-9 it is 0: what is left of a rounding error.

    >>> [number(x) for x in (-45.3124, 0.51, 0.00012345, 120000, 3.0, float("nan"))]
    ['−45.31', '0.510', '0.000123', '120,000', '3', '–']
    """
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if value == int(value) or size >= 1000 or size < 1e-9:
        text = f"{abs(value) if size < 1e-9 else value:,.0f}"
    elif size < 0.01:
        text = f"{value:.3g}"
    else:
        text = f"{value:.{1 if size >= 100 else 2 if size >= 1 else 3}f}"
    return text.replace("-", "−")
