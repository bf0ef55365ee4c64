"""Graph networks over the communication topology: K layers hear K hops, any number of agents.

``mean``, ``sum`` and ``attention`` are our own layers on neighbour lists; any other name is a convolution of PyG
(:mod:`marl.networks.layers.convolution`). Dead agents send nothing and are not counted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coordination.gather import neighbour_mean, neighbour_sum
from coordination.graph import Graph
from envs.base import View
from marl.networks.layers.attention import NeighbourAttention
from marl.networks.layers.convolution import Convolution
from marl.networks.layers.mlp import ACTIVATIONS, MLP
from marl.networks.layers.sharing import Linear, Sharing, relu_gain

OWN_LAYERS = ("mean", "sum", "attention")


class Aggregation(nn.Module):
    """``y_i = W_self h_i + W_link agg_{j -> i} h_j``: GraphSAGE (Hamilton et al. 2017, arXiv:1706.02216), mean or sum.

    Args:
        dim: Width of input and output.
        how: ``mean`` or ``sum``.
        sharing: Who uses which weights (each receiver applies its own).
        generator: Source of the initial weights.
        gain: Scale of the initial weights.
    """

    def __init__(self, dim: int, how: str, sharing: Sharing, generator: torch.Generator, gain: float) -> None:
        super().__init__()
        self.mean = how == "mean"
        self.own = Linear(dim, dim, sharing, generator, gain)
        self.link = Linear(dim, dim, sharing, generator, gain)

    def forward(self, x: Tensor, graph: Graph, alive: Tensor | None) -> Tensor:
        """One round over the links, ``[*, N, D] -> [*, N, D]``."""
        if self.mean:
            heard = neighbour_mean(x, graph, alive)
        else:
            heard = neighbour_sum(x if alive is None else torch.where(alive.unsqueeze(-1), x, 0.0), graph)
        return self.own(x) + self.link(heard)


class GraphNetwork(nn.Module):
    """Encode each agent, then let it hear its neighbours for ``layers`` rounds.

    Args:
        in_dim: Input width.
        hidden: Width H of all layers.
        sharing: Who uses which weights; PyG convolutions need a shared or group network.
        generator: Source of the initial weights.
        layer: ``mean``, ``sum``, ``attention``, or the name of a PyG convolution such as ``GCNConv``.
        layers: Rounds K; agents further than K hops away are not heard.
        encoder_layers: Layers before the first round.
        activation: ``relu``, ``tanh`` or ``silu``.
    """

    def __init__(
        self,
        in_dim: int,
        hidden: int,
        sharing: Sharing,
        generator: torch.Generator,
        layer: str = "mean",
        layers: int = 1,
        encoder_layers: int = 1,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        gain = relu_gain(activation)
        self.encoder = MLP(in_dim, (hidden,) * encoder_layers, sharing, generator, activation)
        make = {
            "attention": lambda: NeighbourAttention(hidden, sharing, generator, gain),
            **{how: lambda how=how: Aggregation(hidden, how, sharing, generator, gain) for how in ("mean", "sum")},
        }.get(layer, lambda: Convolution(layer, hidden, sharing, generator))
        self.rounds = nn.ModuleList(make() for _ in range(layers))
        self.activation = ACTIVATIONS[activation]
        self.out_dim = hidden

    def forward(self, x: Tensor, view: View) -> Tensor:
        """Encode ``x [*, N, in]`` over ``view.graph``."""
        h, alive = self.encoder(x), _some_dead(view.alive)
        for layer in self.rounds:
            h = self.activation(layer(h, view.graph, alive))
        return h


def _some_dead(alive: Tensor) -> Tensor | None:
    """``alive``, or None where everyone lives: a question that costs nothing on the CPU and would wait elsewhere."""
    return None if alive.device.type == "cpu" and bool(alive.all()) else alive
