"""Attention over neighbours: GATv2 on neighbour lists, multi-headed, equal to PyG's layer with the same weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coordination.gather import at_links, carrying, sum_links
from coordination.graph import Graph
from coordination.links import receiving
from marl.networks.layers.edges import EdgeLinear, link_features
from marl.networks.layers.sharing import Linear, Sharing, orthogonal


class NeighbourAttention(nn.Module):
    """GATv2 with self-loops (Brody, Alon and Yahav 2022, arXiv:2105.14491, eq. 7).

    ``s_ij = a^T LeakyReLU(W_s h_j + W_r h_i + W_e e_ij)``, ``y_i = sum_j softmax_j(s_ij) W_s h_j`` over the living
    neighbours j of i and i itself; heads side by side. Where links have features, e_ii is the mean over the links into
    i. Memory O(E * D).

    Args:
        dim: Width of input and output, divisible by ``heads``.
        sharing: Who uses which weights; senders apply their own W_s, receivers their own W_r and W_e.
        generator: Source of the initial weights.
        gain: Scale of the initial weights.
        heads: Number of attention heads.
        slope: Negative slope of the leaky rectifier.
        edge_dim: Width of the features of links; 0 where none are read.
    """

    def __init__(
        self,
        dim: int,
        sharing: Sharing,
        generator: torch.Generator,
        gain: float = 1.0,
        heads: int = 4,
        slope: float = 0.2,
        edge_dim: int = 0,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"attention: width {dim} must be divisible by {heads} heads")
        self.heads, self.slope, self.edge_dim = heads, slope, edge_dim
        self.sender = Linear(dim, dim, sharing, generator, gain)
        self.receiver = Linear(dim, dim, sharing, generator, gain)
        self.score = nn.Parameter(orthogonal(1, heads, dim // heads, 1.0, generator)[0])  # [heads, D / heads]
        self.edge = EdgeLinear(edge_dim, dim, sharing, generator, gain) if edge_dim else None

    def forward(self, x: Tensor, graph: Graph, alive: Tensor | None) -> Tensor:
        """One round of attention, ``[*, N, D] -> [*, N, D]``."""
        carries = carrying(graph, alive)
        sent, asked = self.sender(x), self.receiver(x)
        heard = at_links(sent, graph)
        wanted, oneself = at_links(asked, graph, end=1) + heard, asked + sent
        if self.edge is not None:
            told = self.edge(link_features(graph, self.edge_dim, x.shape[:-2], carries), graph)
            wanted, oneself = wanted + told, oneself + self._mean(told, graph, carries)
        linked, own = self._score(wanted), self._score(oneself)  # [*, E, heads], [*, N, heads]
        if carries is not None:
            linked = linked.masked_fill(~carries.unsqueeze(-1), -torch.inf)
        top = torch.maximum(_largest(linked.detach(), graph), own.detach())
        own, linked = (own - top).exp(), (linked - at_links(top, graph, end=1)).exp()
        total = own + sum_links(linked, graph)
        mixed = sum_links(self._weigh(heard, linked), graph) + self._weigh(sent, own)
        return self._weigh(mixed, 1 / total)

    def _score(self, wanted: Tensor) -> Tensor:
        """``[*, heads]`` of ``wanted [*, D]``, which is overwritten."""
        heads = nn.functional.leaky_relu_(wanted, self.slope).unflatten(-1, (self.heads, -1))
        return (heads * self.score).sum(-1)

    def _weigh(self, x: Tensor, weight: Tensor) -> Tensor:
        return (x.unflatten(-1, (self.heads, -1)) * weight.unsqueeze(-1)).flatten(-2)

    def _mean(self, told: Tensor, graph: Graph, carries: Tensor | None) -> Tensor:
        """What the links of every agent tell it on average; those that carry nothing hold zeros."""
        ones = told.new_ones(*told.shape[:-1], 1)
        count = sum_links(ones if carries is None else torch.where(carries.unsqueeze(-1), ones, 0.0), graph)
        return sum_links(told, graph) / count.clamp(min=1)


def _largest(score: Tensor, graph: Graph) -> Tensor:
    """``[*, N, heads]`` largest of ``score [*, E, heads]`` over the links into each agent; minus infinity without."""
    *lead, _, heads = score.shape
    lengths = receiving(graph, score.device).expand(*lead, -1).reshape(-1)
    top = torch.segment_reduce(score.reshape(-1, heads), "max", lengths=lengths, initial=-torch.inf, unsafe=True)
    return top.reshape(*lead, -1, heads)[..., : graph.num_agents, :]
