"""Gather over neighbours: sums and means of sender features at each receiver, differentiable and O(E).

One kernel, a segment reduction (``embedding_bag``) over neighbour lists, whose backward is the same reduction over the
reversed lists; on a larger complete graph the sum of the others is the total minus oneself, O(N). Measured
against a CSR product, ``index_add_`` and PyG in ``benchmarks/gather.py``.

Where a link has features of its own, its message is made link by link: :func:`at_links` and :func:`sum_links` go from
agents to links and back, each the other's backward.
"""

from __future__ import annotations

from collections import OrderedDict
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from coordination.graph import Graph
from coordination.links import at_ends
from coordination.topology.base import Topology

CACHED_BATCHES = 8  # index lists kept per topology; a training loop uses two or three batch sizes
SMALL_COMPLETE = 10  # up to here adding the others one by one is faster than total minus oneself


def neighbour_sum(x: Tensor, graph: Graph) -> Tensor:
    """Sum the senders' features at every receiver: ``y_i = sum over edges j -> i of w_ji x_j``.

    Links that are down and padded edges add nothing. Dead agents are the caller's business: set their rows
    to zero first (``torch.where``), as :func:`neighbour_mean` does.

    Args:
        x: ``[*, N, D]`` features, floating point.
        graph: Who hears whom; the leading axes of its tensors broadcast to those of ``x``.

    Returns:
        ``[*, N, D]``.

    Raises:
        ValueError: If ``x`` has another number of agents, or leading axes that the graph's do not fit.
    """
    n = graph.num_agents
    if x.shape[-2] != n:
        raise ValueError(f"x: expected {n} agents on axis -2, got {tuple(x.shape)}")
    weight = _edge_weight(graph)
    if graph.topology is not None and weight is None and n > SMALL_COMPLETE and is_complete(graph.topology):
        return x.sum(-2, keepdim=True) - x
    lead = x.shape[:-2]
    rows = x.reshape(lead.numel() * n, x.shape[-1])
    if weight is not None:
        weight = _spread(weight, lead, 1, "links").reshape(-1).to(x.dtype)
    sender, start = _lists(graph, lead, x.device)
    return _SegmentSum.apply(rows, weight, sender, start, graph, lead).reshape(x.shape)


def neighbour_mean(x: Tensor, graph: Graph, alive: Tensor | None = None) -> Tensor:
    """Weighted mean over living senders whose link is up; zero where there is none.

    Args:
        x: ``[*, N, D]`` features; rows of dead agents may hold anything, NaN included.
        graph: Who hears whom; weights, where it has them, must not be negative.
        alive: ``[*, N]`` bool; None if all live.

    Returns:
        ``[*, N, D]``.
    """
    if alive is not None:
        x = torch.where(alive.unsqueeze(-1), x, 0.0)
    total = neighbour_count(x, graph, alive)
    return neighbour_sum(x, graph) / torch.where(total == 0, 1.0, total)


def neighbour_count(x: Tensor, graph: Graph, alive: Tensor | None = None) -> Tensor:
    """Total link weight of living senders at every receiver, ``[*, N, 1]`` (or ``[N, 1]`` where samples agree).

    Args:
        x: ``[*, N, D]``; only its shape, dtype and device are used.
        graph, alive: As in :func:`neighbour_mean`.
    """
    if alive is not None:
        return neighbour_sum(alive.to(x.dtype).unsqueeze(-1), graph)
    agree = graph.topology is not None and _edge_weight(graph) is None
    return neighbour_sum(x.new_ones(*(() if agree else x.shape[:-2]), graph.num_agents, 1), graph)


def at_links(x: Tensor, graph: Graph, end: int = 0) -> Tensor:
    """What the agent at one end of every link holds: ``[*, N, D] -> [*, E, D]``.

    For features that carry gradients: as :func:`coordination.links.at_ends`, with a segment sum for its backward.
    Padded edges hold the row of the last agent; :func:`carrying` says which links count.

    Args:
        x: ``[*, N, D]`` features.
        graph: Who hears whom.
        end: 0 for senders, 1 for receivers.
    """
    lead = x.shape[:-2]
    rows = _AtLinks.apply(x.reshape(-1, x.shape[-1]), graph, lead, end)
    return rows.reshape(*lead, num_links(graph), x.shape[-1])


def sum_links(message: Tensor, graph: Graph) -> Tensor:
    """Sum over the links into every receiver: ``[*, E, D] -> [*, N, D]``.

    Args:
        message: ``[*, E, D]``, zero on every link that does not count, padded ones among them (``torch.where``).
        graph: Who hears whom.
    """
    lead = message.shape[:-2]
    rows = _SumLinks.apply(message.reshape(-1, message.shape[-1]), graph, lead)
    return rows.reshape(*lead, graph.num_agents, message.shape[-1])


def carrying(graph: Graph, alive: Tensor | None) -> Tensor | None:
    """``[*, E]`` bool: links that are up with living agents at both ends; None where all are.

    Args:
        graph: Who hears whom.
        alive: ``[*, N]`` bool; None if all live.
    """
    up = graph.up()
    if alive is None:
        return up
    both = at_ends(alive, graph, "sender") & at_ends(alive, graph, "receiver")
    return both if up is None else both & up


def link_attr(graph: Graph, lead: torch.Size) -> Tensor | None:
    """The features of all links, their leading axes expanded to ``lead``: ``[*, E, D]``; None where there are none."""
    return None if graph.attr is None else _spread(graph.attr, lead, 2, "attr")


def num_links(graph: Graph) -> int:
    """Number of edges E of a sample, padded ones among them."""
    if graph.topology is not None:
        return graph.topology.num_edges
    assert graph.edges is not None
    return graph.edges.shape[-1]


def is_complete(topology: Topology) -> bool:
    """Whether every agent hears every other (edges are distinct and loop-free, so counting them is enough)."""
    return topology.num_edges == topology.num_agents * (topology.num_agents - 1)


def _edge_weight(graph: Graph) -> Tensor | None:
    """``[*, E]`` effective weights, zero on links that are down; None if all are one."""
    up = graph.up()
    if up is None:
        return graph.weight
    return up.float() if graph.weight is None else torch.where(up, graph.weight, 0.0)


def _spread(x: Tensor, lead: torch.Size, trailing: int, what: str) -> Tensor:
    """Expand the leading axes of ``x`` to ``lead``."""
    own = x.shape[: x.ndim - trailing]
    try:
        return x.expand(*lead, *x.shape[x.ndim - trailing :])
    except RuntimeError:
        raise ValueError(
            f"x: leading axes {tuple(lead)} do not fit those of the graph's {what}, {tuple(own)}"
        ) from None


# -- neighbour lists of a whole batch: flat rows [batch * E], and where each segment starts [batch * N] ---------------


def _lists(graph: Graph, lead: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rows that each row gathers, receivers in order."""
    if graph.topology is not None:
        return _shared_lists(graph.topology, lead.numel(), device)
    assert graph.row_start is not None
    sender = _ends(graph, lead, 0, device)
    start = _spread(graph.row_start, lead, 1, "edges").reshape(lead.numel(), -1)[:, :-1]
    return sender, _flatten(start, sender.numel() // max(lead.numel(), 1), sender.dtype)


def _reversed_lists(
    graph: Graph, lead: torch.Size, sender: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The same lists with every link turned round, and the weights in their order."""
    batch = lead.numel()
    if graph.topology is not None:
        reverse = graph.topology.reverse
        rows, start = _shared_lists(reverse, batch, sender.device)
        if weight is not None:
            weight = weight.reshape(batch, -1)[:, reverse.order_on(sender.device)].reshape(-1)
        return rows, start, weight
    order, start = _outgoing(graph, lead, sender)
    rows = _ends(graph, lead, 1, sender.device)[order]
    return rows, start, None if weight is None else weight[order]


def _ends(graph: Graph, lead: torch.Size, end: int, device: torch.device) -> Tensor:
    """``[batch * E]`` rows of the senders (end 0) or receivers (end 1) of all edges."""
    n, batch = graph.num_agents, lead.numel()
    if graph.topology is not None:
        own = graph.topology.edges_on(device)[end].expand(batch, -1)
    else:
        assert graph.edges is not None
        own = _spread(graph.edges[..., end, :], lead, 1, "edges").reshape(batch, graph.edges.shape[-1])
        own = own.clamp(max=n - 1)  # padded edges have weight zero, any row will do
    return _flatten(own, n, _index_dtype(batch * max(n, own.shape[-1])))


def _flatten(own: Tensor, step: int, dtype: torch.dtype) -> Tensor:
    """``[batch, ...]`` indices of each sample as indices into the whole batch, ``step`` apart."""
    return (own + torch.arange(own.shape[0], device=own.device).unsqueeze(1) * step).reshape(-1).to(dtype)


def _index_dtype(size: int) -> torch.dtype:
    return torch.int32 if size < 2**31 else torch.int64  # half the memory traffic wherever it fits


_SHARED: WeakKeyDictionary[Topology, OrderedDict[tuple[int, torch.device], tuple[Tensor, Tensor]]] = WeakKeyDictionary()


def _shared_lists(topology: Topology, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    cache, key = _SHARED.setdefault(topology, OrderedDict()), (batch, device)
    if key not in cache:
        sender = _ends(Graph(topology), torch.Size([batch]), 0, device)
        start = topology.row_start_on(device)[:-1].expand(batch, -1)
        cache[key] = sender, _flatten(start, topology.num_edges, sender.dtype)
        while len(cache) > CACHED_BATCHES:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]


class _SegmentSum(torch.autograd.Function):
    """Segment sums of gathered rows; the backward gathers over the reversed lists."""

    @staticmethod
    def forward(
        ctx, rows: Tensor, weight: Tensor | None, sender: Tensor, start: Tensor, graph: Graph, lead: torch.Size
    ) -> Tensor:
        ctx.graph, ctx.lead = graph, lead
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, weight, sender)
        return F.embedding_bag(sender, rows, start, mode="sum", per_sample_weights=weight)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        rows, weight, sender = ctx.saved_tensors
        grad = grad_outputs[0].contiguous()
        grad_rows = grad_weight = None
        if ctx.needs_input_grad[0]:
            back, start, turned = _reversed_lists(ctx.graph, ctx.lead, sender, weight)
            grad_rows = F.embedding_bag(back, grad, start, mode="sum", per_sample_weights=turned)
        if ctx.needs_input_grad[1]:
            receiver = _ends(ctx.graph, ctx.lead, 1, sender.device)
            grad_weight = (rows[sender] * grad[receiver]).sum(-1)
        return grad_rows, grad_weight, None, None, None, None


class _AtLinks(torch.autograd.Function):
    """Rows of agents on their links; the backward sums over each agent's links."""

    @staticmethod
    def forward(ctx, rows: Tensor, graph: Graph, lead: torch.Size, end: int) -> Tensor:
        index = _ends(graph, lead, end, rows.device)
        ctx.graph, ctx.lead, ctx.end = graph, lead, end
        ctx.save_for_backward(index)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        grad = grad_outputs[0].contiguous()
        links, start = (_outgoing if ctx.end == 0 else _incoming)(ctx.graph, ctx.lead, ctx.saved_tensors[0])
        return F.embedding_bag(links, grad, start, mode="sum"), None, None, None


class _SumLinks(torch.autograd.Function):
    """Sums over the links into each agent; the backward copies to these links."""

    @staticmethod
    def forward(ctx, rows: Tensor, graph: Graph, lead: torch.Size) -> Tensor:
        receiver = _ends(graph, lead, 1, rows.device)
        ctx.save_for_backward(receiver)
        links, start = _incoming(graph, lead, receiver)
        return F.embedding_bag(links, rows, start, mode="sum")

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        return grad_outputs[0].index_select(0, ctx.saved_tensors[0]), None, None


def _incoming(graph: Graph, lead: torch.Size, receiver: Tensor) -> tuple[Tensor, Tensor]:
    """The links into each row ``[batch * E]``, and where those of each row start; edges are sorted by receiver."""
    links = torch.arange(receiver.numel(), device=receiver.device, dtype=receiver.dtype)
    return links, _lists(graph, lead, receiver.device)[1].to(receiver.dtype)


def _outgoing(graph: Graph, lead: torch.Size, sender: Tensor) -> tuple[Tensor, Tensor]:
    """The links out of each row ``[batch * E]``, and where those of each row start."""
    if graph.topology is not None:
        reverse = graph.topology.reverse
        order = reverse.order_on(sender.device).expand(lead.numel(), -1)
        start = _shared_lists(reverse, lead.numel(), sender.device)[1]
        return _flatten(order, reverse.num_edges, sender.dtype), start.to(sender.dtype)
    ordered, order = sender.sort(stable=True)
    first = torch.arange(lead.numel() * graph.num_agents, device=sender.device, dtype=sender.dtype)
    return order.to(sender.dtype), torch.searchsorted(ordered, first, out_int32=sender.dtype == torch.int32)
