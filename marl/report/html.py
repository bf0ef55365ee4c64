"""report.html: one self-contained page about one run or many, made from what the run folders hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from marl.report import drawing, plots, style
from marl.report.episode import METRICS
from marl.report.log import COUNTERS
from marl.report.plots import Line, Score, number
from marl.report.runs import Comparison, Recipe, RunData, compare, flat_config, read_run
from marl.report.statistics import (
    Estimate,
    aggregate,
    bootstrap,
    interquartile_mean,
    probability_of_improvement,
    smooth,
    summary,
)
from marl.storage.files import write_atomic

BASELINES = ("random", "scripted")
_TRAINED = ("greedy", "stochastic")
_GRAPHS = 6  # communication graphs in one section


def write_report(run_dirs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Make the report of one run, or of many side by side.

    Runs that differ only in their seed are shown as one recipe with intervals over seeds. What a run lacks (no
    evaluation yet, interrupted, damaged files) is shown as missing.

    Args:
        run_dirs: Run folders.
        out: The file to write; by default ``report.html`` in the folder of a single run, or beside the first of many.

    Returns:
        The file written.

    Raises:
        ValueError: If there are no folders, or one of them is no run folder.
        RunWriteError: If the file cannot be written.
    """
    if not run_dirs:
        raise ValueError("run_dirs: expected at least one run folder, got none")
    runs = [read_run(folder) for folder in run_dirs]
    if out is None:
        out = (runs[0].folder if len(runs) == 1 else runs[0].folder.resolve().parent) / "report.html"
    write_atomic(out, render(runs))
    return Path(out)


def render(runs: Sequence[RunData]) -> str:
    """The page as text: HTML that refers to nothing outside itself."""
    sections = [_section(comparison) for comparison in compare(runs)]
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = list(dict.fromkeys(recipe["name"] for section in sections for recipe in section["recipes"]))
    if len(sections) == 1:
        title = f"{' and '.join(names) if len(names) < 3 else f'{len(names)} recipes'} on {sections[0]['task']}"
    else:
        title = f"{len(names)} recipe{'s' * (len(names) > 1)} on {len(sections)} tasks"
    return templates.get_template("report.html").render(title=title, sections=sections, many=len(sections) > 1)


def _section(comparison: Comparison) -> dict[str, Any]:
    """Everything the page says about one task."""
    recipes = comparison.recipes
    baselines = _baselines(recipes)
    alone = len(recipes) == 1
    trained = [_score(recipe, policy, alone) for recipe in recipes for policy in _TRAINED]
    levels = {score.name: score.level.value for score in baselines}
    scores = [*(score for score in trained if score is not None), *baselines]
    recorded = [(recipe, [run for run in recipe.runs if run.episode is not None]) for recipe in recipes]
    shown = [(recipe, runs[0]) for recipe, runs in recorded if runs][:_GRAPHS]
    return {
        "task": comparison.task,
        "recipes": [_facts(recipe) for recipe in recipes],
        "headline": _headline(recipes, levels),
        "curve": _curve(recipes, levels),
        "evaluation": Markup(plots.evaluation(scores)) if scores else None,
        "scores": [_score_row(score, levels) for score in scores],
        "improvement": _improvement(recipes),
        "quantities": _quantities(recipes),
        "graphs": [(_graph_caption(recipe, run), _drawn(run)) for recipe, run in shown],
        "coordination": _coordination(recipes),
        "coordination_curves": _multiples(recipes, lambda key: key.startswith("coordination/")),
        "phases": _phases(recipes),
        "diagnostics": _multiples(recipes, _is_diagnostic),
        "config": _config(recipes),
        "runs": [_run_row(recipe, run) for recipe in recipes for run in recipe.runs],
    }


def _facts(recipe: Recipe) -> dict[str, Any]:
    """One line about a recipe: seeds, steps, time."""
    seconds = [run.rows[-1].get("time", {}).get("wall_s", np.nan) for run in recipe.runs if run.rows]
    speeds = [row["time"]["env_steps_per_second"] for run in recipe.runs for row in run.rows if _has_speed(row)]
    return {
        "name": recipe.name,
        "colour": recipe.colour,
        "seeds": len(recipe.runs),
        "env_steps": number(max(run.env_steps for run in recipe.runs)),
        "time": _duration(float(np.mean(seconds))) if seconds else "–",
        "speed": number(round(float(np.median(speeds)))) if speeds else "–",
    }


def _has_speed(row: Mapping[str, Any]) -> bool:
    return row.get("time", {}).get("env_steps_per_second") is not None


def _duration(seconds: float) -> str:
    if not np.isfinite(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


# -- evaluation ----------------------------------------------------------------------------------------------------


def _per_seed(recipe: Recipe, policy: str = "greedy") -> list[float]:
    """Mean evaluation return of each seed that has one."""
    return [float(np.mean(returns)) for run in recipe.runs if (returns := run.returns(policy))]


def _score(recipe: Recipe, policy: str, alone: bool) -> Score | None:
    """How a trained policy did: over several seeds, else over the episodes of the one; None if it was not evaluated."""
    name, means = _policy_name(recipe, policy, alone), _per_seed(recipe, policy)
    if len(means) > 1:
        s = summary(means)
        return Score(name, recipe.colour, Estimate(s.iqm, s.low, s.high), means, f"interquartile mean of {s.n} seeds")
    episodes = [x for run in recipe.runs for x in run.returns(policy)]
    unit = f"mean of {len(episodes)} episodes of one seed"
    return Score(name, recipe.colour, _mean(episodes), episodes, unit) if episodes else None


def _baselines(recipes: Sequence[Recipe]) -> list[Score]:
    """Baselines do not depend on training: their episodes are pooled, a set that several runs share counted once."""
    rows = []
    for policy in BASELINES:
        sets = dict.fromkeys(tuple(run.returns(policy)) for recipe in recipes for run in recipe.runs)
        values = [x for returns in sets for x in returns]
        if values:
            rows.append(Score(policy, style.BASELINE[policy], _mean(values), values, "mean", dots=len(sets) == 1))
    return rows


def _mean(values: Sequence[float]) -> Estimate:
    """Mean over episodes and its interval."""
    low, high = bootstrap(np.array(values), np.mean)
    return Estimate(float(np.mean(values)), float(low), float(high))


def _normalised(value: float, levels: Mapping[str, float]) -> float:
    """``(R - random) / (scripted - random)``; nan where a baseline is missing or both are equal."""
    span = levels.get("scripted", np.nan) - levels.get("random", np.nan)
    return (value - levels["random"]) / span if np.isfinite(span) and span != 0 else np.nan


def _headline(recipes: Sequence[Recipe], levels: Mapping[str, float]) -> dict[str, str] | None:
    """The best greedy result and what it means, or None before any evaluation."""
    found = [(score, recipe.name) for recipe in recipes if (score := _score(recipe, "greedy", alone=True)) is not None]
    if not found:
        return None
    best, name = max(found, key=lambda item: item[0].level.value)
    share = _normalised(best.level.value, levels)
    return {
        "value": number(best.level.value),
        "name": name if len(recipes) > 1 else "",
        "interval": _interval(best.level),
        "unit": best.unit.capitalize(),
        "levels": ", ".join(f"{policy} {number(value)}" for policy, value in levels.items()),
        "share": f"{100 * share:.0f}%" if np.isfinite(share) else "",
    }


def _interval(estimate: Estimate) -> str:
    return f"{number(estimate.low)} to {number(estimate.high)}" if np.isfinite(estimate.low) else ""


def _score_row(score: Score, levels: Mapping[str, float]) -> dict[str, str]:
    return {
        "name": score.name,
        "colour": score.colour,
        "mean": number(float(np.mean(score.scores))),
        "iqm": number(float(interquartile_mean(score.scores))),
        "interval": _interval(score.level) or "–",
        "n": number(len(score.scores)),
        "normalised": number(_normalised(score.level.value, levels)),
    }


def _improvement(recipes: Sequence[Recipe]) -> list[dict[str, str]]:
    """How likely a seed of the better of two recipes beats one of the other, where both have at least two seeds."""
    several = [(recipe.name, means) for recipe in recipes if len(means := _per_seed(recipe)) > 1]
    several.sort(key=lambda item: -float(interquartile_mean(item[1])))
    rows = []
    for (x, a), (y, b) in combinations(several, 2):
        p = probability_of_improvement(a, b)
        rows.append({"x": x, "y": y, "p": f"{p.value:.2f}", "interval": f"{p.low:.2f} to {p.high:.2f}"})
    return rows


def _quantities(recipes: Sequence[Recipe]) -> dict[str, Any] | None:
    """What else the evaluations measured (episode length, the environment's own quantities), as means over runs."""
    rows: dict[str, dict[str, list[float]]] = {}
    for recipe in recipes:
        for run in recipe.runs:
            for policy, found in (run.result.get("evaluation") or {}).items():
                name = policy if policy in BASELINES else _policy_name(recipe, policy, alone=len(recipes) == 1)
                for key, value in (found or {}).items():
                    if isinstance(value, int | float):
                        rows.setdefault(name, {}).setdefault(key, []).append(value)
    keys = list(dict.fromkeys(key for values in rows.values() for key in values))
    cells = {name: [number(float(np.mean(values.get(key, np.nan)))) for key in keys] for name, values in rows.items()}
    return {"names": [key.replace("_", " ") for key in keys], "rows": cells} if keys else None


def _policy_name(recipe: Recipe, policy: str, alone: bool) -> str:
    return f"trained, {policy}" if alone else f"{recipe.name}, {policy}"


# -- curves ----------------------------------------------------------------------------------------------------------


def _curve(recipes: Sequence[Recipe], levels: Mapping[str, float]) -> dict[str, Any] | None:
    """The learning curve with the words that explain it, or None where nothing was logged."""
    lines, windows = [], []
    for recipe in recipes:
        series = [run.series("train/return") for run in recipe.runs]
        series = [(steps, value) for steps, value in series if np.isfinite(value).any()]
        if not series:
            continue
        window = max(1, round(max(len(value) for _, value in series) / 50))
        windows.append(window)
        smoothed = [(steps, smooth(value, window)) for steps, value in series]
        evaluated = recipe.runs[0].series("evaluate/return") if len(recipe.runs) == 1 else None
        if evaluated is not None and evaluated[0].size == 0:
            evaluated = None
        faint = series if len(series) == 1 else smoothed
        lines.append(Line(recipe.name, recipe.colour, aggregate(smoothed), faint, evaluated))
    if not lines:
        return None
    seeds = max(len(recipe.runs) for recipe in recipes)
    over = "" if seeds == 1 else "; bold: interquartile mean over seeds, band: its 95% bootstrap interval"
    mean = f"running mean over the last {max(windows)} iterations" if max(windows) > 1 else "mean of each iteration"
    return {"svg": Markup(plots.learning_curve(lines, levels)), "caption": f"Sampled actions; {mean}{over}."}


def _is_diagnostic(key: str) -> bool:
    return key not in (*COUNTERS, "time", "train/return", "evaluate/return") and not key.startswith("coordination/")


def _multiples(recipes: Sequence[Recipe], wanted: Any) -> Markup | None:
    """Small multiples of every metric whose key is wanted and that ever had a finite value."""
    keys = dict.fromkeys(
        key for recipe in recipes for run in recipe.runs for row in run.rows for key in row if wanted(key)
    )
    panels = {}
    for key in keys:
        lines = [(recipe.colour, *run.series(key)) for recipe in recipes for run in recipe.runs]
        lines = [line for line in lines if np.isfinite(line[2]).any()]
        if lines:
            panels[key.removeprefix("coordination/").replace("_", " ")] = lines
    return Markup(plots.small_multiples(panels)) if panels else None


def _phases(recipes: Sequence[Recipe]) -> Markup | None:
    """Mean seconds of a seed in each phase."""
    bars = {}
    for recipe in recipes:
        found = [phases for run in recipe.runs if (phases := run.phase_seconds())]
        names = dict.fromkeys(name for phases in found for name in phases)
        if found:
            bars[recipe.name] = {name: float(np.mean([p.get(name, 0.0) for p in found])) for name in names}
    return Markup(plots.phase_times(bars)) if bars else None


# -- graphs and coordination -----------------------------------------------------------------------------------------


def _drawn(run: RunData) -> Markup:
    assert run.episode is not None
    return Markup(drawing.communication_graph(run.episode))


def _graph_caption(recipe: Recipe, run: RunData) -> str:
    assert run.episode is not None
    agents, steps = len(run.episode["agents"]), len(run.episode["reward"])
    total = run.episode.get("num_agents", agents)
    some = f"the first {agents} of {total}" if total > agents else str(agents)
    return f"{recipe.name}, seed {run.setting('seed')}: one greedy episode of {steps} steps, {some} agents"


def _coordination(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    """One row a metric: its value for each recipe (mean over seeds), what it means and where it can lie."""
    values: dict[str, dict[str, list[float]]] = {}
    for recipe in recipes:
        for run in recipe.runs:
            for name, value in (run.result.get("coordination") or {}).items():
                values.setdefault(name, {}).setdefault(recipe.name, []).append(np.nan if value is None else value)
    rows = []
    for name, by_recipe in values.items():
        meaning, span = METRICS.get(name, ("", ""))
        cells = [number(float(np.mean(by_recipe[r.name]))) if r.name in by_recipe else "–" for r in recipes]
        rows.append({"name": name.replace("_", " "), "values": cells, "meaning": meaning, "range": span})
    return rows


# -- what ran --------------------------------------------------------------------------------------------------------


def _config(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    """Settings by dotted key, one value a recipe; those in which recipes differ come first."""
    flat = [dict(flat_config(recipe.runs[0].config)) for recipe in recipes]
    for settings, recipe in zip(flat, recipes, strict=True):
        settings.pop("run_dir", None)
        settings["seed"] = ", ".join(run.setting("seed") for run in recipe.runs)
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = [{"key": key, "values": [settings.get(key, "–") for settings in flat]} for key in keys]
    for row in rows:
        row["differs"] = len(set(row["values"])) > 1
    return sorted(rows, key=lambda row: not row["differs"])


def _run_row(recipe: Recipe, run: RunData) -> dict[str, Any]:
    returns = run.returns("greedy")
    return {
        "recipe": recipe.name,
        "colour": recipe.colour,
        "seed": run.setting("seed"),
        "folder": run.folder.resolve().name,
        "env_steps": number(run.env_steps),
        "greedy": number(float(np.mean(returns))) if returns else "–",
        "problems": run.problems,
    }
