"""Writing files of a run so that a full disk or a kill never leaves half a file in place of a good one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RunWriteError(OSError):
    """A file of a run could not be written: ``cannot write <path>: <reason of the system>``."""


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn any OSError inside into a RunWriteError that says which file it was about."""
    try:
        yield
    except RunWriteError:
        raise
    except OSError as error:
        raise RunWriteError(f"cannot write {path}: {error.strerror or error}") from error


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part.

    The data goes to a temporary file in the same folder, is flushed to the disk, and takes the name of ``path`` by one
    rename. If anything fails, the temporary file is removed and the old file stays as it was.

    Args:
        path: File to write; its folder must exist. A link is followed; folders and devices are left alone.
        data: Whole content; text is encoded as UTF-8.

    Raises:
        RunWriteError: If the system refuses (no space, no permission, no such folder).
    """
    path = Path(path)
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise RunWriteError(f"cannot write {path}: it is there already and no file")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with named_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; systems that cannot open a folder (Windows) do it by themselves."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AppendFile:
    """A file that grows record by record; each record is with the system when :meth:`write` returns.

    The file is opened at the first write. Nothing is buffered here, so a killed process loses no finished record, and a
    full disk is reported by the write that met it.

    Args:
        path: File to append to; made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = None

    def write(self, record: bytes) -> None:
        """Append one whole record.

        Raises:
            RunWriteError: If the system refuses; part of the record may then stand at the end of the file.
        """
        with named_errors(self.path):
            if self._file is None:
                self._file = self.path.open("ab", buffering=0)
            rest = memoryview(record)
            while rest:
                rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None
