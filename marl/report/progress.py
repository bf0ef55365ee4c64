"""The live display of a run on stderr: how far, how well, how fast, and how long still."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from marl.report.log import Row

_REDRAW_S = 0.1
_SMOOTHING = 0.1  # weight of the newest iteration in the return and the speed shown


class Progress:
    """A progress bar with returns, speed, phase times and time left; plain lines where stderr is no terminal.

    Use it as a context manager and call :meth:`update` with each row of metrics. It runs no thread of its own.

    Args:
        label: What is running, shown in front.
        console: Where to draw; stderr by default.
        interval: Seconds between lines where there is no terminal.
        clock: Where seconds come from.
    """

    def __init__(
        self,
        label: str = "",
        console: Console | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._interval, self._clock = label, interval, clock
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        self._drawn_at = float("-inf")
        self._stale = False
        self._total = 1
        self._row: Row = {}
        self._return: float | None = None
        self._evaluated: float | None = None
        self._seconds_per_step: float | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._stale:
            self._draw()
        if self._live is not None:
            self._live.stop()

    def update(self, row: Row, total_env_steps: int) -> None:
        """Show a row of metrics, as :class:`~marl.report.log.RunLog` writes it.

        Args:
            row: Metrics of the newest iteration; an evaluation stays on display until the next one.
            total_env_steps: Env steps at which the run is complete.
        """
        self._row, self._total, self._stale = row, total_env_steps, True
        self._return = _blend(self._return, row.get("train/return"))
        self._evaluated = row.get("evaluate/return", self._evaluated)
        speed = row["time"]["env_steps_per_second"]
        self._seconds_per_step = _blend(self._seconds_per_step, 1 / speed if speed else None)
        if self._clock() - self._drawn_at >= (_REDRAW_S if self._live is not None else self._interval):
            self._draw()

    def _draw(self) -> None:
        self._drawn_at, self._stale = self._clock(), False
        steps, total = self._row["env_steps"], self._total
        told = f"{100 * min(steps / total, 1):.0f}%  {steps:,} / {total:,} env steps"
        left = f"{clock_time(max(total - steps, 0) * (self._seconds_per_step or 0))} left"
        if self._live is None:
            text = " | ".join(filter(None, [self._label, told, *self._numbers(), left]))
            self._console.print(text, soft_wrap=True, highlight=False, markup=False)
            return
        line = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, 1, None, None):
            line.add_column(ratio=ratio, no_wrap=True)
        bar = ProgressBar(total=total, completed=min(steps, total))
        line.add_row(Text(self._label, style="bold"), bar, Text(told), Text(left, style="cyan"))
        self._live.update(Group(line, Text("  ".join(self._numbers()), style="dim")), refresh=True)

    def _numbers(self) -> list[str]:
        row = self._row
        speed = 1 / self._seconds_per_step if self._seconds_per_step else 0.0
        parts = []
        if self._return is not None:
            parts.append(f"return {self._return:.4g}")
        if self._evaluated is not None:
            parts.append(f"evaluated {self._evaluated:.4g}")
        parts.append(f"{speed:,.0f} env steps/s")
        if row.get("agent_steps") and row["env_steps"]:
            parts.append(f"{speed * row['agent_steps'] / row['env_steps']:,.0f} agent steps/s")
        phases = row["time"].get("phase_s", {})
        whole = sum(phases.values())
        if whole:
            parts.append(" ".join(f"{name} {100 * seconds / whole:.0f}%" for name, seconds in phases.items()))
        return parts


def clock_time(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``.

    >>> clock_time(75), clock_time(3661)
    ('1:15', '1:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _blend(old: float | None, new: float | None) -> float | None:
    """Exponential mean that starts at the first value and keeps the old one where there is no new one."""
    if new is None or old is None:
        return old if new is None else new
    return old + _SMOOTHING * (new - old)
