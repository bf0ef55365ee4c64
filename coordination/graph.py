"""Graph: who hears whom in a batch of samples.

Either every sample shares one :class:`Topology`, or each sample brings its own edges, padded to a
common capacity. Edges of a sample are sorted by receiver, and ``row_start`` says where each
receiver's edges begin, so that gathering over neighbours is a segment reduction and never a scatter.
A padded edge has sender N, one past the last agent: the sink.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coordination import tree
from coordination.topology.base import Topology


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

    topology: Topology | None = tree.shared(None)
    edges: Tensor | None = tree.axes("2 E", default=None)
    row_start: Tensor | None = tree.axes("N+1", default=None)
    live: Tensor | None = tree.axes("E", default=None)
    weight: Tensor | None = tree.axes("E", default=None)
    attr: Tensor | None = tree.axes("E D", default=None)

    @classmethod
    def from_edges(cls, edges: Tensor, num_agents: int, **fields: Tensor | None) -> Graph:
        """A graph of per-sample edges in any order; ``fields`` (live, weight, attr) are sorted along.

        Args:
            edges: ``[*, 2, E]`` int64; an edge that touches an index outside 0..N-1 counts as padding.
            num_agents: Number of agents N.
        """
        edges = edges.long()
        padded = ((edges < 0) | (edges >= num_agents)).any(-2, keepdim=True)
        edges = edges.masked_fill(padded, num_agents)
        receiver, order = edges[..., 1, :].sort(dim=-1, stable=True)
        sender = edges[..., 0, :].gather(-1, order)
        bounds = torch.arange(num_agents + 1, device=edges.device).expand(*edges.shape[:-2], -1)
        row_start = torch.searchsorted(receiver.contiguous(), bounds.contiguous())
        moved = {
            name: None
            if x is None
            else torch.take_along_dim(x, order.reshape(order.shape + (1,) * (x.ndim - order.ndim)), order.ndim - 1)
            for name, x in fields.items()
        }
        return cls(edges=torch.stack([sender, receiver], -2), row_start=row_start, **moved)

    @classmethod
    def from_neighbours(cls, neighbours: Tensor, num_agents: int) -> Graph:
        """A graph from neighbour lists ``[*, N, K]`` of senders, padded with N (or any index outside 0..N-1)."""
        *batch, n, k = neighbours.shape
        outside = (neighbours < 0) | (neighbours >= num_agents)
        sender = neighbours.masked_fill(outside, num_agents).flatten(-2)
        receiver = torch.arange(n, device=neighbours.device).repeat_interleave(k).expand(*batch, -1)
        row_start = torch.arange(0, n * k + 1, k, device=neighbours.device).expand(*batch, -1)
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
        return Graph(topology=Topology(torch.zeros(2, 0), self.num_agents, "empty"))

    def up(self) -> Tensor | None:
        """``[*, E]`` bool: edges that carry something; None where all do."""
        if self.edges is None:
            return self.live
        inside = self.edges[..., 0, :] < self.num_agents
        return inside if self.live is None else inside & self.live

    def flat(self, batch: int, alive: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The batch as one disjoint union, in the form PyG's layers take.

        Agent i of sample b becomes node ``b * N + i``; one more node, ``batch * N``, is the sink to which both ends of
        every padded edge, every link that is down and every link at a dead agent are moved, so the number of
        edges never depends on the data.

        Args:
            batch: Number of samples (the leading axes merged).
            alive: ``[batch, N]`` bool; None if all live.

        Returns:
            ``edge_index [2, batch * E]``, ``weight [batch * E]`` or None, ``attr [batch * E, D]`` or None.
        """
        n = self.num_agents
        if self.edges is not None:
            edges = self.edges.reshape(batch, 2, -1)
        else:
            assert self.topology is not None
            source = self.live if self.live is not None else alive
            device = source.device if source is not None else torch.device("cpu")
            edges = self.topology.edges_on(device).expand(batch, 2, -1)
        up = self.up()
        up = None if up is None else up.reshape(batch, -1)
        if alive is not None:
            padded = torch.cat([alive.reshape(batch, n), alive.new_zeros(batch, 1)], 1)
            both = padded.gather(1, edges[:, 0]) & padded.gather(1, edges[:, 1])
            up = both if up is None else up & both
        offset = torch.arange(0, batch * n, n, device=edges.device).reshape(batch, 1, 1)
        flat = edges + offset
        if up is not None:
            flat = torch.where(up.unsqueeze(1), flat, batch * n)
        weight = None if self.weight is None else self.weight.reshape(-1)
        attr = None if self.attr is None else self.attr.reshape(batch * edges.shape[-1], -1)
        return flat.transpose(0, 1).reshape(2, -1), weight, attr
