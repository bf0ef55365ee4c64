"""The Python face: train, resume and load runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marl.storage.checkpoint import Checkpoints
from marl.experiment import Experiment
from marl.runs.folders import new_folder, run_folders
from marl.report.progress import Progress as Display
from marl.runs.run import Run
from marl.runs.seeds import plan, run_side_by_side
from marl.settings import Settings
from marl.trainer import Progress


def train(**keys: Any) -> Run | list[Run]:
    """Train, evaluate and report; every key of :class:`marl.settings.Settings` is an argument.

    ``seed`` may also be a list or a range such as ``"0..4"``; the runs then lie side by side in one folder, ``jobs`` of
    them are trained at a time, and a list is returned.

    >>> run = train(env="climbing", total_steps=2000, num_envs=8, evaluate={"final_episodes": 8},
    ...             run_dir=getfixture("tmp_path") / "run")
    >>> run.finished
    True
    """
    runs = train_all(*plan(keys))
    return runs[0] if len(runs) == 1 else runs


def train_all(experiments: Sequence[Settings], jobs: int = 1) -> list[Run]:
    """Train each experiment, ``jobs`` at a time; more than one at a time take processes of their own."""
    if jobs == 1 or len(experiments) == 1:
        return [_train_one(s) for s in experiments]
    run_side_by_side(experiments, jobs)
    return [Run(s.run_dir) for s in experiments if s.run_dir is not None]


def resume(path: Path | str, env: Any = None) -> Run | list[Run]:
    """Go on with the run in a folder, or with every unfinished run of a folder of seeds."""
    runs = resume_runs(path, env)
    return runs[0] if len(runs) == 1 else runs


def resume_runs(path: Path | str, env: Any = None) -> list[Run]:
    """Like :func:`resume`; always a list.

    Raises:
        ConfigError: If there is no run.
        CheckpointError: If its last checkpoint is damaged.
    """
    return [_resume_one(Run(folder, env)) for folder in run_folders(Path(path))]


def load(path: Path | str, env: Any = None) -> Run:
    """The run in a folder.

    Args:
        path: The run folder.
        env: The environment, where it was an object or a factory.
    """
    return Run(path, env)


def _train_one(s: Settings) -> Run:
    experiment = Experiment(s)  # before the folder: what cannot be built leaves nothing behind
    try:
        folder = new_folder(s)
        experiment.start()
        return _train(experiment, Run(folder, None if isinstance(s.env, str) else s.env))
    finally:
        experiment.close()


def _resume_one(run: Run) -> Run:
    if run.finished:
        return run
    checkpoints = Checkpoints(run.folder / "checkpoints")
    experiment = Experiment(run.settings)
    try:
        if (checkpoints.folder / "latest").exists():
            experiment.load_state_dict(checkpoints.load())
        else:
            experiment.start()  # stopped before the first checkpoint: the run begins again
        return _train(experiment, run)
    finally:
        experiment.close()


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
