"""A disk that fills up, at every kind of write: one line, nothing overwritten, and the last good checkpoint stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from typer.testing import CliRunner

from marl.cli import app
from marl.report.log import read_metrics
from marl.storage.checkpoint import CheckpointError, Checkpoints

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs the device that is always full")
STEPS = 4 * 5  # env steps of an iteration
SMALL = ["env=climbing", "num_envs=4", "rollout_steps=5", "policy.hidden=[4]", "algorithm.epochs=1"]
SMALL += ["checkpoint_every=1", "evaluate.every=1", "evaluate.episodes=2", "evaluate.final_episodes=2"]
Fill = Callable[[str, int], None]


def concert(*words: object) -> tuple[int, str, list[str]]:
    """Run a command: exit code, stdout, and the lines on stderr that are no progress."""
    result = CliRunner().invoke(app, [str(word) for word in words], prog_name="concert")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, [line for line in result.stderr.splitlines() if " env steps" not in line]


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fill]:
    """``fill(name, n)``: from the n-th time on, a file with this in its name is opened on a full device.

    The refusal comes from the system, wherever in the write it does.
    """
    real, seen = Path.open, []

    def begin(name: str, n: int) -> None:
        def opened(self: Path, mode: str = "r", *args: Any, **more: Any) -> IO[Any]:
            if name in self.name and mode[0] in "wa":
                seen.append(self)
                if len(seen) >= n:
                    return real(FULL, mode, *args, **more)
            return real(self, mode, *args, **more)

        monkeypatch.setattr(Path, "open", opened)

    yield begin
    assert seen, "the file was never written"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("name", "nth", "iteration"),
    [
        ("config.yaml", 1, None),
        ("metrics.jsonl", 1, None),
        ("events.out.tfevents", 1, None),
        ("00000001.safetensors", 1, None),
        ("00000003.safetensors", 1, 2),
        ("00000003.json", 1, 2),
        (".latest.", 3, 2),
        (".best.", 1, None),
        ("episode.json", 1, 4),
        ("result.json", 1, 4),
        ("report.html", 1, 4),
    ],
)
def test_training_stops_with_one_line_and_keeps_what_was_good(
    name: str, nth: int, iteration: int | None, tmp_path: Path, fill: Fill
) -> None:
    fill(name, nth)
    folder = tmp_path / "run"
    code, out, lines = concert("train", *SMALL, f"total_steps={4 * STEPS}", f"run_dir={folder}", "--json")
    assert code == 1
    assert out == ""
    assert len(lines) == 1
    assert lines[0].startswith(f"error: cannot write {folder}/")
    assert name.strip(".") in lines[0]
    assert lines[0].endswith(": No space left on device")
    assert not list(tmp_path.rglob("*.tmp"))
    if name == "config.yaml":
        assert not folder.exists()
    elif name != "report.html":
        assert not (folder / "result.json").exists()  # so that it is no finished run
    if iteration is not None:
        assert Checkpoints(folder / "checkpoints").load()["trainer"]["progress"]["iteration"] == iteration
    elif folder.exists() and name != ".best.":
        with pytest.raises(CheckpointError, match="no latest checkpoint"):
            Checkpoints(folder / "checkpoints").load()


def test_a_run_goes_on_as_soon_as_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends like one that always had it."""
    folders = [tmp_path / "whole", tmp_path / "broken"]
    settings = [*SMALL, f"total_steps={4 * STEPS}"]
    assert concert("train", *settings, f"run_dir={folders[0]}")[0] == 0
    real = Path.open

    def opened(self: Path, mode: str = "r", *args: Any, **more: Any) -> IO[Any]:
        return real(FULL if self.name.startswith(".00000003.safetensors") else self, mode, *args, **more)

    with monkeypatch.context() as full:
        full.setattr(Path, "open", opened)
        assert concert("train", *settings, f"run_dir={folders[1]}")[0] == 1
    assert concert("train", "--resume", folders[1])[0] == 0
    rows = [[{**row, "time": None} for row in read_metrics(folder / "metrics.jsonl")] for folder in folders]
    assert rows[0] == rows[1]
    assert {p.name for p in folders[0].iterdir() if "events" not in p.name} == {
        p.name for p in folders[1].iterdir() if "events" not in p.name
    }


def test_an_old_report_outlives_a_new_one_that_does_not_fit(tmp_path: Path, fill: Fill) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("env: climbing\nseed: 0\n")
    (folder / "report.html").write_text("the old one")
    before = contents(folder)
    fill("report.html", 1)
    code, out, lines = concert("report", folder)
    assert (code, out) == (1, "")
    assert lines == [f"error: cannot write {folder / 'report.html'}: No space left on device"]
    assert contents(folder) == before


def test_files_that_outgrow_a_limit_in_the_middle_of_a_run_are_named(tmp_path: Path) -> None:
    """A limit on the size of files cuts a record in the middle, as the last free bytes of a disk do."""
    resource = pytest.importorskip("resource", reason="limits of a process are a Unix thing")
    folder = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        code, _, lines = concert("train", *SMALL, f"total_steps={200 * STEPS}", f"run_dir={folder}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"error: cannot write {folder}/")
    assert lines[0].endswith(": File too large")
    sizes = {p.name: p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    assert max(sizes.values()) == 30_000
    iteration = Checkpoints(folder / "checkpoints").load()["trainer"]["progress"]["iteration"]
    rows = read_metrics(folder / "metrics.jsonl")
    assert iteration > 10
    assert iteration <= len(rows) <= iteration + 1
