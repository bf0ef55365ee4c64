"""Resume equals never having stopped, bit for bit; and the same seed gives the same numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import marl
from coordination import tree
from marl.report.log import read_metrics
from marl.storage.checkpoint import Checkpoints

COMMON: dict[str, Any] = {
    "num_envs": 4,
    "rollout_steps": 10,  # not a divisor of the 25-step episodes: checkpoints fall into the middle of them
    "total_steps": 4 * 10 * 30,
    "policy": {"name": "graph", "hidden": 16},
    "algorithm": {"name": "mappo", "epochs": 2, "minibatches": 2, "normalise_reward": True},
    "normalise_obs": True,
    "checkpoint_every": 3,
    "evaluate": {"every": 7, "episodes": 4, "final_episodes": 4},
    "threads": 1,
}
REPLAY = {"capacity": 400, "batch_size": 16, "warmup": 100, "n_step": 2}
WORLDS: dict[str, dict[str, Any]] = {
    "native": {"env": "spread"},
    "memory": {"env": "spread", "memory": "gru"},
    "messages": {
        "env": "spread",
        "policy": {"name": "ic3net", "hidden": 16, "channel": {"drop": {"loss": 0.2}, "quantise": {"bits": 4}}},
    },
    "values": {"env": "two_step", "algorithm": {"name": "qmix", "priority": 0.5, "target_every": 7, **REPLAY}},
    "actors": {
        "env": "spread",
        "env_args": {"continuous_actions": True},
        "memory": "lstm",
        "algorithm": {"name": "matd3", "sequence": 3, **REPLAY},
    },
    "soft": {"env": "spread", "algorithm": {"name": "masac", "priority": 0.7, **REPLAY}},
    "terminating": {"env": "two_step"},
    "door": {"env": "mpe2.simple_spread_v3"},
    "workers": {"env": "mpe2.simple_spread_v3", "workers": 2},
}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "time"} for row in read_metrics(folder / "metrics.jsonl")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(tree.named(Checkpoints(folder / "checkpoints").load()["trainer"]["algorithm"]))


def assert_same_run(a: Path, b: Path) -> None:
    assert rows(a) == rows(b)
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    assert all(torch.equal(torch.as_tensor(left[name]), torch.as_tensor(right[name])) for name in left)
    assert marl.load(a).result()["evaluation"] == marl.load(b).result()["evaluation"]


def words(settings: dict[str, Any], prefix: str = "") -> list[str]:
    """Settings as the words of a command line."""
    found: list[str] = []
    for key, value in settings.items():
        found += words(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}={value}"]
    return found


def kill_after(rows_written: int, command: list[str], folder: Path) -> None:
    """Start a run and send it SIGKILL, with its workers left to notice, once it has logged so many iterations."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = folder / "metrics.jsonl"
    limit = time.monotonic() + 120
    while not log.exists() or log.read_bytes().count(b"\n") < rows_written:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize("world", WORLDS)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(world: str, tmp_path: Path) -> None:
    settings = {**COMMON, **WORLDS[world]}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    marl.train(**settings, run_dir=whole)
    command = [sys.executable, "-m", "marl.cli", "train", *words(settings), f"run_dir={broken}"]
    kill_after(
        {
            "native": 8,
            "memory": 7,
            "messages": 6,
            "values": 9,
            "actors": 14,
            "soft": 10,
            "terminating": 5,
            "door": 11,
            "workers": 13,
        }[world],
        command,
        broken,
    )
    assert not marl.load(broken).finished
    run = marl.resume(broken)
    assert run.finished
    assert run.result()["resume"] == "exact"
    assert_same_run(whole, broken)


def test_the_same_seed_gives_the_same_run_whatever_the_workers(tmp_path: Path) -> None:
    for name, workers in (("a", 0), ("b", 2)):
        marl.train(
            **{**COMMON, "total_steps": 400}, env="mpe2.simple_spread_v3", workers=workers, run_dir=tmp_path / name
        )
    assert_same_run(tmp_path / "a", tmp_path / "b")
    marl.train(**{**COMMON, "total_steps": 400}, env="mpe2.simple_spread_v3", seed=1, run_dir=tmp_path / "c")
    assert rows(tmp_path / "a") != rows(tmp_path / "c")


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    settings = {**COMMON, "env": "spread", "total_steps": 400, "checkpoint_every": 100}
    marl.train(**settings, run_dir=tmp_path / "whole")
    run = marl.train(**settings, run_dir=tmp_path / "broken")
    for path in [*(run.folder / "checkpoints").iterdir(), run.folder / "result.json"]:
        path.unlink()
    marl.resume(run.folder)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    settings = {**COMMON, "env": "spread", "total_steps": 80}
    run = marl.train(**settings, run_dir=tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in run.folder.rglob("*")}
    assert marl.resume(run.folder).finished
    assert {p: p.stat().st_mtime_ns for p in run.folder.rglob("*")} == before
