"""Graph: who hears whom in a batch of samples.

Either every sample shares one :class:`Topology`, or each sample brings its own edges, padded to a
common capacity. Edges of a sample are sorted by receiver, and ``row_start`` says where each
receiver's edges begin, so that gathering over neighbours is a segment reduction and never a scatter.
A padded edge has sender N, one past the last agent: the sink.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from coordination import tree
from coordination.topology.base import Topology
from coordination.topology.lattices import empty


@tree.struct
class Graph:
    """Links of a batch of samples; memory O(E) a sample, nothing dense.

    Attributes:
        topology: Edges shared by all samples, held by reference; or None.
        edges: ``[*, 2, E]`` int64 edges of each sample, sorted by receiver, padded with sender N; or None.
        row_start: ``[*, N+1]`` int64 positions of each receiver's edges in ``edges``; goes with ``edges``.
        live: ``[*, E]`` bool: False where a link is down (range, loss, partition); None if all are up.
        weight: ``[*, E]`` link weights; None if all are 1.
        attr: ``[*, E, D]`` link features.
    """

    topology: Topology | None = tree.shared(default=None)
    edges: Tensor | None = tree.axes("2 E", default=None)
    row_start: Tensor | None = tree.axes("N+1", default=None)
    live: Tensor | None = tree.axes("E", default=None)
    weight: Tensor | None = tree.axes("E", default=None)
    attr: Tensor | None = tree.axes("E D", default=None)

    @classmethod
    def from_edges(
        cls,
        edges: Tensor,
        num_agents: int,
        live: Tensor | None = None,
        weight: Tensor | None = None,
        attr: Tensor | None = None,
    ) -> Graph:
        """A graph of per-sample edges in any order; live, weight and attr are sorted along.

        Args:
            edges: ``[*, 2, E]`` integers; an edge that touches an index outside 0..N-1 counts as padding.
            num_agents: Number of agents N.
            live, weight, attr: ``[*, E]``, ``[*, E]``, ``[*, E, D]`` as in the class, or None.
        """
        edges = edges.long()
        padded = ((edges < 0) | (edges >= num_agents)).any(-2, keepdim=True)
        edges = edges.masked_fill(padded, num_agents)
        receiver, order = edges[..., 1, :].sort(dim=-1, stable=True)
        sender = edges[..., 0, :].gather(-1, order)
        bounds = torch.arange(num_agents + 1, device=edges.device).expand(*edges.shape[:-2], -1)
        return cls(
            edges=torch.stack([sender, receiver], -2),
            row_start=torch.searchsorted(receiver.contiguous(), bounds.contiguous()),
            live=None if live is None else live.gather(-1, order),
            weight=None if weight is None else weight.gather(-1, order),
            attr=None if attr is None else torch.take_along_dim(attr, order.unsqueeze(-1), -2),
        )

    @classmethod
    def from_neighbours(cls, neighbours: Tensor, num_agents: int) -> Graph:
        """A graph from neighbour lists: K slots for every receiver.

        Args:
            neighbours: ``[*, N, K]`` senders, padded with N (or any index outside 0..N-1).
            num_agents: Number of agents N.

        Raises:
            ValueError: If there is not one list for every agent.
        """
        *batch, n, k = neighbours.shape
        if n != num_agents:
            raise ValueError(f"neighbours: expected [*, N, K] with N = {num_agents}, got {tuple(neighbours.shape)}")
        neighbours = neighbours.long()
        outside = (neighbours < 0) | (neighbours >= num_agents)
        sender = neighbours.masked_fill(outside, num_agents).flatten(-2)
        receiver = torch.arange(n, device=neighbours.device).repeat_interleave(k).expand(*batch, -1)
        row_start = (torch.arange(n + 1, device=neighbours.device) * k).expand(*batch, -1)
        return cls(edges=torch.stack([sender, receiver], -2), row_start=row_start)

    @property
    def num_agents(self) -> int:
        """Number of agents N.

        Raises:
            ValueError: If the graph has neither a topology nor edges.
        """
        if self.topology is not None:
            return self.topology.num_agents
        if self.row_start is None:
            raise ValueError("Graph: needs a topology, or edges with row_start (see Graph.from_edges)")
        return self.row_start.shape[-1] - 1

    def without_links(self) -> Graph:
        """The same agents with no links at all."""
        return Graph(topology=_empty(self.num_agents))

    def up(self) -> Tensor | None:
        """``[*, E]`` bool: edges that carry something; None where all do."""
        if self.edges is None:
            return self.live
        inside = self.edges[..., 0, :] < self.num_agents
        return inside if self.live is None else inside & self.live

    def flat(
        self, batch: int, alive: Tensor | None = None, device: torch.device | str | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The batch as one disjoint union, in the form PyG's layers take.

        Agent i of sample b becomes node ``b * N + i``; one more node, ``batch * N``, is the sink to which both ends of
        every padded edge, every link that is down and every link at a dead agent are moved, so the number of
        edges never depends on the data.

        Args:
            batch: Number of samples (the leading axes merged).
            alive: ``[batch, N]`` bool; None if all live.
            device: Where to put a shared topology's edges; None for where ``alive`` or the graph's own tensors are.

        Returns:
            ``edge_index [2, batch * E]``, ``weight [batch * E]`` or None, ``attr [batch * E, D]`` or None.
        """
        n = self.num_agents
        if self.edges is not None:
            edges = self.edges.expand(batch, 2, -1) if self.edges.ndim == 2 else self.edges.reshape(batch, 2, -1)
        else:
            assert self.topology is not None
            known = [x for x in (alive, self.live, self.weight, self.attr) if x is not None]
            place = device if device is not None else known[0].device if known else "cpu"
            edges = self.topology.edges_on(place).expand(batch, 2, -1)
        up = self.up()
        up = None if up is None else _samples(up, batch)
        if alive is not None:
            padded = torch.cat([alive.reshape(batch, n), alive.new_zeros(batch, 1)], 1)
            both = padded.gather(1, edges[:, 0]) & padded.gather(1, edges[:, 1])
            up = both if up is None else up & both
        flat = edges + torch.arange(0, batch * n, n, device=edges.device).reshape(batch, 1, 1)
        if up is not None:
            flat = torch.where(up.unsqueeze(1), flat, batch * n)
        weight = None if self.weight is None else _samples(self.weight, batch).reshape(-1)
        attr = None if self.attr is None else _samples(self.attr, batch, trailing=2).flatten(0, 1)
        return flat.transpose(0, 1).reshape(2, -1), weight, attr


def _samples(x: Tensor, batch: int, trailing: int = 1) -> Tensor:
    """``[*, E, ...]`` as ``[batch, E, ...]``; a tensor without leading axes is every sample's."""
    if x.ndim == trailing:
        return x.expand(batch, *x.shape)
    return x.flatten(0, x.ndim - trailing - 1)


_empty = lru_cache(maxsize=64)(empty)  # one object for each N, so that index lists made for it are found again
