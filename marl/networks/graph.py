"""Graph networks over the communication topology: K layers hear K hops, any number of agents.

``mean``, ``sum`` and ``attention`` are our own layers on neighbour lists; any other name is a convolution of PyG
(:mod:`marl.networks.layers.convolution`). Dead agents send nothing and are not counted. What an environment says of its
links (``Graph.attr``, as wide as ``AgentSpec.edge_dim``) goes into the messages.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coordination.gather import at_links, carrying, neighbour_count, neighbour_mean, neighbour_sum, sum_links
from coordination.graph import Graph
from envs.base import View
from marl.networks.config import GraphConfig
from marl.networks.layers.attention import NeighbourAttention
from marl.networks.layers.convolution import Convolution
from marl.networks.layers.edges import EdgeLinear, link_features
from marl.networks.layers.mlp import ACTIVATIONS, MLP
from marl.networks.layers.sharing import Linear, Sharing, relu_gain

OWN_LAYERS = ("mean", "sum", "attention")


class Aggregation(nn.Module):
    """``y_i = W_self h_i + W_link agg_{j -> i} h_j``: GraphSAGE (Hamilton et al. 2017, arXiv:1706.02216), mean or sum.

    Where links have features the message is ``relu(h_j + W_edge e_ij)`` in place of ``h_j`` (GINE: Hu et al. 2020,
    arXiv:1905.12265), so that what is heard of an agent depends on the link to it. Memory O(E D) then.

    Args:
        dim: Width of input and output.
        how: ``mean`` or ``sum``.
        sharing: Who uses which weights (each receiver applies its own).
        generator: Source of the initial weights.
        gain: Scale of the initial weights.
        edge_dim: Width of the features of links; 0 where none are read.
    """

    def __init__(
        self, dim: int, how: str, sharing: Sharing, generator: torch.Generator, gain: float, edge_dim: int = 0
    ) -> None:
        super().__init__()
        self.mean, self.edge_dim = how == "mean", edge_dim
        self.own = Linear(dim, dim, sharing, generator, gain)
        self.link = Linear(dim, dim, sharing, generator, gain)
        self.edge = EdgeLinear(edge_dim, dim, sharing, generator, gain) if edge_dim else None

    def forward(self, x: Tensor, graph: Graph, alive: Tensor | None) -> Tensor:
        """One round over the links, ``[*, N, D] -> [*, N, D]``."""
        if self.edge is not None:
            heard = self._told(self.edge, x, graph, alive)
        elif self.mean:
            heard = neighbour_mean(x, graph, alive)
        else:
            heard = neighbour_sum(x if alive is None else torch.where(alive.unsqueeze(-1), x, 0.0), graph)
        return self.own(x) + self.link(heard)

    def _told(self, edge: EdgeLinear, x: Tensor, graph: Graph, alive: Tensor | None) -> Tensor:
        """Sum or mean of messages that are made link by link."""
        lead, carries = x.shape[:-2], carrying(graph, alive)
        attr = link_features(graph, self.edge_dim, lead, carries)
        message = torch.relu_(at_links(x, graph) + edge(attr, graph))
        if graph.weight is not None:
            weight = graph.weight if carries is None else torch.where(carries, graph.weight, 0.0)
            message = message * weight.unsqueeze(-1)
        if carries is not None:
            message = torch.where(carries.unsqueeze(-1), message, 0.0)
        heard = sum_links(message, graph)
        if not self.mean:
            return heard
        total = neighbour_count(x, graph, alive)
        return heard / torch.where(total == 0, 1.0, total)


class GraphNetwork(nn.Module):
    """Encode each agent, then let it hear its neighbours for ``config.layers`` rounds.

    Args:
        in_dim: Input width.
        config: Widths, layers, and how neighbours are heard.
        sharing: Who uses which weights; PyG convolutions need ``all``.
        generator: Source of the initial weights.
        encoders: Who uses which weights of the encoder; None for ``sharing``.
        edge_dim: Width of the features of links; 0 where there are none.
    """

    def __init__(
        self,
        in_dim: int,
        config: GraphConfig,
        sharing: Sharing,
        generator: torch.Generator,
        encoders: Sharing | None = None,
        edge_dim: int = 0,
    ) -> None:
        super().__init__()
        dim, how, gain = config.hidden, config.layer, relu_gain(config.activation)
        self.encoder = MLP(in_dim, (dim,) * config.encoder_layers, encoders or sharing, generator, config.activation)
        make = {
            "attention": lambda: NeighbourAttention(dim, sharing, generator, gain, edge_dim=edge_dim),
            "mean": lambda: Aggregation(dim, how, sharing, generator, gain, edge_dim),
            "sum": lambda: Aggregation(dim, how, sharing, generator, gain, edge_dim),
        }.get(how, lambda: Convolution(how, dim, sharing, generator, edge_dim))
        self.rounds = nn.ModuleList(make() for _ in range(config.layers))
        self.activation = ACTIVATIONS[config.activation]
        self.out_dim = dim

    def forward(self, x: Tensor, view: View) -> Tensor:
        """Encode ``x [*, N, in]`` over ``view.graph``."""
        h, alive = self.encoder(x), _some_dead(view.alive)
        for layer in self.rounds:
            h = self.activation(layer(h, view.graph, alive))
        return h


def _some_dead(alive: Tensor) -> Tensor | None:
    """``alive``, or None where everyone lives: a question that costs nothing on the CPU and would wait elsewhere."""
    return None if alive.device.type == "cpu" and bool(alive.all()) else alive
