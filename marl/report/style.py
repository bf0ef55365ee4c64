"""The look of every picture: colours that colour-blind readers can tell apart, type, axes, figures as SVG or PNG."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from envs.render import colours
from envs.render.colours import FAINT, INK, MUTED, SERIES

BASELINE = {"random": "#98a2ad", "scripted": "#3e4c59"}

_STYLE: dict[Any, Any] = {  # matplotlib types its keys one by one
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that a layout is the same everywhere
    "font.size": 9,
    "grid.color": "#e9edf1",
    "grid.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",  # text stays text: it takes the font of the page, and can be searched
    "svg.hashsalt": "concert",  # the same picture is the same file
    "text.color": INK,
    "text.parse_math": False,  # a dollar in the name of a run is a dollar
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "ytick.left": False,
    "figure.constrained_layout.use": True,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of the reports; the user's own matplotlib settings come back afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def colour(index: int) -> str:
    """Colour of the ``index``-th series; they repeat after six."""
    return SERIES[index % len(SERIES)]


def on(fill: str) -> str:
    """Colour of text on a fill ``#rrggbb``: white on dark fills, ink on light ones."""
    return colours.on(colours.rgb(fill))


def steps_axis(axes: Axes) -> None:
    """Make x an axis of env steps: few ticks, written 500k and 2M."""
    axes.set_xlabel("env steps")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def blank(axes: Axes) -> None:
    """Take ticks, grid and spines away: for drawings that have no scale."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def to_svg(figure: Figure) -> str:
    """The figure as an SVG element that scales to the width it is given."""
    buffer = io.StringIO()
    with styled():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r'<svg([^>]*?) (?:width|height)="[^"]*"([^>]*?) (?:width|height)="[^"]*"', r"<svg\1\2", text, count=1)


def to_png(figure: Figure, dpi: int = 160) -> bytes:
    """The figure as PNG bytes, for pictures with too many marks for SVG."""
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def png_element(data: bytes) -> str:
    """PNG bytes as an HTML image element that holds its own data."""
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
