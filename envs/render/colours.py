"""The colours of every picture, chosen so that colour-blind readers can tell them apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Okabe and Ito 2008, "Color Universal Design"; yellow is left out, it vanishes on white
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#1f2933"  # text
MUTED = "#66727f"  # labels, ticks
FAINT = "#d5dbe1"  # grid, edges of a graph
LINK = "#9fb0c0"
# six points of cividis (Nuñez, Anderton and Renslow 2018), from least to most
RAMP = np.array([(0, 34, 78), (53, 69, 108), (102, 105, 112), (148, 142, 119), (200, 184, 102), (254, 232, 56)])


def ramp(share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """``[*, 3]`` colours of ``share [*]`` in [0, 1], dark to bright."""
    at = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(share, at, channel) for channel in RAMP.T], -1).round().astype(np.uint8)


def rgb(colour: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers up to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def on(fill: tuple[int, int, int]) -> str:
    """Colour of text on a fill: white on dark fills, ink on light ones."""
    red, green, blue = fill
    return "#ffffff" if 0.3 * red + 0.6 * green + 0.1 * blue < 130 else INK
