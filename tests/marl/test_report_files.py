from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from marl.storage.files import AppendFile, RunWriteError, write_atomic

resource = pytest.importorskip("resource", reason="limits of a process are a Unix thing")


@pytest.fixture
def full_disk():
    """Let no file of this process grow beyond 1000 bytes: writes then fail half way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_write_atomic_writes_text_and_bytes(tmp_path: Path):
    write_atomic(tmp_path / "a.json", "grüße")
    write_atomic(tmp_path / "a.json", b"\x00\x01")
    assert (tmp_path / "a.json").read_bytes() == b"\x00\x01"
    write_atomic(tmp_path / "a.json", "grüße")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "grüße"
    assert os.listdir(tmp_path) == ["a.json"]


def test_write_atomic_follows_links_and_replaces_nothing_but_files(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/file")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "real", tmp_path / "pipe", ""):
        with pytest.raises(RunWriteError, match=r"^cannot write .*: it is there already and no file$"):
            write_atomic(path, "new")
    assert (tmp_path / "pipe").is_fifo()


def test_write_atomic_keeps_the_old_file_when_the_disk_is_full(tmp_path: Path, full_disk: None):
    path = tmp_path / "checkpoint"
    write_atomic(path, "good")
    with pytest.raises(RunWriteError, match=r"^cannot write .*checkpoint: File too large$"):
        write_atomic(path, "x" * 5000)
    assert path.read_text() == "good"
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_write_atomic_keeps_the_old_file_when_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "checkpoint"
    write_atomic(path, "good")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "good"
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_write_atomic_names_the_file_and_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(RunWriteError, match=r"cannot write .*missing/a: No such file or directory"):
        write_atomic(tmp_path / "missing" / "a", "")

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunWriteError, match=r"cannot write .*/b: No space left on device"):
        write_atomic(tmp_path / "b", "")
    assert os.listdir(tmp_path) == []


def test_append_file_has_each_record_on_disk_when_write_returns(tmp_path: Path):
    file = AppendFile(tmp_path / "log")
    file.write(b"one\n")
    assert (tmp_path / "log").read_bytes() == b"one\n"
    file.close()
    file.write(b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_append_file_reports_a_full_disk():
    with pytest.raises(RunWriteError, match=r"^cannot write /dev/full: No space left on device$"):
        AppendFile(Path("/dev/full")).write(b"row\n")


def test_append_file_reports_a_record_cut_short(tmp_path: Path, full_disk: None):
    file = AppendFile(tmp_path / "log")
    file.write(b"a" * 900)
    with pytest.raises(RunWriteError, match="cannot write"):
        file.write(b"b" * 900)
    assert (tmp_path / "log").read_bytes() == b"a" * 900 + b"b" * 100
