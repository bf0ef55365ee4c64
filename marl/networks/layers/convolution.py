"""Any PyG convolution by its name, over the batch as one disjoint union."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from coordination.gather import carrying
from coordination.graph import Graph
from coordination.names import unknown
from marl.networks.layers.edges import link_features
from marl.networks.layers.sharing import Sharing

EDGE_WIDTHS = ("edge_dim", "in_edge_channels")  # what PyG's layers call the width of the features of links


class Convolution(nn.Module):
    """A ``torch_geometric.nn`` convolution such as ``GCNConv``, ``SAGEConv`` or ``GATv2Conv``, width kept.

    Padded edges and links at dead agents lead to one sink node behind the batch. Link weights (``edge_weight``) and
    features of links (``edge_attr``) are passed where the layer takes them.

    Args:
        name: Class name of the layer.
        dim: Width of input and output.
        sharing: Must be ``all``: PyG's layers hold one set of weights.
        generator: Seeds the layer's own initialisation.
        edge_dim: Width of the features of links; 0 where there are none.
    """

    def __init__(self, name: str, dim: int, sharing: Sharing, generator: torch.Generator, edge_dim: int = 0) -> None:
        super().__init__()
        if sharing.mode != "all":
            raise ValueError(
                f"layer {name!r}: PyG layers share their weights; use sharing=all, or layer mean, sum, attention"
            )
        with torch.random.fork_rng(devices=[]):  # PyG initialises from the global generator
            torch.default_generator.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            made = _convolution(name)
            self.edge_dim = 0 if _edge_width(made) is None else edge_dim
            self.layer = _working(made, dim, self.edge_dim)
        self.weighted = "edge_weight" in inspect.signature(self.layer.forward).parameters

    def forward(self, x: Tensor, graph: Graph, alive: Tensor | None) -> Tensor:
        """One round, ``[*, N, D] -> [*, N, D]``."""
        n, d = x.shape[-2:]
        batch = x[..., 0, 0].numel()
        edges, weight, _ = graph.flat(batch, None if alive is None else alive.reshape(batch, n), x.device)
        silenced = x if alive is None else torch.where(alive.unsqueeze(-1), x, 0.0)
        rows = torch.cat([silenced.reshape(-1, d), x.new_zeros(1, d)])
        extra = {"edge_weight": weight} if self.weighted and weight is not None else {}
        if self.edge_dim:
            attr = link_features(graph, self.edge_dim, x.shape[:-2], carrying(graph, alive))
            extra["edge_attr"] = attr.reshape(-1, self.edge_dim)
        return self.layer(rows, edges, **extra)[:-1].reshape(x.shape)


def _working(made: type[nn.Module], dim: int, edge_dim: int) -> nn.Module:
    """The layer, tried on two linked nodes; one that wants other arguments or inputs is refused here."""
    width = {str(_edge_width(made)): edge_dim} if edge_dim else {}
    features = {"edge_attr": torch.zeros(2, edge_dim)} if edge_dim else {}
    try:
        layer = made(dim, dim, **width)
        out = layer(torch.zeros(2, dim), torch.tensor([[0, 1], [1, 0]]), **features)
        if not isinstance(out, Tensor) or out.shape != (2, dim):
            raise TypeError("it does not keep the width of its input")
    except Exception as error:
        raise ValueError(
            f"graph layer {made.__name__!r} cannot be used here: it must be made from (in, out) widths and called with "
            f"(x, edge_index), as GCNConv, SAGEConv and GATv2Conv are ({' '.join(str(error).split())})"
        ) from error
    return layer


def _convolution(name: str) -> type[nn.Module]:
    import torch_geometric.nn as pyg

    names = ["mean", "sum", "attention", *(n for n in dir(pyg) if n.endswith("Conv"))]
    if name not in names[3:]:
        raise ValueError(unknown("graph layer", name, names))
    return getattr(pyg, name)


def _edge_width(made: type[nn.Module]) -> str | None:
    """What the layer calls the width of the features of links; None if it takes none."""
    if "edge_attr" not in inspect.signature(made.forward).parameters:
        return None
    return next((key for key in EDGE_WIDTHS if key in inspect.signature(made).parameters), None)
