"""Pool: worker processes that step copies of an environment at the same time, seen from the parent.

Arrays live in anonymous shared memory that workers inherit as a file descriptor: it has no name, so nothing is left
behind however the processes end. Commands are single bytes over pipes; waiting blocks and never spins.

A worker falls when its environment raises, when its process ends, or when it gives no answer in time. Whether that
ends everything or the worker is started again is a setting (:class:`Workers`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import select
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np

from envs import worker
from envs.door.copies import Arrays
from envs.door.errors import EnvError
from envs.door.layout import Layout
from envs.door.source import Source

PATIENCE = 5.0  # seconds a worker has to close its environments
STARTING = 60.0  # seconds it may take longer when it starts


@dataclass(frozen=True)
class Workers:
    """How many processes share the copies, and what happens when one of them falls.

    Attributes:
        count: Processes; 0 steps all copies in this one.
        on_crash: ``stop`` raises an error that says what happened. ``restart`` starts the worker again: its copies
            begin new episodes, and the steps that were lost count as truncations.
        timeout_s: Seconds a worker may take for one command before it counts as hung; None waits for ever.

    Raises:
        ValueError: If one of them does not fit.
    """

    count: int = 0
    on_crash: Literal["stop", "restart"] = "stop"
    timeout_s: float | None = 300.0

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"workers: must not be negative, got {self.count}")
        if self.on_crash not in ("stop", "restart"):
            raise ValueError(f"on_crash: expected stop or restart, got {self.on_crash!r}")
        if self.on_crash == "restart" and not self.count:
            raise ValueError("on_crash: restart needs workers; an error in this process ends everything. Use workers=1")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise ValueError(f"timeout_s: must be above 0, or None to wait for ever, got {self.timeout_s}")


IN_PROCESS = Workers()  # no worker at all


class Pool:
    """The copies of an environment, shared out evenly over worker processes.

    Attributes:
        restarts: How often a worker was started again.
        last_crash: What happened the last time, or None.

    Args:
        source: Where copies come from; must have an import path.
        layout: How their agents lie on the agent axis.
        num_envs: Number of copies B.
        workers: How many processes, at most B, and what to do when one falls.
        seed: Root seed under which copies are built.

    Raises:
        EnvError: If an environment cannot be built; the message is the worker's.
        ValueError: If the source cannot be sent to workers, or there are more workers than copies.
    """

    def __init__(self, source: Source, layout: Layout, num_envs: int, workers: Workers, seed: int) -> None:
        if workers.count > num_envs:
            raise ValueError(f"workers: at most one for each of the {num_envs} copies, got {workers.count}")
        shapes = layout.shapes(num_envs)
        size = worker.place(shapes)[1]
        text = source.to_json()
        self.settings, self.restarts, self.last_crash = workers, 0, None
        self._file = _anonymous(size)  # stays open, for workers that are started later
        self.arrays: Arrays = worker.arrays_in(mmap.mmap(self._file.fileno(), size), shapes)
        bounds = np.linspace(0, num_envs, workers.count + 1).round().astype(int).tolist()
        self.spans = list(itertools.pairwise(bounds))
        self._config = {"source": text, "shapes": shapes, "memory": self._file.fileno(), "seed": seed}
        self.processes = [self._launch(index) for index in range(workers.count)]
        self._end = weakref.finalize(self, _end, self.processes, self._file)
        self._stop_if(self._answers(range(workers.count), STARTING))

    def reset(self) -> None:
        """Start the episode numbered ``episode`` in every active copy; a worker that falls is given a second try."""
        fallen = self._command(worker.RESET)
        if fallen:
            self._restart(fallen)
            self.arrays["active"][~self._copies_of(fallen)] = False
            self._stop_if(self._command(worker.RESET))

    def step(self) -> np.ndarray | None:
        """Take the actions in every active copy.

        Returns:
            ``[B]`` bool: the copies of workers that were started again, whose rows hold anything and which must be
            reset next; None where no worker fell.
        """
        fallen = self._command(worker.STEP)
        if not fallen:
            return None
        self._restart(fallen)
        return self._copies_of(fallen)

    def close(self) -> None:
        """End the workers."""
        self._end()

    def _command(self, command: bytes) -> dict[int, str]:
        """Give every worker a command and wait for all; returns what happened to those that fell."""
        if not self._end.alive:
            raise EnvError("the workers of this environment are closed; make a new one")
        for process in self.processes:
            with contextlib.suppress(BrokenPipeError):  # the answer that fails to come says why
                os.write(_pipe(process.stdin), command)
        return self._answers(range(len(self.processes)))

    def _answers(self, indices: Iterable[int], extra: float = 0.0) -> dict[int, str]:
        """Read one answer of each of these workers; what happened to those that fell, by index."""
        limit = self.settings.timeout_s
        until = None if limit is None else time.monotonic() + limit + extra
        return {index: message for index in indices if (message := self._answer(index, until)) is not None}

    def _answer(self, index: int, until: float | None) -> str | None:
        process = self.processes[index]
        waiting = select.poll()
        waiting.register(_pipe(process.stdout), select.POLLIN)
        if not waiting.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000):
            process.kill()
            process.wait()
            return f"{self._name(index)} gave no answer for {self.settings.timeout_s:g} s; raise timeout_s if it may"
        answer = os.read(_pipe(process.stdout), 1)
        if answer == worker.READY:
            return None
        if answer == worker.ERROR:
            assert process.stdout is not None
            return process.stdout.readline().decode().strip()
        code = process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"{self._name(index)} {how}; its last words are on standard error"

    def _restart(self, fallen: dict[int, str]) -> None:
        """Start workers again that fell, where that is the setting; otherwise stop."""
        if self.settings.on_crash == "stop":
            self._stop_if(fallen)
        for index in fallen:
            _finish([self.processes[index]])
            self.processes[index] = self._launch(index)
        self._stop_if(self._answers(fallen, STARTING))
        self.restarts += len(fallen)
        self.last_crash = next(iter(fallen.values()))

    def _stop_if(self, fallen: dict[int, str]) -> None:
        if fallen:
            self.close()
            raise EnvError(next(iter(fallen.values())))

    def _copies_of(self, indices: Iterable[int]) -> np.ndarray:
        which = np.zeros(len(self.arrays["active"]), bool)
        for index in indices:
            which[slice(*self.spans[index])] = True
        return which

    def _name(self, index: int) -> str:
        first, stop = self.spans[index]
        return f"worker {index} (copies {first} to {stop - 1})"

    def _launch(self, index: int) -> subprocess.Popen[bytes]:
        first, stop = self.spans[index]
        return _launch({**self._config, "first": first, "stop": stop}, self._file.fileno())


def _anonymous(size: int) -> IO[bytes]:
    """A file of this size in memory, or where the system has none, in a folder for temporary files; without a name."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = open(os.memfd_create("concert"), "r+b", buffering=0)  # noqa: SIM115 - the caller closes it
    else:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    file.truncate(size)
    return file


def _launch(config: dict[str, Any], memory: int) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    hashing = {"PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0")}  # sets of names iterate alike in all workers
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "envs.worker", json.dumps(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        pass_fds=(memory,),
        process_group=0,  # out of the way of Ctrl-C from the first moment on
        env={**os.environ, **threads, **hashing, "PYTHONPATH": path},
    )


def _pipe(stream: IO[bytes] | None) -> int:
    assert stream is not None
    return stream.fileno()


def _end(processes: list[subprocess.Popen[bytes]], memory: IO[bytes]) -> None:
    """End all workers; the memory lives on as long as arrays show it."""
    _finish(processes)
    memory.close()


def _finish(processes: list[subprocess.Popen[bytes]]) -> None:
    """Close the inputs, which ends workers in order; kill those that do not end in time."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
