"""Checkpoints: exact round trips, damage that is refused, pointers that change last, and old ones that go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from marl.storage.checkpoint import CheckpointError, Checkpoints
from marl.storage.files import RunWriteError

STATE = {
    "weights": {"a": torch.randn(3, 2), "b": torch.arange(4)},
    "flags": [torch.tensor([True, False]), None, 1.5, "text"],
    "empty": {},
}


def assert_equal(a: object, b: object) -> None:
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list):
        assert isinstance(b, list)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(7, STATE)
    assert_equal(store.load(), STATE)
    assert_equal(store.load("00000007"), STATE)


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep=2)
    for i in range(6):
        store.save(i, {"i": i}, best=i == 1)
    assert store.load("best") == {"i": 1}
    assert store.load() == {"i": 5}
    assert sorted(p.stem for p in tmp_path.glob("*.json")) == ["00000001", "00000004", "00000005"]
    assert sorted(p.stem for p in tmp_path.glob("*.safetensors")) == ["00000001", "00000004", "00000005"]


@pytest.mark.parametrize("cut", [1, 50])
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, cut: int) -> None:
    store = Checkpoints(tmp_path)
    store.save(7, STATE)
    path = tmp_path / f"00000007{suffix}"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CheckpointError, match=r"damaged: its checksum|cannot be read"):
        store.load()


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_one_flipped_bit_is_refused(tmp_path: Path, suffix: str) -> None:
    store = Checkpoints(tmp_path)
    store.save(7, STATE)
    path = tmp_path / f"00000007{suffix}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"damaged|cannot be read"):
        store.load()


def test_without_a_pointer_the_newest_is_read_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    """A kill between the first checkpoint and its name loses nothing."""
    store = Checkpoints(tmp_path / "checkpoints")
    assert store.empty
    for i in (3, 12):
        store.save(i, {"i": i})
    (store.folder / "latest").unlink()
    assert not store.empty
    assert store.load() == {"i": 12}
    with pytest.raises(CheckpointError, match="no best checkpoint"):
        store.load("best")
    (store.folder / "latest").write_text("3\n4")
    with pytest.raises(CheckpointError, match=r"expected latest, best or a number, got '3\\n4'"):
        store.load()
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file is no folder of checkpoints"):
        _ = Checkpoints(tmp_path / "file").empty


def test_missing_checkpoints_and_other_formats_are_named(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match="no latest checkpoint in"):
        store.load()
    store.save(7, STATE)
    with pytest.raises(CheckpointError, match=r"00000009\.json cannot be read: No such file"):
        store.load("00000009")
    path = tmp_path / "00000007.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(CheckpointError, match="format 99 is not the one read here"):
        store.load()


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Checkpoints(tmp_path)
    store.save(1, STATE)
    import marl.storage.checkpoint as module

    written: list[Path] = []
    real = module.write_atomic

    def fails_at_the_second_file(path: Path, data: bytes | str) -> None:
        written.append(path)
        if len(written) == 2:
            raise RunWriteError(f"cannot write {path}: No space left on device")
        real(path, data)

    monkeypatch.setattr(module, "write_atomic", fails_at_the_second_file)
    with pytest.raises(RunWriteError, match="No space left on device"):
        store.save(2, {"other": 1})
    assert_equal(store.load(), STATE)


def test_what_cannot_be_stored_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"cannot store a object at /deep/0"):
        Checkpoints(tmp_path).save(1, {"deep": [object()]})
