"""Delay: messages arrive a number of steps later, the same for all or drawn for each."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from coordination import tree
from coordination.channel.base import Stage
from coordination.channel.draws import Source, uniform
from coordination.channel.packet import Packet
from coordination.graph import Graph


class Delay(Stage):
    """``output[t] = input[t - steps]``; with jitter, each message has a delay of its own.

    Delays with jitter are drawn evenly from ``steps - jitter`` to ``steps + jitter``. Nothing arrives before the first
    message is due, and one message can arrive per edge and step. In order (``reorder=False``), a message waits until
    the step after the one before it, which never takes it past ``steps + jitter``, so none is lost. With ``reorder``,
    messages may overtake; if two are due together the newer one arrives and the older is dropped.

    Args:
        steps: Delay d, at least 0.
        jitter: Largest deviation, from 0 to ``steps``.
        reorder: Whether messages may overtake each other.

    State and time are O(E D (steps + jitter + 1)).

    Raises:
        ValueError: If an argument is out of range.

    >>> Delay(3, jitter=1).longest
    4
    """

    edge_axis: ClassVar[dict[str, int]] = {"value": -2, "present": -1, "bits": -1, "age": -1, "last": -1}

    def __init__(self, steps: int, jitter: int = 0, reorder: bool = False) -> None:
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"steps: expected an integer of at least 0, got {steps!r}")
        if not isinstance(jitter, int) or not 0 <= jitter <= steps:
            raise ValueError(f"jitter: expected an integer from 0 to steps = {steps}, got {jitter!r}")
        if reorder and jitter == 0:
            raise ValueError("reorder: messages can only overtake each other with jitter")
        self.steps, self.jitter, self.reorder = steps, jitter, reorder

    def __repr__(self) -> str:
        return super().__repr__() if self.jitter else f"Delay(steps={self.steps})"

    @property
    def longest(self) -> int:
        """Most steps a message can take."""
        return self.steps + self.jitter

    def initial(self, packet: Packet, graph: Graph) -> dict[str, Tensor]:
        """A shift register: entry s of ``value [*, S, E, D]`` (and present, bits, age ``[*, S, E]``) is due in s steps.

        ``last [*, E]`` is in how many steps the message sent last is due; negative if it has arrived.
        """
        slots = self.longest + 1
        empty = {name: torch.zeros_like(x).unsqueeze(-2) for name, x in tree.named(packet) if name != "value"}
        return {
            "value": torch.zeros_like(packet.value).unsqueeze(-3).repeat_interleave(slots, -3),
            **{name: x.repeat_interleave(slots, -2) for name, x in empty.items()},
            "last": torch.full_like(packet.bits, -1),
        }

    def in_flight(self, state: dict[str, Tensor]) -> Tensor:
        """``[*, E, 2]`` messages and bits in the register."""
        present = state["present"]
        return torch.stack([present.sum(-2), torch.where(present, state["bits"], 0).sum(-2)], -1)

    def apply(
        self,
        packet: Packet,
        state: dict[str, Tensor],
        graph: Graph,
        step: Tensor,
        generator: Source | None,
    ) -> tuple[Packet, dict[str, Tensor], Tensor]:
        """Put what is sent into its slot, take out what is due; lost is what was overtaken at the last moment."""
        due = self._due(packet, state["last"], generator)
        slot = torch.arange(self.longest + 1, device=due.device).unsqueeze(-1)
        chosen = (due.unsqueeze(-2) == slot) & packet.present.unsqueeze(-2)  # [*, S, E]
        overtaken = chosen & state["present"]
        lost = torch.stack([overtaken.sum(-2), torch.where(overtaken, state["bits"], 0).sum(-2)], -1)
        value = torch.where(chosen.unsqueeze(-1), packet.value.unsqueeze(-3), state["value"])
        present = chosen | state["present"]
        bits = torch.where(chosen, packet.bits.unsqueeze(-2), state["bits"])
        age = torch.where(chosen, packet.age.unsqueeze(-2), state["age"])
        out = Packet(value.select(-3, 0), present.select(-2, 0), bits.select(-2, 0), age.select(-2, 0))
        after = {
            "value": _shift(value, -3),
            "present": _shift(present, -2),
            "bits": _shift(bits, -2),
            "age": _shift(age + 1, -2),
            "last": torch.where(packet.present, due, state["last"]) - 1,
        }
        return out.keep(out.present), after, lost

    def _due(self, packet: Packet, last: Tensor, generator: Source | None) -> Tensor:
        if self.jitter == 0:
            return torch.full_like(last, self.steps)
        spread = 2 * self.jitter + 1
        draw = (uniform(last.shape, packet.value, generator, "Delay with jitter") * spread).long().clamp(max=spread - 1)
        due = draw + (self.steps - self.jitter)
        return due if self.reorder else torch.maximum(due, last + 1)


def _shift(x: Tensor, axis: int) -> Tensor:
    """One step on: every entry moves a slot forward, the last is empty."""
    rest = x.narrow(axis, 1, x.shape[axis] - 1)
    return torch.cat([rest, torch.zeros_like(x.narrow(axis, 0, 1))], axis)
