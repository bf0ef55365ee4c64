"""The ten value distributions of the coalition structure literature, as in the ODP-IP generator, drawn with numpy.

Worths are drawn for all 2^n masks in order, the empty one included and then set to 0; the frozen optima in
test_structure_generation.py hold for numpy's ``default_rng(0)`` and this order only.
"""

from __future__ import annotations

import numpy as np

NAMES = (
    "uniform",
    "normal",
    "modified_uniform",
    "modified_normal",
    "exponential",
    "beta",
    "gamma",
    "agent_uniform",
    "agent_normal",
    "ndcs",
)


def draw(name: str, n: int, seed: int = 0) -> np.ndarray:
    """``[2^n]`` worths with the empty coalition worth 0."""
    rng = np.random.default_rng(seed)
    total = 1 << n
    member = np.arange(total)[:, None] >> np.arange(n) & 1
    size = member.sum(1)
    if name == "uniform":
        worth = size * rng.random(total)
    elif name == "normal":
        worth = np.maximum(0, size * rng.normal(10, 0.1, total))
    elif name == "modified_uniform":
        worth = 10 * size * rng.random(total)
        bonus = rng.random(total) < 0.2
        worth = worth + bonus * 50 * rng.random(total)
    elif name == "modified_normal":
        worth = np.maximum(0, size * rng.normal(10, 0.1, total))
        bonus = rng.random(total) < 0.2
        worth = worth + bonus * rng.normal(25, 0.1, total)
    elif name == "exponential":
        worth = size * rng.exponential(1, total)
    elif name == "beta":
        worth = size * rng.beta(0.5, 0.5, total)
    elif name == "gamma":
        worth = size * rng.gamma(2, 2, total)
    elif name == "agent_uniform":
        power = 10 * rng.random(n)
        worth = sum(member[:, i] * rng.uniform(0, 2 * power[i], total) for i in range(n))
    elif name == "agent_normal":
        power = rng.normal(10, 0.1, n)
        worth = sum(member[:, i] * np.maximum(0, rng.normal(power[i], 0.1, total)) for i in range(n))
    else:
        worth = rng.normal(size, np.sqrt(size))
        while (again := (worth <= 0) & (size > 0)).any():
            worth[again] = rng.normal(size[again], np.sqrt(size[again]))
    worth = np.asarray(worth, dtype=np.float64)
    worth[0] = 0.0
    return worth


def partitions(n: int):
    """All Bell(n) partitions of 0..n-1 as restricted growth strings."""
    label = [0] * n
    high = [0] * n

    def extend(i: int):
        if i == n:
            yield tuple(label)
            return
        for c in range(high[i - 1] + 2 if i else 1):
            label[i] = c
            high[i] = max(high[i - 1], c) if i else 0
            yield from extend(i + 1)

    yield from extend(0)


def worth_of(table: np.ndarray, label) -> float:
    """Total worth of a partition."""
    bits: dict[int, int] = {}
    for i, c in enumerate(label):
        bits[c] = bits.get(c, 0) | 1 << i
    return float(sum(table[b] for b in bits.values()))
