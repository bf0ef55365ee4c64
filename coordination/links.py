"""Edges of a batch of graphs seen as links: who is at the ends, and which link of the last step is which one now."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from coordination.graph import Graph
from coordination.topology.base import Topology


def as_graph(graph: Topology | Graph) -> Graph:
    """The argument as a :class:`Graph`."""
    return Graph(topology=graph) if isinstance(graph, Topology) else graph


def endpoints(graph: Topology | Graph, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sender and receiver of every edge: ``[E]`` on a shared topology, else ``[*, E]`` with N at padded edges."""
    graph = as_graph(graph)
    if graph.topology is not None:
        sender, receiver = graph.topology.edges_on(device)
        return sender, receiver
    if graph.edges is None:
        raise ValueError("graph: needs a topology, or edges with row_start (see Graph.from_edges)")
    return graph.edges[..., 0, :], graph.edges[..., 1, :]


def receiving(graph: Topology | Graph, device: torch.device) -> Tensor:
    """Number of edges that enter each agent, and of padded edges: ``[N+1]`` or ``[*, N+1]`` int64, in edge order."""
    graph = as_graph(graph)
    if graph.topology is not None:
        into = graph.topology.row_start_on(device).diff()
        return torch.cat([into, into.new_zeros(1)])
    if graph.edges is None or graph.row_start is None:
        raise ValueError("graph: needs a topology, or edges with row_start (see Graph.from_edges)")
    padded = graph.edges.shape[-1] - graph.row_start[..., -1:]
    return torch.cat([graph.row_start.diff(dim=-1), padded], -1)


def at_ends(x: Tensor, graph: Topology | Graph, side: Literal["sender", "receiver"], feature_dims: int = 0) -> Tensor:
    """Values of the agents at one end of every edge, zero (False) at padding.

    Args:
        x: ``[*, N]`` with ``feature_dims = 0``, ``[*, N, D]`` with ``feature_dims = 1``.
        graph: Whose edges.
        side: Which end.
        feature_dims: Axes behind the agent axis.

    Returns:
        ``[*, E]`` or ``[*, E, D]``.
    """
    agent = endpoints(graph, x.device)[0 if side == "sender" else 1]
    axis = -1 - feature_dims
    if as_graph(graph).topology is not None:  # without padding
        return x.index_select(axis, agent)
    lead = x.shape[:axis]
    sink = x.new_zeros(*lead, 1, *x.shape[x.ndim + axis + 1 :])
    index = agent.expand(*lead, agent.shape[-1])
    if feature_dims:
        index = index.unsqueeze(-1).expand(*index.shape, x.shape[-1])
    return torch.cat([x, sink], axis).gather(axis, index)


def follow(before: Tensor, after: Tensor, num_agents: int) -> tuple[Tensor, Tensor]:
    """Where each link of ``after`` stood in ``before``: links are the same where their two agents are.

    Args:
        before: ``[*, 2, E']`` edges of the last step, no pair twice.
        after: ``[*, 2, E]`` edges now.
        num_agents: Number of agents N; edges that touch N are padding.

    Returns:
        Index ``[*, E]`` into E', and ``[*, E]`` bool: whether the link was there. O(E log E).

    >>> index, found = follow(torch.tensor([[0, 1], [1, 2]]), torch.tensor([[1, 2], [2, 0]]), 3)
    >>> index[found], found
    (tensor([1]), tensor([ True, False]))
    """
    old = before[..., 1, :] * (num_agents + 1) + before[..., 0, :]
    new = after[..., 1, :] * (num_agents + 1) + after[..., 0, :]
    ordered, place = old.sort(-1)
    if old.shape[-1] == 0:
        return torch.zeros_like(new), torch.zeros_like(new, dtype=torch.bool)
    spot = torch.searchsorted(ordered, new.contiguous()).clamp(max=old.shape[-1] - 1)
    real = (after < num_agents).all(-2)
    return place.gather(-1, spot), (ordered.gather(-1, spot) == new) & real
