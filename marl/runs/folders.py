"""Run folders: where they are made, found and read."""

from __future__ import annotations

import json
import re
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from marl.config import ConfigError
from marl.settings import Settings
from marl.storage.files import named_errors, write_atomic

NAME = 60  # letters of an environment's name in that of a folder


def new_folder(settings: Settings) -> Path:
    """Make the run folder and write ``config.yaml`` into it; both or nothing.

    Raises:
        ConfigError: If an explicitly named folder exists already.
        RunWriteError: If the disk refuses.
    """
    while True:
        folder = settings.run_dir or stamped_folder(settings)
        with named_errors(folder):
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                if settings.run_dir is not None:
                    hint = f"choose another name, or go on with --resume {folder}"
                    raise ConfigError(f"run_dir: {folder} exists already; {hint}") from None
                if not folder.exists():
                    raise  # something is wrong with runs/; else another run took the name since, and the next is tried
    try:
        write_atomic(folder / "config.yaml", settings.to_yaml())
    except BaseException:
        folder.rmdir()
        raise
    return folder


def stamped_folder(settings: Settings) -> Path:
    """A new folder name under ``runs/``, by time, environment (without the folders of a file) and algorithm."""
    env = settings.env.replace("\\", "/").rpartition("/")[2] if isinstance(settings.env, str) else "env"
    name = re.sub(r"\W+", "_", env).strip("_")[:NAME]
    stem = Path("runs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}_{settings.recipe}_{settings.seed}"
    numbers = (f"-{k}" if k > 1 else "" for k in count(1))
    return next(path for n in numbers if not (path := stem.with_name(stem.name + n)).exists())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file of a run folder.

    Raises:
        ConfigError: If it cannot be read.
    """
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} cannot be read: expected a JSON object")
    return data


def run_folders(path: Path) -> list[Path]:
    """The run folders that ``path`` is or holds.

    Raises:
        ConfigError: If there are none.
    """
    if (path / "config.yaml").is_file():
        return [path]
    found = sorted(p.parent for p in path.glob("*/config.yaml"))
    if not found:
        raise ConfigError(f"{path} is no run folder and holds none: there is no config.yaml")
    return found
