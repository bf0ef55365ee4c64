"""Maximum and minimum by flooding: exact after as many rounds as the graph has diameter."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from coordination.channel import Inbox
from coordination.consensus.averaging import Averages
from coordination.consensus.base import Consensus
from coordination.consensus.links import receive, receivers, senders, up_links
from coordination.graph import Graph
from coordination.topology.base import Topology


@dataclasses.dataclass(frozen=True)
class Extremum(Consensus[Averages]):
    """Max or min consensus: ``x_i <- max(x_i, max over j heard by i of x_j)``, feature by feature (Cortes 2008).

    Exact once the extreme value has reached everyone: at most diameter rounds, exactly the eccentricity of its only
    holder. Lost messages only delay it. One liar wins: nothing here resists false values (:class:`Resilient` does).
    Any number type; O(E D) a round.

    Args:
        mode: ``max`` or ``min``.

    >>> line = Topology([[0, 1], [1, 2]], 3)
    >>> protocol = Extremum("max")
    >>> protocol.step(protocol.init(torch.tensor([[9], [4], [5]]), line), line).value.squeeze(-1)
    tensor([9, 9, 5])
    """

    mode: Literal["max", "min"] = "max"

    def __post_init__(self) -> None:
        if self.mode not in ("max", "min"):
            raise ValueError(f"mode: 'max' or 'min', got {self.mode!r}")

    def init(self, x: Tensor, graph: Topology | Graph) -> Averages:
        """See :meth:`Consensus.init`."""
        return Averages(x)

    def step(
        self,
        state: Averages,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Averages:
        """See :meth:`Consensus.step`."""
        return self._reduce(state.value, senders(state.value, graph), graph, up_links(graph, link_up))

    def hear(self, state: Averages, graph: Topology | Graph, inbox: Inbox) -> Averages:
        """See :meth:`Consensus.hear`: late values only delay the result; noise can only raise a maximum."""
        return self._reduce(state.value, inbox.value.to(state.value.dtype), graph, inbox.arrived)

    def _reduce(self, own: Tensor, heard: Tensor, graph: Topology | Graph, up: Tensor | None) -> Averages:
        if up is not None:
            heard = torch.where(up.unsqueeze(-1), heard, receivers(own, graph))
        return Averages(receive(own, heard, graph, f"a{self.mode}"))
