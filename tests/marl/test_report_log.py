from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from marl.report.log import RunLog, read_metrics
from marl.storage.files import RunWriteError


def row(iteration: int, wall: float = 1.5) -> dict:
    return {
        "iteration": iteration,
        "env_steps": 100 * iteration,
        "agent_steps": 300 * iteration,
        "train/return": -80.123456789012345 + iteration,
        "train/return/red": 1 / 3,
        "time": {"wall_s": wall, "env_steps_per_second": 66.6, "phase_s": {"collect": 1.0, "learn": 0.5}},
    }


def written(folder: Path, iterations: range) -> Path:
    with RunLog(folder) as log:
        for i in iterations:
            log.write(row(i))
    return folder / "metrics.jsonl"


def test_rows_come_back_as_they_were(tmp_path: Path):
    path = written(tmp_path, range(1, 4))
    assert read_metrics(path) == [row(1), row(2), row(3)]
    assert len(path.read_bytes().splitlines()) == 3


def test_two_runs_write_the_same_file_but_for_time(tmp_path: Path):
    texts = []
    for wall in (1.0, 2.0):
        folder = tmp_path / str(wall)
        folder.mkdir()
        with RunLog(folder) as log:
            log.write(row(1, wall))
        data = json.loads((folder / "metrics.jsonl").read_text())
        del data["time"]
        texts.append(json.dumps(data))
    assert texts[0] == texts[1]


def test_a_torn_last_line_is_left_out(tmp_path: Path):
    path = written(tmp_path, range(1, 4))
    path.write_bytes(path.read_bytes()[:-30])
    assert [r["iteration"] for r in read_metrics(path)] == [1, 2]


def test_a_last_line_that_lacks_only_its_newline_counts(tmp_path: Path):
    path = written(tmp_path, range(1, 3))
    path.write_bytes(path.read_bytes()[:-1])
    assert [r["iteration"] for r in read_metrics(path)] == [1, 2]
    with RunLog(tmp_path) as log:
        log.resume(2)
        log.write(row(3))
    assert [r["iteration"] for r in read_metrics(path)] == [1, 2, 3]


@pytest.mark.parametrize("damage", [b'{"iteration": 2, "env_', b"", b"[1, 2]", b'{"env_steps": 3}', b"\xff\xfe"])
def test_damage_in_the_middle_is_named_by_its_line(tmp_path: Path, damage: bytes):
    path = written(tmp_path, range(1, 4))
    lines = path.read_bytes().split(b"\n")
    lines[1] = damage
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 2 is damaged"):
        read_metrics(path)
    with pytest.raises(ValueError, match="line 2 is damaged"):
        RunLog(tmp_path).resume(1)


def test_an_empty_file_has_no_rows(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_resume_cuts_back_to_the_checkpoint_and_keeps_bytes(tmp_path: Path):
    path = written(tmp_path, range(1, 6))
    whole = path.read_bytes()
    first_three = b"".join(whole.splitlines(keepends=True)[:3])
    path.write_bytes(whole + b'{"iteration": 6, "tr')
    log = RunLog(tmp_path)
    log.resume(3)
    assert path.read_bytes() == first_three
    log.write(row(4))
    log.close()
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:4])


def test_resume_before_anything_was_logged(tmp_path: Path):
    with RunLog(tmp_path) as log:
        log.resume(0)
        log.write(row(1))
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


def test_resume_that_cannot_write_leaves_the_log_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written(tmp_path, range(1, 4))
    whole = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("marl.storage.files.os.replace", refuse)
    with pytest.raises(RunWriteError, match=r"cannot write .*metrics.jsonl: No space left on device"):
        RunLog(tmp_path).resume(1)
    assert path.read_bytes() == whole


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_one_clear_error(tmp_path: Path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunWriteError, match=r"^cannot write .*metrics.jsonl: No space left on device$"):
        RunLog(tmp_path).write(row(1))


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(e.step, e.value) for e in accumulator.Scalars(tag)]


def test_tensorboard_reads_every_scalar_over_env_steps(tmp_path: Path):
    written(tmp_path, range(1, 4))
    assert events(tmp_path, "train/return") == [(100 * i, pytest.approx(-80.12345679 + i)) for i in (1, 2, 3)]
    assert events(tmp_path, "time/phase_s/learn") == [(100 * i, 0.5) for i in (1, 2, 3)]
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    tags = ["train/return", "train/return/red", "time/wall_s", "time/env_steps_per_second", "time/phase_s/collect"]
    assert sorted(accumulator.Tags()["scalars"]) == sorted([*tags, "time/phase_s/learn"])


def test_tensorboard_drops_what_a_resumed_run_repeats(tmp_path: Path):
    written(tmp_path, range(1, 6))
    with RunLog(tmp_path) as log:
        log.resume(2)
        log.write({**row(3), "train/return": 7.0})
    assert [step for step, _ in events(tmp_path, "train/return")] == [100, 200, 300]
    assert events(tmp_path, "train/return")[-1] == (300, 7.0)
