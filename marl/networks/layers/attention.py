"""Attention over neighbours: GATv2 on neighbour lists, multi-headed, equal to PyG's layer with the same weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coordination.graph import Graph
from marl.networks.layers.sharing import Linear, Sharing, orthogonal


class NeighbourAttention(nn.Module):
    """GATv2 with self-loops (Brody, Alon and Yahav 2022, arXiv:2105.14491, eq. 7).

    ``e_ij = a^T LeakyReLU(W_s h_j + W_r h_i)``, ``y_i = sum_j softmax_j(e_ij) W_s h_j`` over the living neighbours j
    of i and i itself; heads side by side. Memory O(E * D).

    Args:
        dim: Width of input and output, divisible by ``heads``.
        sharing: Who uses which weights; senders apply their own W_s, receivers their own W_r.
        generator: Source of the initial weights.
        gain: Scale of the initial weights.
        heads: Number of attention heads.
        slope: Negative slope of the leaky rectifier.
    """

    def __init__(
        self,
        dim: int,
        sharing: Sharing,
        generator: torch.Generator,
        gain: float = 1.0,
        heads: int = 4,
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"attention: width {dim} must be divisible by {heads} heads")
        self.heads, self.slope = heads, slope
        self.sender = Linear(dim, dim, sharing, generator, gain)
        self.receiver = Linear(dim, dim, sharing, generator, gain)
        self.score = nn.Parameter(orthogonal(1, heads, dim // heads, 1.0, generator)[0])  # [heads, D / heads]

    def forward(self, x: Tensor, graph: Graph, alive: Tensor | None) -> Tensor:
        """One round of attention, ``[*, N, D] -> [*, N, D]``."""
        n, d = x.shape[-2:]
        sent = self.sender(x).reshape(-1, n, self.heads, d // self.heads)
        asked = self.receiver(x).reshape_as(sent)
        batch = sent.shape[0]
        edges, _, _ = graph.flat(batch, None if alive is None else alive.reshape(batch, n), x.device)
        sent, asked = sent.flatten(0, 1), asked.flatten(0, 1)
        sink = sent.new_zeros(1, *sent.shape[1:])
        padded = torch.cat([sent, sink])
        own = self._score(sent, asked)  # [B * N, heads]
        linked = self._score(padded[edges[0]], torch.cat([asked, sink])[edges[1]])  # [B * E, heads]
        receiver = edges[1].unsqueeze(-1).expand_as(linked)
        top = torch.cat([own, own.new_zeros(1, self.heads)]).detach()
        top = top.scatter_reduce(0, receiver, linked.detach(), "amax")
        own, linked = (own - top[:-1]).exp(), (linked - top.gather(0, receiver)).exp()
        total = torch.cat([own, own.new_zeros(1, self.heads)]).scatter_add(0, receiver, linked)[:-1]
        heard = torch.zeros_like(padded).index_add(0, edges[1], linked.unsqueeze(-1) * padded[edges[0]])[:-1]
        return ((heard + own.unsqueeze(-1) * sent) / total.unsqueeze(-1)).reshape(x.shape)

    def _score(self, sent: Tensor, asked: Tensor) -> Tensor:
        return (nn.functional.leaky_relu(sent + asked, self.slope) * self.score).sum(-1)
