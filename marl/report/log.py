"""RunLog: the numbers of a run as they come, one JSON object a line, and the same for TensorBoard.

A row looks like this; every wall-clock number stands under the one key ``time``, so that two runs of the same seed
write the same file but for ``time``::

    {"iteration": 3, "env_steps": 9600, "agent_steps": 28800, "train/return": -70.1, ...,
     "time": {"wall_s": 12.5, "env_steps_per_second": 790.0, "phase_s": {"collect": 2.9, "learn": 1.0, "other": 0.1}}}

``wall_s`` counts from the start of the run, ``phase_s`` is the seconds this iteration spent in each phase.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue] - generated code
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.record_writer import RecordWriter

from marl.storage.files import AppendFile, write_atomic

COUNTERS = ("iteration", "env_steps", "agent_steps")
Row = Mapping[str, Any]


class RunLog:
    """Writes ``metrics.jsonl`` and TensorBoard events into a run folder.

    Args:
        folder: The run folder; it must exist.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._metrics = AppendFile(self.folder / "metrics.jsonl")
        self._events: _EventFile | None = None
        self._purge_step: int | None = None

    def write(self, row: Row) -> None:
        """Append one iteration.

        Args:
            row: Plain Python numbers by name, with ``iteration`` and ``env_steps``; see the top of this file.
                Not-a-number and infinity are written as JSON knows them in Python (``NaN``, ``Infinity``).

        Raises:
            RunWriteError: If the disk is full or refuses otherwise.
        """
        self._metrics.write(json.dumps(row).encode() + b"\n")
        if self._events is None:
            self._events = _EventFile(self.folder, self._purge_step)
        self._events.write(row)

    def resume(self, iteration: int) -> None:
        """Forget every row after ``iteration``, the one of the checkpoint from which the run goes on.

        The rows kept stay byte for byte as they were. TensorBoard is told to drop the later ones.

        Raises:
            ValueError: If a line other than the last is damaged.
            RunWriteError: If the shorter file cannot be written; the old one then stays.
        """
        self.close()
        path = self._metrics.path
        kept: list[tuple[bytes, dict[str, Any]]] = []
        if path.exists():
            kept = [(line, row) for line, row in _lines(path) if row["iteration"] <= iteration]
            write_atomic(path, b"".join(line + b"\n" for line, _ in kept))
        self._purge_step = kept[-1][1]["env_steps"] + 1 if kept else 0

    def close(self) -> None:
        """Close the files; a later write opens them again."""
        self._metrics.close()
        if self._events is not None:
            self._events.close()
            self._events = None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """All rows of a ``metrics.jsonl``; a last line that a kill or a full disk cut short is left out.

    Raises:
        ValueError: If any other line is damaged; the message has its number.
        FileNotFoundError: If there is no such file.
    """
    return [row for _, row in _lines(Path(path))]


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not all(isinstance(row.get(name), int) for name in COUNTERS[:2]):
                raise ValueError("not an object with whole numbers 'iteration' and 'env_steps'")
        except ValueError as error:
            if number == len(lines):
                return
            raise ValueError(f"{path}: line {number} is damaged ({error}); restore the file or remove it") from error
        yield line, row


class _EventFile:
    """TensorBoard events of a run, one record a row, written at once.

    ``torch.utils.tensorboard`` is not used: its writer works in a thread, which reports a full disk late and with a
    traceback of its own. The part of tensorboard used here imports in 0.1 s.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = AppendFile(folder / name)
        self._writer = RecordWriter(self._file)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._add(Event(wall_time=time.time(), step=purge_step, session_log=start))

    def write(self, row: Row) -> None:
        scalars = (item for item in _scalars(row) if item[0] not in COUNTERS)
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in scalars])
        self._add(Event(wall_time=time.time(), step=row["env_steps"], summary=summary))

    def _add(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())

    def close(self) -> None:
        self._file.close()


def _scalars(row: Row, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a row under its TensorBoard tag: names of nested objects are joined by a slash."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)
