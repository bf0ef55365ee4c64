"""Quantise: a uniform quantiser at the sender, with a straight-through gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from coordination.arrays import Array
from coordination.channel.base import Stage
from coordination.channel.draws import Source, uniform
from coordination.channel.packet import Packet
from coordination.graph import Graph


class Quantise(Stage):
    """Uniform mid-rise quantiser: ``q(x) = low + (floor((x - low) / step) + 1/2) step``.

    With ``step = (high - low) / 2^bits``. Numbers outside ``[low, high]`` are clipped first. Inside, the mean squared
    error of numbers spread evenly is ``step^2 / 12`` (Bennett 1948). With subtractive dither (Roberts 1962; Schuchman
    1964) sender and receiver add and take away the same uniform draw, and the error has mean zero and variance
    ``step^2 / 12`` for *every* number at least half a step inside the range. The gradient is straight-through (Bengio
    et al. 2013, arXiv:1308.3432): one inside the range, zero where clipped.

    Args:
        bits: Bits per number, 1 to 24.
        low, high: Range; numbers outside are clipped.
        dither: Draw subtractive dither.

    Raises:
        ValueError: If an argument is out of its range.

    >>> Quantise(2).levels
    [-0.75, -0.25, 0.25, 0.75]
    """

    side: ClassVar[Literal["sender", "link"]] = "sender"

    def __init__(self, bits: int, low: float = -1.0, high: float = 1.0, dither: bool = False) -> None:
        if not isinstance(bits, int) or not 1 <= bits <= 24:
            raise ValueError(f"bits: expected an integer from 1 to 24, got {bits!r}")
        if not low < high:
            raise ValueError(f"low, high: expected low < high, got {low}, {high}")
        self.bits, self.low, self.high, self.dither = bits, low, high, dither

    def __repr__(self) -> str:
        default = (self.low, self.high, self.dither) == (-1.0, 1.0, False)
        return f"Quantise(bits={self.bits})" if default else super().__repr__()

    @property
    def step(self) -> float:
        """Distance of two levels."""
        return (self.high - self.low) / 2**self.bits

    @property
    def levels(self) -> list[float]:
        """All numbers the receiver can see (without dither)."""
        return [self.low + (i + 0.5) * self.step for i in range(2**self.bits)]

    def size(self, bits: int, dim: int) -> int:
        """``bits`` per number times D."""
        return self.bits * dim

    def __call__(self, x: Array, generator: Source | None = None) -> Tensor:
        """Quantise any tensor; the same shape."""
        x = torch.as_tensor(x)
        inside = x.clamp(self.low, self.high)
        shift = 0.0
        if self.dither:
            shift = (uniform(x.shape, x, generator, "Quantise with dither") - 0.5) * self.step
        index = ((inside.detach() + shift - self.low) / self.step).floor().clamp(0, 2**self.bits - 1)
        level = self.low + (index + 0.5) * self.step - shift
        return inside + (level - inside.detach())

    def apply(
        self,
        packet: Packet,
        state: dict[str, Tensor],
        graph: Graph,
        step: Tensor,
        generator: Source | None,
    ) -> tuple[Packet, dict[str, Tensor], Tensor]:
        """Values through the quantiser; nothing is withheld."""
        value = torch.where(packet.present.unsqueeze(-1), self(packet.value, generator), 0.0)
        return replace(packet, value=value), state, torch.zeros_like(packet.count())
