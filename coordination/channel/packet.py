"""What travels: the messages on the edges inside a channel, and what arrives at its end."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from coordination import tree
from coordination.channel.ledger import sum_by
from coordination.graph import Graph
from coordination.links import endpoints, receiving
from coordination.topology.base import Topology


@tree.struct
class Packet:
    """What is on every edge in one step, on its way through the stages.

    Attributes:
        value: ``[*, E, D]``; zero where nothing is present.
        present: ``[*, E]`` bool: whether a message is there.
        bits: ``[*, E]`` int64 size of each message.
        age: ``[*, E]`` int64 steps since it was sent.
    """

    value: Tensor = tree.axes("E D")
    present: Tensor = tree.axes("E")
    bits: Tensor = tree.axes("E")
    age: Tensor = tree.axes("E")

    def keep(self, mask: Tensor) -> Packet:
        """Only the messages where ``mask [*, E]`` holds."""
        present = self.present & mask
        return replace(self, value=torch.where(present.unsqueeze(-1), self.value, 0.0), present=present)

    def count(self, mask: Tensor | None = None) -> Tensor:
        """``[*, E, 2]`` int64: messages and bits present (where ``mask`` holds)."""
        there = self.present if mask is None else self.present & mask
        return torch.stack([there.long(), torch.where(there, self.bits, 0)], -1)


@tree.struct
class Inbox:
    """What arrives in one step.

    Attributes:
        value: ``[*, E, D]`` the message that arrived on each edge; zero where none did.
        arrived: ``[*, E]`` bool.
        age: ``[*, E]`` int64 steps since it was sent; zero where none arrived.

    >>> inbox = Inbox(torch.tensor([[5.0], [7.0]]), torch.tensor([True, True]), torch.tensor([0, 0]))
    >>> inbox.sum(Topology([[0, 1], [1, 0]], 2)).flatten().tolist()
    [5.0, 7.0]
    """

    value: Tensor = tree.axes("E D")
    arrived: Tensor = tree.axes("E")
    age: Tensor = tree.axes("E")

    def sum(self, graph: Topology | Graph) -> Tensor:
        """Sum of what arrives at every agent, ``[*, N, D]``; O(E D), differentiable."""
        *lead, _, dim = self.value.shape
        lengths = receiving(graph, self.value.device).expand(*lead, -1).reshape(-1)
        rows = self.value.reshape(-1, dim)
        total = torch.segment_reduce(rows, "sum", lengths=lengths, axis=0, initial=0.0, unsafe=True)  # no look at them
        return total.reshape(*lead, -1, dim)[..., : graph.num_agents, :]

    def mean(self, graph: Topology | Graph) -> Tensor:
        """Mean of what arrives at every agent, ``[*, N, D]``; zero where nothing does."""
        _, receiver = endpoints(graph, self.value.device)
        count = sum_by(self.arrived.long(), receiver, graph.num_agents)
        return self.sum(graph) / count.clamp(min=1).unsqueeze(-1)
