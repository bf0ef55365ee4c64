"""Run folders as data for a report: one run, and runs grouped into recipes that differ only in their seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marl.config import read_yaml
from marl.report import style
from marl.report.log import read_metrics

# where a run was made, not what was run
_PLACE = frozenset({"seed", "run_dir", "jobs", "device", "threads", "workers"})
_TASK = frozenset({"env", "env_args", "wrappers"})  # two runs that differ here have returns that cannot be compared
_EPISODE_KEYS = ("action", "reward", "alive", "agents")


@dataclass(frozen=True)
class RunData:
    """What a run folder holds; anything missing is empty, and said so in ``problems``.

    Attributes:
        folder: The run folder.
        config: ``config.yaml``.
        rows: ``metrics.jsonl``.
        result: ``result.json``.
        episode: ``episode.json``, or None.
        problems: One sentence about each missing or damaged piece.
    """

    folder: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    result: dict[str, Any]
    episode: dict[str, Any] | None
    problems: tuple[str, ...]

    def setting(self, key: str) -> str:
        """A setting such as ``env`` or ``policy`` by its short name; ``?`` where it is unknown."""
        value = self.result.get(key, self.config.get(key))
        value = value.get("name") if isinstance(value, Mapping) else value
        return "?" if value is None else str(value)

    @property
    def env_steps(self) -> int:
        """Env steps taken so far."""
        return int(self.rows[-1]["env_steps"]) if self.rows else int(self.result.get("env_steps", 0))

    def series(self, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``env_steps`` and values of a metric, over the rows that have it; nan where it is null."""
        rows = [row for row in self.rows if key in row]
        value = [np.nan if row[key] is None else row[key] for row in rows]
        return np.array([row["env_steps"] for row in rows], dtype=float), np.array(value, dtype=float)

    def returns(self, policy: str) -> list[float]:
        """Finite team returns of the evaluation episodes of ``greedy``, ``stochastic``, ``random`` or ``scripted``."""
        found = ((self.result.get("evaluation") or {}).get(policy) or {}).get("returns") or []
        return [float(x) for x in found if x is not None and np.isfinite(x)]

    def phase_seconds(self) -> dict[str, float]:
        """Seconds spent in each phase, over all iterations."""
        total: dict[str, float] = {}
        for row in self.rows:
            for name, seconds in row.get("time", {}).get("phase_s", {}).items():
                total[name] = total.get(name, 0.0) + seconds
        return total


@dataclass(frozen=True)
class Recipe:
    """Runs that differ only in their seed.

    Attributes:
        name: What was run, with the settings in which it differs from its neighbours of the same algorithm and policy.
        colour: The same in every picture of a report.
        runs: In order of their seeds.
    """

    name: str
    colour: str
    runs: list[RunData] = field(default_factory=list)


def read_run(folder: Path | str) -> RunData:
    """Read a run folder, whatever state the run is in.

    Raises:
        ValueError: If the folder does not exist or is no run folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the folder of a run")
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder}: not a run folder, it has no config.yaml; give a folder that training made")
    problems: list[str] = []

    def attempt(name: str, read: Any, missing: str, empty: Any) -> Any:
        try:
            return read(folder / name)
        except FileNotFoundError:
            problems.append(missing)
        except (ValueError, OSError) as error:
            problems.append(str(error) if name in str(error) else f"{name}: cannot be read ({error})")
        return empty

    config = attempt("config.yaml", read_yaml, "", {})
    rows = attempt("metrics.jsonl", read_metrics, "No iteration has been logged yet.", [])
    result = attempt("result.json", _read_result, "No result yet: the run was interrupted, or is still going on.", {})
    episode = attempt("episode.json", _read_episode, "No episode was recorded.", None)
    if result and not result.get("evaluation"):
        problems.append("No evaluation yet.")
    return RunData(folder, config, rows, result, episode, tuple(problems))


def _read_object(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text())
    if not isinstance(data, dict):
        raise ValueError("expected a JSON object")
    return data


def _read_result(path: Path) -> dict[str, Any]:
    data = _read_object(path)
    evaluation = data.get("evaluation") or {}
    found = list(evaluation.values()) if isinstance(evaluation, dict) else [None]
    for one in found:
        returns = one.get("returns", []) if isinstance(one, dict) else None
        if not isinstance(returns, list) or not all(x is None or isinstance(x, int | float) for x in returns):
            raise ValueError("its evaluation holds something else than returns")
    return data


def _read_episode(path: Path) -> dict[str, Any]:
    data = _read_object(path)
    if lacking := [key for key in _EPISODE_KEYS if key not in data]:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    if data.get("edges") is None and data.get("edges_shared") is None:
        raise ValueError("it lacks edges")
    try:
        _check_episode(data)
    except (TypeError, IndexError) as error:
        raise ValueError(f"its numbers do not fit together: {error}") from None
    return data


def _check_episode(data: dict[str, Any]) -> None:
    """Refuse a record whose pieces are not of one shape: all of T steps and N agents, links among these."""
    shape = np.array(data["reward"], dtype=float).shape
    moments = {name: data.get(name) for name in ("alive", "action", "positions")}
    found = [np.shape(value)[:2] for value in moments.values() if value is not None]
    if len(shape) != 2 or 0 in shape or found.count(shape) < len(found) or len(data["agents"]) != shape[1]:
        raise ValueError(f"its numbers do not fit together: reward {shape}, beside it {found}")
    lists, count = ([data["edges_shared"]], 1) if data.get("edges") is None else (data["edges"], shape[0])
    pairs = [np.array(links, dtype=float).reshape(-1, 2) for links in lists]
    if len(pairs) != count or any(((ends < 0) | (ends >= shape[1])).any() for ends in pairs):
        raise ValueError("its links lead to agents that are not there")


def flat_config(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as ``(dotted key, value as text)``."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat_config(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, default=str).strip('"')


@dataclass(frozen=True)
class Comparison:
    """Recipes that were run on one task, so that their returns can be compared.

    Attributes:
        env: Name of the environment.
        task: The same, with the arguments that set it apart from the other tasks of a report.
        recipes: What was run on it.
    """

    env: str
    task: str
    recipes: list[Recipe] = field(default_factory=list)


def compare(runs: Sequence[RunData]) -> list[Comparison]:
    """Sort runs into tasks and recipes, in the order given.

    Two runs are seeds of one recipe if their configurations agree in everything but the seed and the machine they ran
    on, and share a task if they agree about the environment, its arguments and wrappers. Tasks of one environment, and
    recipes of one algorithm and policy, are told apart by up to three settings in which they differ. A recipe has one
    colour in the whole report.
    """
    tasks: dict[tuple[str, frozenset], dict[tuple[str, frozenset], list[RunData]]] = {}
    for run in runs:
        settings = [item for item in flat_config(run.config) if _owner(item[0]) not in _PLACE]
        task = frozenset(item for item in settings if _owner(item[0]) in _TASK)
        recipe = frozenset(settings) - task
        base = f"{run.setting('algorithm')} · {run.setting('policy')}"
        tasks.setdefault((run.setting("env"), task), {}).setdefault((base, recipe), []).append(run)
    task_names = _names(list(tasks))
    recipe_names = _names(list(dict.fromkeys(key for recipes in tasks.values() for key in recipes)))
    colours = {name: style.colour(i) for i, name in enumerate(dict.fromkeys(recipe_names.values()))}
    found = []
    for task, members in tasks.items():
        comparison = Comparison(task[0], task_names[task])
        for key, seeds in members.items():
            seeds.sort(key=lambda run: (len(run.setting("seed")), run.setting("seed")))
            comparison.recipes.append(Recipe(recipe_names[key], colours[recipe_names[key]], seeds))
        found.append(comparison)
    return found


def _owner(key: str) -> str:
    """Top-level key of a dotted one."""
    return key.split(".", maxsplit=1)[0]


def _names(kinds: Sequence[tuple[str, frozenset]]) -> dict[tuple[str, frozenset], str]:
    """A name for each ``(base name, settings)``: the base name, and what differs among those who share it."""
    names = {}
    for base, settings in kinds:
        alike = [dict(other) for name, other in kinds if name == base]
        keys = sorted({key for other in alike for key in other})
        differing = [key for key in keys if len({other.get(key) for other in alike}) > 1]
        own = dict(settings)
        extra = [f", {key.split('.')[-1]}={own.get(key, '–')}" for key in differing[:3]]
        names[base, settings] = base + "".join(extra)
    return names
