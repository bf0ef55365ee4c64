"""The Python face: train, resume and load runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from marl.experiment import Experiment, torch_threads
from marl.report.progress import Progress as Display
from marl.runs.folders import new_folder, run_folders
from marl.runs.run import Run
from marl.runs.seeds import plan, run_side_by_side
from marl.settings import Settings
from marl.storage.checkpoint import Checkpoints
from marl.trainer import Progress


def train(**keys: Any) -> Run | list[Run]:
    """Train, evaluate and report; every key of :class:`marl.settings.Settings` is an argument.

    ``seed`` may also be a list or a range such as ``"0..4"``; the runs then lie side by side in one folder, ``jobs`` of
    them are trained at a time, and a list is returned.

    >>> run = train(env="climbing", total_steps=2000, num_envs=8, run_dir="runs/climbing")  # doctest: +SKIP
    >>> run.finished  # doctest: +SKIP
    True
    """
    runs = train_all(*plan(keys))
    return runs[0] if len(runs) == 1 else runs


def train_all(experiments: Sequence[Settings], jobs: int = 1) -> list[Run]:
    """Train each experiment, ``jobs`` at a time; more than one at a time take processes of their own."""
    if jobs == 1 or len(experiments) == 1:
        return _until_interrupted(_train_one, experiments)
    run_side_by_side(experiments, jobs)
    return [Run(s.run_dir) for s in experiments if s.run_dir is not None and s.run_dir.exists()]


def _until_interrupted(one: Callable[[Any], Run], many: Sequence[Any]) -> list[Run]:
    """Each in turn, none after one that Ctrl-C stopped."""
    runs: list[Run] = []
    for item in many:
        runs.append(one(item))
        if not runs[-1].finished:
            break
    return runs


def resume(path: Path | str, **objects: Any) -> Run | list[Run]:
    """Go on with the run in a folder, or with every unfinished run of a folder of seeds.

    Args:
        path: The folder.
        objects: ``env``, ``graph``, ``signals`` or ``wrappers``, where they were objects.
    """
    runs = resume_runs(path, objects)
    return runs[0] if len(runs) == 1 else runs


def resume_runs(path: Path | str, objects: Mapping[str, Any] | None = None) -> list[Run]:
    """Like :func:`resume`; always a list.

    Raises:
        ConfigError: If there is no run.
        CheckpointError: If its last checkpoint is damaged.
    """
    return _until_interrupted(_resume_one, [Run(folder, objects) for folder in run_folders(Path(path))])


def load(path: Path | str, **objects: Any) -> Run:
    """The run in a folder.

    Args:
        path: The run folder.
        objects: ``env``, ``graph``, ``signals`` or ``wrappers``, where they were objects.
    """
    return Run(path, objects)


def _train_one(s: Settings) -> Run:
    with torch_threads(s.threads), closing(Experiment(s)) as experiment:  # what cannot be built leaves no folder
        run = Run(new_folder(s), live=s)
        experiment.start()
        return _train(experiment, run)


def _resume_one(run: Run) -> Run:
    if run.finished:
        return run
    checkpoints = Checkpoints(run.folder / "checkpoints")
    with torch_threads(run.settings.threads), closing(Experiment(run.settings)) as experiment:
        if checkpoints.empty:
            experiment.start()  # stopped before the first checkpoint: the run begins again
        else:
            experiment.load_state_dict(checkpoints.load())
        return _train(experiment, run)


def _train(experiment: Experiment, run: Run) -> Run:
    with Display(f"{run.settings.recipe} seed {run.settings.seed}") as display:
        complete = experiment.run(run.folder, (_Shown(display),))
    if complete:
        run.finish(experiment.resume)
    return run


class _Shown:
    """Shows each row on the live display."""

    def __init__(self, display: Display) -> None:
        self.display = display

    def on_iteration(self, progress: Progress, row: dict[str, Any]) -> None:
        self.display.update(row, progress.total_env_steps)
