"""Evaluator and Saver: which checkpoint is the best and which the latest, over resumes too, and apart from training."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from coordination import tree
from marl import callbacks
from marl.experiment import Experiment
from marl.report.log import read_metrics
from marl.settings import settings
from marl.storage.checkpoint import Checkpoints

ROLLOUT = 4 * 5  # env steps of an iteration
SMALL: dict[str, Any] = {
    "env": "climbing",
    "num_envs": 4,
    "rollout_steps": 5,
    "policy": {"hidden": [4]},
    "algorithm": {"epochs": 1},
    "checkpoint_every": 100,
    "evaluate": {"every": 1, "episodes": 2, "final_episodes": 2},
}


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the evaluations shall find, one after the other."""
    planned: list[float] = []
    real = callbacks.evaluate

    def planned_result(*args: Any) -> Any:
        found = real(*args)
        return replace(found, returns=torch.full_like(found.returns, planned.pop(0)))

    monkeypatch.setattr(callbacks, "evaluate", planned_result)
    return planned


def train(folder: Path, iterations: int, **more: Any) -> None:
    """Begin a run in a folder or, if there is one, go on with it; its results are not evaluated."""
    folder.mkdir(exist_ok=True)
    checkpoints = Checkpoints(folder / "checkpoints")
    with closing(Experiment(settings({**SMALL, **more, "total_steps": iterations * ROLLOUT}))) as experiment:
        if checkpoints.empty:
            experiment.start()
        else:
            experiment.load_state_dict(checkpoints.load())
        assert experiment.run(folder)


def saved(folder: Path, which: str) -> int:
    """Iteration of a checkpoint."""
    return Checkpoints(folder / "checkpoints").load(which)["trainer"]["progress"]["iteration"]


def evaluated(folder: Path, key: str = "evaluate/return") -> dict[int, float]:
    return {row["iteration"]: row[key] for row in read_metrics(folder / "metrics.jsonl") if key in row}


def test_best_is_the_first_best_evaluation_and_latest_the_last_iteration(tmp_path: Path, scores: list[float]) -> None:
    scores += [-3.0, 5.0, 1.0, 5.0, 4.0]
    train(tmp_path / "run", 5)
    assert (saved(tmp_path / "run", "best"), saved(tmp_path / "run", "latest")) == (2, 5)
    assert evaluated(tmp_path / "run") == {1: -3.0, 2: 5.0, 3: 1.0, 4: 5.0, 5: 4.0}
    assert scores == []


@pytest.mark.parametrize(("later", "best"), [([4.0, 4.5], 2), ([4.0, 6.0], 5)])
def test_a_resumed_run_beats_the_best_of_before_or_keeps_it(
    tmp_path: Path, scores: list[float], later: Sequence[float], best: int
) -> None:
    scores += [-3.0, 5.0, 1.0]
    train(tmp_path / "run", 3)
    scores += later
    train(tmp_path / "run", 5)
    assert (saved(tmp_path / "run", "best"), saved(tmp_path / "run", "latest")) == (best, 5)
    assert list(evaluated(tmp_path / "run").values()) == [-3.0, 5.0, 1.0, *later]


def test_best_survives_checkpoints_of_every_iteration(tmp_path: Path, scores: list[float]) -> None:
    scores += [2.0, *(1.0 for _ in range(5))]
    train(tmp_path / "run", 6, checkpoint_every=1)
    assert (saved(tmp_path / "run", "best"), saved(tmp_path / "run", "latest")) == (1, 6)
    assert sorted(p.stem for p in (tmp_path / "run" / "checkpoints").glob("*.json")) == [
        "00000001",
        "00000005",
        "00000006",
    ]


def test_cadences_count_iterations(tmp_path: Path, scores: list[float]) -> None:
    scores += [1.0, 0.0]
    train(tmp_path / "run", 7, evaluate={"every": 3, "episodes": 2, "final_episodes": 2}, checkpoint_every=2)
    assert evaluated(tmp_path / "run") == {3: 1.0, 6: 0.0}
    assert sorted(p.stem for p in (tmp_path / "run" / "checkpoints").glob("*.json")) == [
        "00000003",
        "00000006",
        "00000007",
    ]
    assert saved(tmp_path / "run", "best") == 3


def test_evaluation_disturbs_no_training(tmp_path: Path) -> None:
    """Neither the numbers nor the weights depend on whether and how often the policy is measured."""
    rows, weights = [], []
    for every in (0, 2):
        folder = tmp_path / str(every)
        train(folder, 4, evaluate={"every": every, "episodes": 2, "final_episodes": 2}, signals="team")
        kept = [{k: v for k, v in row.items() if k != "time"} for row in read_metrics(folder / "metrics.jsonl")]
        rows.append([{k: v for k, v in row.items() if not k.startswith("evaluate/")} for row in kept])
        state = Checkpoints(folder / "checkpoints").load()["trainer"]
        weights.append({k: torch.as_tensor(x) for k, x in tree.named([state["algorithm"], state["collector"]])})
    assert len(evaluated(tmp_path / "2")) == 2
    assert rows[0] == rows[1]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
