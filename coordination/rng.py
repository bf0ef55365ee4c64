"""One tree of seeds: every random draw of a run descends from its root seed by a named path.

``derive(seed, "env", copy, episode)`` gives the same number on every machine, however many
workers there are and in whatever order they ask; different paths give independent streams
(numpy's ``SeedSequence``, O'Neill's seed_seq design). Importing this file loads no torch.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *path: int | str) -> int:
    """A 63-bit seed for one branch of the tree.

    Args:
        seed: Root seed, non-negative.
        path: Names and numbers that say whose stream this is.

    >>> derive(0, "env", 1) == derive(0, "env", 1), derive(0, "env", 1) == derive(0, "env", 2)
    (True, False)
    """
    if seed < 0:
        raise ValueError(f"seed: must not be negative, got {seed}")
    keys = [zlib.crc32(p.encode()) if isinstance(p, str) else int(p) for p in path]
    low, high = np.random.SeedSequence(entropy=seed, spawn_key=keys).generate_state(2, np.uint32)
    return int(low) | (int(high) & 0x7FFFFFFF) << 32


def generator(seed: int, *path: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on ``device``, seeded with :func:`derive`."""
    import torch

    made = torch.Generator(device=device)
    made.manual_seed(derive(seed, *path))
    return made
