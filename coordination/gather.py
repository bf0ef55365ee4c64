"""Gather over neighbours: sums and means of sender features at each receiver, differentiable and O(E).

Three kernels, chosen by the graph: on a complete graph the sum of the others is the total minus oneself, O(N);
otherwise one segment reduction (``embedding_bag``) over neighbour lists, whose backward is the
same reduction over the reversed lists. Measured against a CSR product and ``index_add_`` in
``benchmarks/gather.py``.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from coordination.graph import Graph
from coordination.topology.base import Topology

CACHED_BATCHES = 8  # index lists kept per topology; a training loop uses two or three batch sizes


def neighbour_sum(x: Tensor, graph: Graph) -> Tensor:
    """Sum the senders' features at every receiver: ``y_i = sum over edges j -> i of w_ji x_j``.

    Links that are down and padded edges add nothing. Dead agents are the caller's business: set their rows
    to zero first (``torch.where``), as :func:`neighbour_mean` does.

    Args:
        x: ``[*, N, D]`` features; leading axes as in the graph's own tensors.
        graph: Who hears whom.

    Returns:
        ``[*, N, D]``.
    """
    if graph.num_agents != x.shape[-2]:
        raise ValueError(f"x: expected {graph.num_agents} agents on axis -2, got {tuple(x.shape)}")
    weight = _edge_weight(graph)
    if graph.topology is not None and weight is None and is_complete(graph.topology):
        return x.sum(-2, keepdim=True) - x
    rows = x.reshape(-1, x.shape[-1])
    batch = rows.shape[0] // graph.num_agents
    sender, start = _lists(graph, batch, x.device)
    if weight is not None:
        weight = weight.expand(*x.shape[:-2], -1).reshape(-1).to(x.dtype)
    if graph.topology is None:
        back = None
    else:
        back = _batched_lists(graph.topology.reverse, batch, x.device)
    return _SegmentSum.apply(rows, weight, sender, start, back, graph).reshape(x.shape)


def neighbour_mean(x: Tensor, graph: Graph, alive: Tensor | None = None) -> Tensor:
    """Mean over living senders whose link is up; zero where there is none.

    Args:
        x: ``[*, N, D]`` features; rows of dead agents may hold anything, NaN included.
        graph: Who hears whom.
        alive: ``[*, N]`` bool; None if all live.

    Returns:
        ``[*, N, D]``.
    """
    if alive is not None:
        x = torch.where(alive.unsqueeze(-1), x, 0.0)
    return neighbour_sum(x, graph) / neighbour_count(x, graph, alive).clamp(min=1)


def neighbour_count(x: Tensor, graph: Graph, alive: Tensor | None = None) -> Tensor:
    """Total link weight of living senders at every receiver, ``[*, N, 1]`` (or ``[N, 1]`` where samples agree)."""
    if alive is None and graph.topology is not None and _edge_weight(graph) is None:
        return graph.topology.in_degree.to(x).unsqueeze(-1)
    ones = x.new_ones(*x.shape[:-1], 1) if alive is None else alive.to(x.dtype).unsqueeze(-1)
    return neighbour_sum(ones, graph)


def is_complete(topology: Topology) -> bool:
    """Whether every agent hears every other (edges are distinct and loop-free, so counting them is enough)."""
    return topology.num_edges == topology.num_agents * (topology.num_agents - 1)


def _edge_weight(graph: Graph) -> Tensor | None:
    """``[*, E]`` effective weights, zero on links that are down; None if all are one."""
    up = graph.up()
    if up is None:
        return graph.weight
    return up.float() if graph.weight is None else torch.where(up, graph.weight, 0.0)


def _lists(graph: Graph, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Flat sender rows ``[batch * E]`` and segment starts ``[batch * N]``, receivers in order."""
    if graph.topology is not None:
        return _batched_lists(graph.topology, batch, device)
    assert graph.edges is not None and graph.row_start is not None
    n, e = graph.num_agents, graph.edges.shape[-1]
    offset = torch.arange(batch, device=device).unsqueeze(1)
    edges, row_start = graph.edges.reshape(-1, 2, e), graph.row_start.reshape(-1, n + 1)
    sender = edges[:, 0].clamp(max=n - 1) + offset * n  # padded edges have weight zero, any row will do
    return sender.reshape(-1), (row_start[:, :-1] + offset * e).reshape(-1)


_BATCHED: OrderedDict[tuple[int, int, torch.device], tuple[Topology, Tensor, Tensor]] = OrderedDict()


def _batched_lists(topology: Topology, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    key = (id(topology), batch, device)
    if key not in _BATCHED:
        offset = torch.arange(batch, device=device).unsqueeze(1)
        sender = topology.edges_on(device)[0] + offset * topology.num_agents
        start = topology.row_start[:-1].to(device) + offset * topology.num_edges
        _BATCHED[key] = (topology, sender.reshape(-1), start.reshape(-1))  # holds the topology: its id stays taken
        while len(_BATCHED) > CACHED_BATCHES:
            _BATCHED.popitem(last=False)
    _BATCHED.move_to_end(key)
    return _BATCHED[key][1:]


class _SegmentSum(torch.autograd.Function):
    """Segment sums of gathered rows; the backward gathers over reversed lists where they are known."""

    @staticmethod
    def forward(ctx, rows, weight, sender, start, back, graph):
        ctx.back, ctx.graph = back, graph
        ctx.save_for_backward(rows if weight is not None and weight.requires_grad else None, weight, sender, start)
        return F.embedding_bag(sender, rows, start, mode="sum", per_sample_weights=weight)

    @staticmethod
    def backward(ctx, grad):
        rows, weight, sender, start = ctx.saved_tensors
        grad = grad.contiguous()
        grad_rows = grad_weight = None
        counts = (
            torch.diff(start, append=start.new_tensor([sender.numel()]))
            if weight is not None or ctx.back is None
            else None
        )
        if ctx.needs_input_grad[0]:
            if ctx.back is not None and weight is None:
                grad_rows = F.embedding_bag(ctx.back[0], grad, ctx.back[1], mode="sum")
            else:
                edge = grad.repeat_interleave(counts, 0, output_size=sender.numel())
                edge = edge if weight is None else edge * weight.unsqueeze(-1)
                grad_rows = torch.zeros_like(grad).index_add_(0, sender, edge)
        if rows is not None:
            edge = grad.repeat_interleave(counts, 0, output_size=sender.numel())
            grad_weight = (rows[sender] * edge).sum(-1)
        return grad_rows, grad_weight, None, None, None, None
