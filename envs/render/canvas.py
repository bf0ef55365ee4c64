"""Canvas: a picture being drawn, in the coordinates of the world, with smooth edges."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from envs.render.colours import FAINT, INK, LINK, rgb

SIZE = 640  # pixels of a side of the field
HEAD = 64  # pixels above it, for words; with it both sides are multiples of 16, as encoders of films like them
FINE = 2  # everything is drawn this many times larger, then reduced
MARGIN = 0.06  # of the field, around what is shown
Shape = Literal["disc", "ring", "square", "diamond"]
RGB = tuple[int, int, int]
Limits = tuple[float, float, float, float]  # x from, x to, y from, y to


class Canvas:
    """A white picture of ``HEAD + SIZE`` by ``SIZE`` pixels.

    Args:
        limits: What part of the world the field shows; sides of different length leave room at the edges.
        margin: Whether to leave some room around it.
    """

    def __init__(self, limits: Limits, margin: bool = True) -> None:
        self.image = Image.new("RGB", (SIZE * FINE, (HEAD + SIZE) * FINE), "white")
        self._draw = ImageDraw.Draw(self.image, "RGBA")
        left, right, bottom, top = limits
        side = max(right - left, top - bottom, 1e-9) * (1 + 2 * MARGIN if margin else 1)
        self.unit = SIZE * FINE / side  # fine pixels to a unit of the world
        self._centre = np.array([(left + right) / 2, (bottom + top) / 2])

    def pixels(self, places: NDArray[np.floating]) -> NDArray[np.float64]:
        """``[*, 2]`` fine pixels of places in the world."""
        middle = np.array([SIZE, SIZE + 2 * HEAD]) * FINE / 2
        return (places - self._centre) * np.array([self.unit, -self.unit]) + middle

    def lattice(self, rows: int, columns: int) -> None:
        """Lines between the cells of a grid whose cells have side 1 and are centred at whole numbers."""
        ends = [((c - 0.5, -0.5), (c - 0.5, rows - 0.5)) for c in range(columns + 1)]
        ends += [((-0.5, r - 0.5), (columns - 0.5, r - 0.5)) for r in range(rows + 1)]
        for line in self.pixels(np.array(ends)):
            self._draw.line([tuple(end) for end in line.tolist()], fill=rgb(FAINT), width=FINE)

    def links(self, ends: NDArray[np.floating], arrows: NDArray[np.bool_], radius: float) -> None:
        """:func:`draw_links` between places ``ends [K, 2, 2]`` of the world."""
        draw_links(self._draw, self.pixels(ends), arrows, radius)

    def marker(
        self, pixel: NDArray[np.floating], shape: Shape, radius: float, fill: RGB | None, line: RGB | None
    ) -> None:
        """One mark; radius in fine pixels, without a fill or a line where these are None."""
        x, y = pixel.tolist()
        box = (x - radius, y - radius, x + radius, y + radius)
        width = max(FINE, round(radius / 8))
        if shape == "square":
            self._draw.rectangle(box, fill=fill, outline=line, width=width)
        elif shape == "diamond":
            corners = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)]
            self._draw.polygon(corners, fill=fill, outline=line, width=width)
        else:
            self._draw.ellipse(box, fill=fill, outline=line, width=width)

    def text(self, pixel: tuple[float, float], text: str, size: int, anchor: str = "lm", colour: str = INK) -> float:
        """Words at a fine pixel, in a size in pixels; returns how wide they are, in fine pixels."""
        font = _font(size * FINE)
        self._draw.text(pixel, text, fill=rgb(colour), font=font, anchor=anchor)
        return font.getlength(text)

    def strip(self, box: tuple[float, float, float, float], colours: NDArray[np.uint8]) -> None:
        """Colours side by side in a box of fine pixels."""
        left, top, right, bottom = (round(x) for x in box)
        self.image.paste(Image.fromarray(colours[None]).resize((right - left, bottom - top)), (left, top))

    def array(self) -> NDArray[np.uint8]:
        """The finished picture ``[HEAD + SIZE, SIZE, 3]``."""
        return np.asarray(self.image.reduce(FINE))


def draw_links(
    draw: ImageDraw.ImageDraw, ends: NDArray[np.floating], arrows: NDArray[np.bool_], radius: float, ink: str = LINK
) -> None:
    """Lines between fine pixels, fainter the more there are.

    Args:
        draw: Where, in a mode that mixes colours.
        ends: ``[K, 2, 2]`` fine pixels of both ends.
        arrows: ``[K]`` whether a line has a head at its second end.
        radius: Fine pixels by which a head stays away from the end.
        ink: Colour.
    """
    colour = (*rgb(ink), int(np.clip(255 * (200 / max(len(ends), 1)) ** 0.5, 90, 255)))
    width = 2 * FINE if len(ends) < 200 else FINE
    for (start, stop), arrow in zip(ends, arrows, strict=True):
        draw.line([tuple(start), tuple(stop)], fill=colour, width=width)
        length = float(np.hypot(*(stop - start)))
        if arrow and length > radius:
            along = (stop - start) / length
            tip, across = stop - along * radius, np.array([-along[1], along[0]])
            back = tip - along * 5 * FINE
            head = (tip, back + across * 2.5 * FINE, back - across * 2.5 * FINE)
            draw.polygon([tuple(corner) for corner in head], fill=colour)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
