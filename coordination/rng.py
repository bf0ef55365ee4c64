"""One tree of seeds: every random draw of a run descends from its root seed by a named path.

``derive(seed, "env", copy, episode)`` gives the same number on every machine, however many
workers there are and in whatever order they ask; different paths give independent streams
(numpy's ``SeedSequence``, O'Neill's seed_seq design). Importing this file loads no torch.
"""

from __future__ import annotations

import operator
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *path: int | str) -> int:
    """A 63-bit seed for one branch of the tree.

    Args:
        seed: Root seed, non-negative.
        path: Names, and numbers from 0 to 2^64 - 1, that say whose stream this is.

    Returns:
        A number in [0, 2^63).

    Raises:
        ValueError: If the seed or a number of the path is out of range.
        TypeError: If a part of the path is neither a string nor an integer.

    >>> derive(0, "env", 1) == derive(0, "env", 1), derive(0, "env", 1) == derive(0, "env", 2)
    (True, False)
    """
    if seed < 0:
        raise ValueError(f"seed: must not be negative, got {seed}")
    keys: list[int] = []
    for part in path:
        value = zlib.crc32(part.encode()) if isinstance(part, str) else operator.index(part)
        if not 0 <= value < 2**64:
            raise ValueError(f"path: numbers must be in [0, 2^64), got {value}")
        keys += [isinstance(part, str), value & 0xFFFFFFFF, value >> 32]  # of one width, so that no two paths are alike
    low, high = np.random.SeedSequence(entropy=seed, spawn_key=keys).generate_state(2, np.uint32)
    return int(low) | (int(high) & 0x7FFFFFFF) << 32


def generator(seed: int, *path: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on ``device``, seeded with :func:`derive`."""
    import torch

    made = torch.Generator(device=device)
    made.manual_seed(derive(seed, *path))
    return made
