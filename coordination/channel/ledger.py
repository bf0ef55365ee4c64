"""The ledger of a channel: messages and bits sent, delivered, dropped, withheld and in flight, as exact integers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from coordination import tree
from coordination.graph import Graph
from coordination.links import endpoints


@tree.struct
class Ledger:
    """Counts of (messages, bits) on every edge, or by every agent.

    The axis X is the edges of a shared topology; it is the agents, as senders, where every sample has edges of its own
    (an edge's place in such a list does not stand for the same pair from one step to the next).

    At every step, summed from the start: ``sent = delivered + dropped + in_flight`` (:meth:`imbalance` is zero).
    ``withheld`` stands apart: messages that the sender's own budget kept back were never sent.

    Attributes:
        sent, delivered, dropped, withheld, in_flight: ``[*, X, 2]`` int64, messages and bits.
        waited: ``[*, X]`` int64 steps spent on the way by all delivered messages; divided by those, the latency.

    >>> pair = lambda messages: torch.tensor([[messages, 32 * messages]])
    >>> ledger = Ledger(pair(5), pair(3), pair(1), pair(0), pair(1), torch.tensor([6]))
    >>> ledger.imbalance().tolist(), ledger.latency.tolist()
    ([[0, 0]], [2.0])
    """

    sent: Tensor = tree.axes("X 2")
    delivered: Tensor = tree.axes("X 2")
    dropped: Tensor = tree.axes("X 2")
    withheld: Tensor = tree.axes("X 2")
    in_flight: Tensor = tree.axes("X 2")
    waited: Tensor = tree.axes("X")

    @classmethod
    def zeros(cls, lead: tuple[int, ...], size: int, device: torch.device | str) -> Ledger:
        """An empty ledger with leading axes ``lead`` over ``size`` edges or agents."""
        pairs = torch.zeros(*lead, size, 2, dtype=torch.long, device=device)
        return cls(pairs, pairs, pairs, pairs, pairs, pairs[..., 0])

    def then(self, later: Ledger) -> Ledger:
        """This ledger followed by the flows of later steps: flows add up, what is in flight is the later one's."""
        return Ledger(
            self.sent + later.sent,
            self.delivered + later.delivered,
            self.dropped + later.dropped,
            self.withheld + later.withheld,
            later.in_flight,
            self.waited + later.waited,
        )

    def imbalance(self) -> Tensor:
        """``sent - delivered - dropped - in_flight``, ``[*, X, 2]``; zero if kept from the start."""
        return self.sent - self.delivered - self.dropped - self.in_flight

    def per_agent(self, graph: Graph, side: Literal["sender", "receiver"] = "sender") -> Ledger:
        """Edge counts summed by the agent at one end, ``[*, N]``; O(E).

        Args:
            graph: The graph the messages went over; it must have a shared topology.
            side: Which end of each edge to book on.

        Raises:
            ValueError: If the graph has no shared topology (its ledger is by sender already), or another size.
        """
        if graph.topology is None:
            raise ValueError("per_agent: a ledger over edges of each sample's own is by sender already")
        if self.sent.shape[-2] != graph.topology.num_edges:
            raise ValueError(f"ledger: expected {graph.topology.num_edges} edges, got {self.sent.shape[-2]}")
        return self.by(endpoints(graph, self.sent.device)[0 if side == "sender" else 1], graph.num_agents)

    def by(self, owner: Tensor, num_agents: int) -> Ledger:
        """Edge counts summed by owner: ``owner`` is ``[E]`` or ``[*, E]`` int64, N where nobody's."""
        pairs = {
            name: pairs_by(getattr(self, name), owner, num_agents)
            for name in ("sent", "delivered", "dropped", "withheld", "in_flight")
        }
        return Ledger(**pairs, waited=sum_by(self.waited, owner, num_agents))

    @property
    def latency(self) -> Tensor:
        """``[*, X]`` float32 mean steps on the way of delivered messages; NaN where none was."""
        return self.waited / self.delivered[..., 0]

    def cost(self, per_message: float = 0.0, per_bit: float = 0.0) -> Tensor:
        """``per_message * messages sent + per_bit * bits sent``, ``[*, X]`` float32."""
        return per_message * self.sent[..., 0].float() + per_bit * self.sent[..., 1].float()


def pairs_by(x: Tensor, owner: Tensor, num_agents: int) -> Tensor:
    """Sum of (messages, bits) by owner: ``[*, E, 2] -> [*, N, 2]``."""
    return sum_by(x.movedim(-1, 0), owner, num_agents).movedim(0, -1)


def sum_by(x: Tensor, owner: Tensor, num_agents: int) -> Tensor:
    """Sum of edge numbers by owner: ``[*, E] -> [*, N]``; ``owner`` is ``[E]`` or ``[*, E]``, N where nobody's."""
    total = x.new_zeros(*x.shape[:-1], num_agents + 1)
    return total.scatter_add(-1, owner.expand_as(x), x)[..., :num_agents]
