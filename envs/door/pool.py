"""Pool: worker processes that step copies of an environment at the same time, seen from the parent.

Arrays live in anonymous shared memory that workers inherit as a file descriptor: it has no name, so nothing is left
behind however the processes end. Commands are single bytes over pipes; waiting blocks and never spins.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import subprocess
import sys
import tempfile
import weakref
from typing import IO, Any

import numpy as np

from envs import worker
from envs.door.copies import Arrays
from envs.door.errors import EnvError
from envs.door.layout import Layout
from envs.door.source import Source

PATIENCE = 5.0  # seconds a worker has to close its environments


class Pool:
    """The copies of an environment, shared out evenly over worker processes.

    Args:
        source: Where copies come from; must have an import path.
        layout: How their agents lie on the agent axis.
        num_envs: Number of copies B.
        workers: Number of processes, at most B.
        seed: Root seed under which copies are built.

    Raises:
        EnvError: If an environment cannot be built; the message is the worker's.
        ValueError: If the source cannot be sent to workers, or there are more workers than copies.
    """

    def __init__(self, source: Source, layout: Layout, num_envs: int, workers: int, seed: int) -> None:
        if workers > num_envs:
            raise ValueError(f"workers: at most one for each of the {num_envs} copies, got {workers}")
        shapes = layout.shapes(num_envs)
        size = worker.place(shapes)[1]
        text = source.to_json()
        with _anonymous(size) as file:
            memory = mmap.mmap(file.fileno(), size)
            self.arrays: Arrays = worker.arrays_in(memory, shapes)
            bounds = np.linspace(0, num_envs, workers + 1).round().astype(int).tolist()
            self.spans = list(itertools.pairwise(bounds))
            common = {"source": text, "shapes": shapes, "memory": file.fileno(), "seed": seed}
            self.processes = [_launch({**common, "first": a, "stop": b}, file.fileno()) for a, b in self.spans]
        self._end = weakref.finalize(self, _end, self.processes)
        self._wait()

    def reset(self) -> None:
        """Start the episode numbered ``episode`` in every active copy."""
        self._command(worker.RESET)

    def step(self) -> None:
        """Take the actions in every active copy."""
        self._command(worker.STEP)

    def close(self) -> None:
        """End the workers."""
        self._end()

    def _command(self, command: bytes) -> None:
        if not self._end.alive:
            raise EnvError("the workers of this environment are closed; make a new one")
        for process in self.processes:
            with contextlib.suppress(BrokenPipeError):  # the answer that fails to come says why
                os.write(_pipe(process.stdin), command)
        self._wait()

    def _wait(self) -> None:
        """Read one answer of every worker."""
        for index, process in enumerate(self.processes):
            answer = os.read(_pipe(process.stdout), 1)
            if answer == worker.READY:
                continue
            if answer == worker.ERROR:
                assert process.stdout is not None
                message = process.stdout.readline().decode().strip()
            else:
                message = self._obituary(index)
            self.close()
            raise EnvError(message)

    def _obituary(self, index: int) -> str:
        code = self.processes[index].wait()
        first, stop = self.spans[index]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"worker {index} (copies {first} to {stop - 1}) {how}; its last words are on standard error"


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


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
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
