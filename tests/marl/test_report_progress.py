from __future__ import annotations

import io

import pytest
from rich.console import Console

from marl.report.progress import Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def row(iteration: int, **fields: float) -> dict:
    phases = {"collect": 0.6, "learn": 0.3, "other": 0.1}
    time = {"wall_s": float(iteration), "env_steps_per_second": 1000.0, "phase_s": phases}
    return {
        "iteration": iteration,
        "env_steps": 1000 * iteration,
        "agent_steps": 3000 * iteration,
        "time": time,
        **fields,
    }


def watch(terminal: bool, iterations: int, seconds: float = 1.0) -> str:
    clock = Clock()
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    with Progress("mappo · graph", console, interval=10.0, clock=clock) as progress:
        for i in range(1, iterations + 1):
            extra = {"train/return": -50.0} | ({"evaluate/return": -40.0} if i == 2 else {})
            progress.update(row(i, **extra), total_env_steps=100_000)
            clock.now += seconds
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_without_a_terminal_it_is_a_line_every_interval_and_a_last_one():
    lines = watch(terminal=False, iterations=25).splitlines()
    assert [line.split("|")[1].split()[0] for line in lines] == ["1%", "11%", "21%", "25%"]
    assert lines[1] == (
        "mappo · graph | 11%  11,000 / 100,000 env steps | return -50 | evaluated -40 | 1,000 env steps/s | "
        "3,000 agent steps/s | collect 60% learn 30% other 10% | 1:29 left"
    )


def test_on_a_terminal_it_redraws_and_shows_the_same_numbers():
    text = watch(terminal=True, iterations=3)
    for part in (
        "mappo · graph",
        "3%",
        "3,000 / 100,000 env steps",
        "1:37 left",
        "return -50",
        "evaluated -40",
        "collect 60%",
    ):
        assert part in text


def test_the_return_is_smoothed_and_survives_rows_without_one():
    console = Console(file=io.StringIO(), force_terminal=False, width=100)
    with Progress(console=console, interval=0.0) as progress:
        progress.update(row(1, **{"train/return": 0.0}), 10_000)
        progress.update(row(2), 10_000)
        progress.update(row(3, **{"train/return": 10.0}), 10_000)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "return 0" in lines[1]
    assert "return 1 " in lines[2]  # a tenth of the way


def test_nothing_is_shown_before_the_first_row_and_errors_pass_through():
    console = Console(file=io.StringIO(), force_terminal=False)
    with pytest.raises(KeyboardInterrupt), Progress("x", console):
        raise KeyboardInterrupt
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_it_draws_on_stderr(capsys: pytest.CaptureFixture[str]):
    with Progress("x") as progress:
        progress.update(row(1), 10_000)
    out, err = capsys.readouterr()
    assert out == ""
    assert "1,000 / 10,000 env steps" in err
