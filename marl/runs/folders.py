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


def new_folder(settings: Settings) -> Path:
    """Make the run folder and write ``config.yaml`` into it.

    Raises:
        ConfigError: If an explicitly named folder exists already.
    """
    if settings.run_dir is not None:
        folder = settings.run_dir
        if folder.exists():
            raise ConfigError(f"run_dir: {folder} exists already; choose another name, or go on with --resume {folder}")
    else:
        folder = stamped_folder(settings)
    with named_errors(folder):
        folder.mkdir(parents=True)
    write_atomic(folder / "config.yaml", settings.to_yaml())
    return folder


def stamped_folder(settings: Settings) -> Path:
    """A new folder name under ``runs/``, by time, environment and algorithm."""
    name = re.sub(r"\W+", "_", settings.env).strip("_") if isinstance(settings.env, str) else "env"
    stem = Path("runs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}_{settings.recipe}_{settings.seed}"
    numbers = (f"-{k}" if k > 1 else "" for k in count(1))
    return next(path for n in numbers if not (path := stem.with_name(stem.name + n)).exists())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run folder.

    Raises:
        ConfigError: If it cannot be read.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


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
