"""Many seeds of one experiment: a folder of run folders, several side by side."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from marl.config import ConfigError
from marl.runs.folders import stamped_folder
from marl.settings import Settings, settings
from marl.storage.files import write_atomic

POLL_SECONDS = 0.2
MOST_SEEDS = 10_000


def parse_seeds(value: Any) -> list[int]:
    """``3``, ``[0, 4]`` or ``"0..4"`` (both ends included) to a list of seeds.

    >>> parse_seeds("0..2"), parse_seeds(7)
    ([0, 1, 2], [7])

    Raises:
        ConfigError: If it is none of these.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+)\.\.(\d+)", value)):
        first, last = map(int, found.groups())
        if first <= last < first + MOST_SEEDS:
            return list(range(first, last + 1))
    if isinstance(value, list | tuple) and value and all(type(x) is int and x >= 0 for x in value):
        seeds = dict.fromkeys(value)
        if len(seeds) == len(value):
            return list(seeds)
    raise ConfigError(
        f"seed: expected a number, a list, or a range such as 0..4 (of up to {MOST_SEEDS}), got {value!r}"
    )


def plan(keys: Mapping[str, Any]) -> tuple[list[Settings], int]:
    """The experiments that ``keys`` describe, one for each seed, and how many to run at a time.

    Raises:
        ConfigError: With one line per mistake, or if a run folder exists already.
    """
    data = dict(keys)
    seeds, jobs = parse_seeds(data.pop("seed", 0)), data.pop("jobs", 1)
    if type(jobs) is not int or jobs < 1:
        raise ConfigError(f"jobs: expected a whole number of at least 1, got {jobs!r}")
    first = settings({**data, "seed": seeds[0]})
    if len(seeds) == 1:
        return [first], jobs
    root = first.run_dir or stamped_folder(first)
    many = [first.model_copy(update={"seed": seed, "run_dir": root / f"seed_{seed}"}) for seed in seeds]
    if any(s.run_dir is not None and s.run_dir.exists() for s in many):
        raise ConfigError(f"run_dir: {root} holds runs already; choose another name, or go on with --resume {root}")
    return many, jobs


def run_side_by_side(settings: Sequence[Settings], jobs: int) -> None:
    """Train each of ``settings`` (their ``run_dir`` set) in a process of its own, ``jobs`` at a time.

    Each process writes its messages to ``<run_dir>.log``.

    Raises:
        ConfigError: If an environment cannot be named in a file.
        RuntimeError: If a process failed; the message has its last line.
    """
    waiting = list(settings)
    running: list[tuple[Settings, subprocess.Popen]] = []
    failed: list[str] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(waiting.pop(0)))
            for one in [r for r in running if r[1].poll() is not None]:
                running.remove(one)
                if one[1].returncode not in (0, 130):
                    failed.append(f"seed {one[0].seed}: {_last_line(one[0])}")
            time.sleep(POLL_SECONDS)
    finally:  # on Ctrl-C every process saves and ends
        for _, process in running:
            process.send_signal(signal.SIGINT)
        for _, process in running:
            process.wait()
    if failed:
        raise RuntimeError("; ".join(failed))


def _start(s: Settings) -> tuple[Settings, subprocess.Popen]:
    if not isinstance(s.env, str):
        raise ConfigError("jobs: several processes need an environment given by name, not as an object")
    assert s.run_dir is not None
    s.run_dir.parent.mkdir(parents=True, exist_ok=True)
    config = s.run_dir.with_suffix(".yaml")
    write_atomic(config, s.to_yaml())
    command = [sys.executable, "-m", "marl.cli", "train", str(config)]
    with s.run_dir.with_suffix(".log").open("wb") as log:
        return s, subprocess.Popen(command, stdout=log, stderr=log)


def _last_line(s: Settings) -> str:
    assert s.run_dir is not None
    lines = s.run_dir.with_suffix(".log").read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "no message"
