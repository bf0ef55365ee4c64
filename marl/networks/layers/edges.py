"""Features of links in the messages of own graph layers: what is on each link, and each receiver's weights for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coordination.gather import link_attr, num_links
from coordination.graph import Graph
from coordination.links import endpoints
from marl.networks.layers.sharing import Sharing, orthogonal


class EdgeLinear(nn.Module):
    """``W e_ij`` of every link's features, with the weights of its receiver i: ``[*, E, D] -> [*, E, H]``.

    Args:
        edge_dim: Width D of the features.
        dim: Width H of the output.
        sharing: Who uses which weights.
        generator: Source of the initial weights.
        gain: Scale of the initial weights.
    """

    owner: Tensor

    def __init__(
        self, edge_dim: int, dim: int, sharing: Sharing, generator: torch.Generator, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(orthogonal(sharing.copies, edge_dim, dim, gain, generator))
        self.register_buffer("owner", torch.tensor(sharing.owner), persistent=False)

    def forward(self, attr: Tensor, graph: Graph) -> Tensor:
        """Apply each receiver's weights to ``attr [*, E, D]``."""
        sets, width, dim = self.weight.shape
        if sets == 1:
            return attr @ self.weight[0]
        _, receiver = endpoints(graph, attr.device)
        owner = self.owner[receiver.clamp(max=len(self.owner) - 1)].expand(attr.shape[:-1])  # padding: any will do
        rows = owner.reshape(-1, 1) * width + torch.arange(width, device=attr.device)
        weighed = nn.functional.embedding_bag(
            rows, self.weight.flatten(0, 1), mode="sum", per_sample_weights=attr.reshape(-1, width)
        )
        return weighed.reshape(*attr.shape[:-1], dim)


def link_features(graph: Graph, edge_dim: int, lead: torch.Size, carries: Tensor | None) -> Tensor:
    """``[*, E, D]`` features of the links, zero on those that do not carry anything, whatever they hold.

    Args:
        graph: Whose links.
        edge_dim: Width D that the network was made for.
        lead: Leading axes of the result.
        carries: ``[*, E]`` bool (:func:`coordination.gather.carrying`); None where all do.

    Raises:
        ValueError: If there are links without features, or with features of another width.
    """
    attr = link_attr(graph, lead)
    if attr is None and num_links(graph) == 0:
        return torch.zeros(*lead, 0, edge_dim, device=None if carries is None else carries.device)
    if attr is None or attr.shape[-1] != edge_dim:
        found = "none" if attr is None else str(attr.shape[-1])
        raise ValueError(
            f"graph: this network reads {edge_dim} features of every link (AgentSpec.edge_dim), got {found}; "
            "train it on the graph it is used on"
        )
    return attr if carries is None else torch.where(carries.unsqueeze(-1), attr, 0.0)
