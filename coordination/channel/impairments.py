"""What links do to messages in passing: noise, loss and partition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from coordination.channel.base import Stage
from coordination.channel.draws import Source, normal, uniform
from coordination.channel.packet import Packet
from coordination.graph import Graph
from coordination.links import at_ends

UNKNOWN = -1  # state of a bursty link before its first step: drawn from the stationary distribution


class Noise(Stage):
    """Additive white Gaussian noise: ``y = x + N(0, std^2)`` on every number of every edge.

    Args:
        std: Standard deviation, in the units of the message.

    >>> Noise(1.0).capacity(power=3.0)
    1.0
    """

    def __init__(self, std: float) -> None:
        if not std >= 0:
            raise ValueError(f"std: must not be negative, got {std}")
        self.std = std

    def capacity(self, power: float) -> float:
        """``log2(1 + power / std^2) / 2`` bits per number: no measured information can exceed it (Shannon 1948).

        Args:
            power: Mean square of the numbers sent.
        """
        return math.inf if self.std == 0 else 0.5 * math.log2(1 + power / self.std**2)

    def apply(
        self,
        packet: Packet,
        state: dict[str, Tensor],
        graph: Graph,
        step: Tensor,
        generator: Source | None,
    ) -> tuple[Packet, dict[str, Tensor], Tensor]:
        """Values with noise; nothing is lost."""
        draw = normal(packet.value, generator, "Noise")
        noisy = torch.where(packet.present.unsqueeze(-1), packet.value + self.std * draw, 0.0)
        return replace(packet, value=noisy), state, torch.zeros_like(packet.count())


class Drop(Stage):
    """Loss of messages, independent or in bursts.

    Independent (``burst=None``): every message is lost with probability ``loss``. Bursty: every link is a
    Gilbert-Elliott chain (Gilbert 1960; Elliott 1963) of a good state, which loses nothing, and a bad state, which
    loses each message with probability ``loss_bad``. The bad state is left with probability ``1 / burst`` a step; it is
    entered with the probability that makes the stationary loss ``pi_bad loss_bad`` equal to ``loss``. Links start
    stationary and are independent of each other.

    Args:
        loss: Fraction of messages lost in the long run, in [0, 1] (bursty: below ``loss_bad``).
        burst: Mean number of steps a link stays bad, at least 1; None for independent loss.
        loss_bad: Probability of loss in the bad state, in (0, 1].

    Raises:
        ValueError: If an argument is out of range, or no chain has that loss with such short bursts.

    >>> Drop(0.2, burst=4.0).enter
    0.0625
    """

    edge_axis: ClassVar[dict[str, int]] = {"bad": -1}

    def __init__(self, loss: float, burst: float | None = None, loss_bad: float = 1.0) -> None:
        if not 0 <= loss <= 1:
            raise ValueError(f"loss: must be in [0, 1], got {loss}")
        if not 0 < loss_bad <= 1:
            raise ValueError(f"loss_bad: must be in (0, 1], got {loss_bad}")
        if burst is None and loss_bad != 1:
            raise ValueError("loss_bad: belongs to bursty loss, give burst too")
        self.loss, self.burst, self.loss_bad = loss, burst, loss_bad
        if burst is not None:
            if not burst >= 1:
                raise ValueError(f"burst: must be at least 1 step, got {burst}")
            if not loss < loss_bad:
                raise ValueError(f"loss: must be below loss_bad = {loss_bad} for bursty loss, got {loss}")
            if self.enter > 1:
                raise ValueError(f"loss, burst: a loss of {loss} needs bursts longer than {burst} steps")

    def __repr__(self) -> str:
        bursty = "" if self.burst is None else f", burst={self.burst}"
        return f"Drop(loss={self.loss}{bursty}{'' if self.loss_bad == 1 else f', loss_bad={self.loss_bad}'})"

    @property
    def stationary(self) -> float:
        """Long-run probability of the bad state."""
        return self.loss / self.loss_bad

    @property
    def enter(self) -> float:
        """Probability of a good link turning bad in one step."""
        if self.burst is None:
            raise ValueError("enter: independent loss has no states; give burst")
        return self.stationary / (1 - self.stationary) / self.burst

    def initial(self, packet: Packet, graph: Graph) -> dict[str, Tensor]:
        """``bad [*, E]`` int8: 1 bad, 0 good, -1 not drawn yet."""
        if self.burst is None:
            return {}
        return {"bad": torch.full_like(packet.present, UNKNOWN, dtype=torch.int8)}

    def apply(
        self,
        packet: Packet,
        state: dict[str, Tensor],
        graph: Graph,
        step: Tensor,
        generator: Source | None,
    ) -> tuple[Packet, dict[str, Tensor], Tensor]:
        """The messages that get through; the others are lost. Links change state whether or not they carry anything."""
        shape = packet.present.shape
        if self.burst is None:
            lost = uniform(shape, packet.value, generator, "Drop") < self.loss
        else:
            draw = uniform(shape, packet.value, generator, "Drop")
            before = state["bad"]
            stay = torch.where(before == 1, 1 - 1 / self.burst, self.enter)
            bad = draw < torch.where(before == UNKNOWN, self.stationary, stay)
            state = {"bad": bad.to(torch.int8)}
            lost = bad & (uniform(shape, packet.value, generator, "Drop") < self.loss_bad)
        return packet.keep(~lost), state, packet.count(lost)


class Partition(Stage):
    """The network falls apart: links between different groups lose everything while it lasts.

    Args:
        group: ``[N]`` group of each agent.
        start: First step of the partition.
        stop: First step after it; None if it lasts.

    Raises:
        ValueError: If the window is empty or ``group`` is not a list of N numbers.

    >>> Partition([0, 0, 1, 1], start=10, stop=20)
    Partition(groups=2, start=10, stop=20)
    """

    def __init__(self, group: Sequence[int] | Tensor, start: int = 0, stop: int | None = None) -> None:
        self.group = torch.as_tensor(group)
        if self.group.ndim != 1 or self.group.is_floating_point():
            raise ValueError(f"group: expected [N] integers, got {self.group.dtype} {tuple(self.group.shape)}")
        if start < 0 or (stop is not None and stop <= start):
            raise ValueError(f"start, stop: expected 0 <= start < stop, got {start}, {stop}")
        self.start, self.stop = start, stop

    def __repr__(self) -> str:
        return f"Partition(groups={len(self.group.unique())}, start={self.start}, stop={self.stop})"

    def apply(
        self,
        packet: Packet,
        state: dict[str, Tensor],
        graph: Graph,
        step: Tensor,
        generator: Source | None,
    ) -> tuple[Packet, dict[str, Tensor], Tensor]:
        """What stays inside a group, or outside the window; the rest is lost."""
        if len(self.group) != graph.num_agents:
            raise ValueError(f"group: expected {graph.num_agents} agents, got {len(self.group)}")
        lead = packet.present.shape[:-1]
        group = self.group.to(packet.present.device, non_blocking=True).expand(*lead, -1)
        apart = at_ends(group, graph, "sender") != at_ends(group, graph, "receiver")
        on = step >= self.start if self.stop is None else (step >= self.start) & (step < self.stop)
        cut = apart & on.unsqueeze(-1)
        return packet.keep(~cut), state, packet.count(cut)
