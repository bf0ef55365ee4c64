"""Checkpoints: nested state as safetensors and JSON with checksums; a damaged one is refused, never half read.

``checkpoints/00000120.safetensors`` holds the tensors, ``00000120.json`` everything else and the checksums of both. The
small files ``latest`` and ``best`` name a checkpoint; they change only after it is whole. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from marl.storage.files import named_errors, write_atomic

FORMAT = 1
TENSOR = "$tensor"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another kind; the message says which file and what is wrong."""


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: Where they lie; made at the first save.
        keep: How many of the newest to keep besides the best.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep

    def save(self, iteration: int, state: Mapping[str, Any], best: bool = False) -> Path:
        """Write a checkpoint, then point ``latest`` (and ``best``) to it, then remove superseded ones.

        Raises:
            RunWriteError: If the disk refuses; everything written before stays as it was.
        """
        with named_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{iteration:08d}"
        tensors: dict[str, Tensor] = {}
        plain = json.dumps(_split(state, "", tensors), sort_keys=True)
        data = save_tensors(tensors)
        write_atomic(self.folder / f"{name}.safetensors", data)
        sums = {"tensors": _digest(data), "state": _digest(plain.encode())}
        write_atomic(self.folder / f"{name}.json", json.dumps({"format": FORMAT, "sha256": sums, "state": plain}))
        if best:
            write_atomic(self.folder / "best", name)
        write_atomic(self.folder / "latest", name)
        self._tidy()
        return self.folder / f"{name}.json"

    @property
    def empty(self) -> bool:
        """Whether no checkpoint was ever finished here.

        Raises:
            CheckpointError: If there is something else than a folder.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(f"{self.folder} is no folder of checkpoints")
        return not (self.folder / "latest").exists() and not any(self.folder.glob("*.json"))

    def load(self, which: str = "latest") -> dict[str, Any]:
        """Read the checkpoint that ``latest`` or ``best`` names, or the one of that number.

        Without ``latest`` the newest is read: a run may be killed after writing its first one and before naming it.

        Raises:
            CheckpointError: If there is none, or it is damaged.
        """
        name = self._pointed(which) if which in ("latest", "best") else which
        if not name.isdecimal():
            raise CheckpointError(f"checkpoint: expected latest, best or a number, got {name!r} in {self.folder}")
        path = self.folder / f"{name.zfill(8)}.json"
        try:
            head = json.loads(path.read_text())
            plain, form = str(head["state"]), head["format"]
            sums = {name: str(head["sha256"][name]) for name in ("tensors", "state")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"checkpoint {path} cannot be read: {_reason(error)}") from None
        if form != FORMAT:
            raise CheckpointError(f"checkpoint {path}: format {form} is not the one read here ({FORMAT})")
        if _digest(plain.encode()) != sums["state"]:
            raise CheckpointError(f"checkpoint {path} is damaged: its checksum does not match")
        tensors = self._tensors(path.with_suffix(".safetensors"), sums["tensors"])
        try:
            return _join(json.loads(plain), tensors)
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"checkpoint {path} is damaged: {_reason(error)}") from None

    def _tensors(self, path: Path, digest: str) -> dict[str, Tensor]:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"checkpoint {path} cannot be read: {_reason(error)}") from None
        if _digest(data) != digest:
            raise CheckpointError(f"checkpoint {path} is damaged: its checksum does not match ({len(data)} bytes)")
        try:
            return load_tensors(data)
        except SafetensorError as error:
            raise CheckpointError(f"checkpoint {path} is damaged: {error}") from None

    def _pointed(self, which: str) -> str:
        try:
            return (self.folder / which).read_text().strip()
        except (OSError, ValueError) as error:
            names = sorted(p.stem for p in self.folder.glob("*.json"))
            if which == "latest" and names and isinstance(error, FileNotFoundError):
                return names[-1]
            raise CheckpointError(f"no {which} checkpoint in {self.folder}") from None

    def _tidy(self) -> None:
        pointed = {p.read_text().strip() for p in (self.folder / "latest", self.folder / "best") if p.exists()}
        names = sorted(p.stem for p in self.folder.glob("*.json"))
        for name in set(names[: -self.keep]) - pointed:
            for suffix in (".json", ".safetensors"):
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)


def _split(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The tree with each tensor moved to ``tensors`` and its name left in its place."""
    if isinstance(node, Tensor):
        tensors[path] = node.detach().cpu().contiguous().clone()
        return {TENSOR: path}
    if isinstance(node, Mapping):
        return {str(key): _split(child, f"{path}/{key}", tensors) for key, child in node.items()}
    if isinstance(node, list | tuple):
        return [_split(child, f"{path}/{i}", tensors) for i, child in enumerate(node)]
    if node is None or isinstance(node, bool | int | float | str):
        return node
    raise TypeError(f"checkpoint: cannot store a {type(node).__name__} at {path}")


def _join(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if set(node) == {TENSOR}:
            return tensors[node[TENSOR]]
        return {key: _join(child, tensors) for key, child in node.items()}
    return [_join(child, tensors) for child in node] if isinstance(node, list) else node


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or f"{type(error).__name__}: {error}")
