"""Budget: a token bucket at the sender, so that traffic never exceeds a rate."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from coordination.channel.base import Stage
from coordination.channel.draws import Source, uniform
from coordination.channel.ledger import sum_by
from coordination.channel.packet import Packet
from coordination.graph import Graph
from coordination.links import at_ends, endpoints


class Budget(Stage):
    """A token bucket: in any T steps at most ``rate T + burst`` tokens are spent, one per bit or per message.

    The bucket starts full (``burst`` tokens) and gains ``rate`` before every later step, up to ``burst`` (the leaky
    bucket as a meter; Turner 1986). A message that finds too few tokens is withheld: it is not sent, and not queued.
    Where one bucket serves several edges, they are served in random order until the first that does not fit, so that no
    receiver is always the last.

    Args:
        rate: Tokens gained per step.
        burst: Size of the bucket, at least ``rate``; raising it lets agents save for later.
        unit: What a token buys: a bit or a message.
        per: Whose bucket it is: of every ``edge``, of every ``agent`` (as a sender), or one for the whole ``sample``.

    O(E) per edge, else O(E log E).

    Raises:
        ValueError: If an argument is out of range, or a message costs more than a full bucket.

    >>> Budget(rate=16, burst=64, per="edge")
    Budget(rate=16, burst=64, unit='bits', per='edge')
    """

    side: ClassVar[Literal["sender", "link"]] = "sender"

    def __init__(
        self,
        rate: float,
        burst: float | None = None,
        unit: Literal["bits", "messages"] = "bits",
        per: Literal["edge", "agent", "sample"] = "agent",
    ) -> None:
        if not rate >= 0:
            raise ValueError(f"rate: must not be negative, got {rate}")
        burst = rate if burst is None else burst
        if burst < rate:
            raise ValueError(f"burst: must be at least rate = {rate}, or the rate can never be used; got {burst}")
        if unit not in ("bits", "messages"):
            raise ValueError(f"unit: expected bits or messages, got {unit!r}")
        if per not in ("edge", "agent", "sample"):
            raise ValueError(f"per: expected edge, agent or sample, got {per!r}")
        self.rate, self.burst, self.unit, self.per = rate, burst, unit, per

    @property
    def edge_axis(self) -> dict[str, int]:  # type: ignore[override]
        """Tokens follow their link where every edge has a bucket."""
        return {"tokens": -1} if self.per == "edge" else {}

    def size(self, bits: int, dim: int) -> int:
        """The same; refuses messages that no full bucket could pay for."""
        if self.unit == "bits" and bits > self.burst:
            raise ValueError(
                f"Budget: a message takes {bits} bits and the bucket holds {self.burst}, so none could ever be sent; "
                f"raise burst, or quantise first"
            )
        return bits

    def initial(self, packet: Packet, graph: Graph) -> dict[str, Tensor]:
        """Full buckets: ``tokens`` float64 ``[*, E]``, ``[*, N]`` or ``[*, 1]``."""
        lead, edges = packet.present.shape[:-1], packet.present.shape[-1]
        buckets = {"edge": edges, "agent": graph.num_agents, "sample": 1}[self.per]
        full = torch.full((*lead, buckets), float(self.burst), dtype=torch.float64, device=packet.present.device)
        return {"tokens": full}

    def apply(
        self,
        packet: Packet,
        state: dict[str, Tensor],
        graph: Graph,
        step: Tensor,
        generator: Source | None,
    ) -> tuple[Packet, dict[str, Tensor], Tensor]:
        """The messages that are paid for; the others are withheld."""
        tokens = state["tokens"]
        price = packet.bits if self.unit == "bits" else torch.ones_like(packet.bits)
        price = torch.where(packet.present, price, 0)
        if self.per == "edge":
            paid = price <= tokens
            spent = torch.where(paid, price, 0)
        else:
            one = self.per == "sample"
            owner = torch.zeros_like(price) if one else endpoints(graph, price.device)[0].expand_as(price)
            total = _running_total(price, owner, uniform(price.shape, packet.value, generator, "Budget"))
            paid = total <= (tokens if one else at_ends(tokens, graph, "sender"))
            spent = sum_by(torch.where(paid, price, 0), owner, tokens.shape[-1])
        left = (tokens - spent + self.rate).clamp(max=self.burst)
        return packet.keep(paid), {"tokens": left}, packet.count(~paid)


def _running_total(price: Tensor, owner: Tensor, priority: Tensor) -> Tensor:
    """What each edge and those before it in its owner's order cost together, ``[*, E]``."""
    first = priority.argsort(-1)
    place = first.gather(-1, owner.gather(-1, first).sort(dim=-1, stable=True).indices)
    ordered_owner, ordered_price = owner.gather(-1, place), price.gather(-1, place)
    running = ordered_price.cumsum(-1)
    starts = torch.ones_like(ordered_owner, dtype=torch.bool)
    starts[..., 1:] = ordered_owner[..., 1:] != ordered_owner[..., :-1]
    base = torch.where(starts, running - ordered_price, 0).cummax(-1).values
    return torch.zeros_like(price).scatter(-1, place, running - base)
