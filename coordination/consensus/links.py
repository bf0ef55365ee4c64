"""One round of messages over links: gather at senders, reduce at receivers, mix with averaging weights.

Every kernel takes values ``[*, N, D]`` and a :class:`Graph`, with shared or per-sample edges. Where all samples share
one topology and no link is down, mixing is one CSR product on node-major data: the result of a round is a view with
the agent axis stored first, so the first round permutes, the others do not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy.sparse import coo_array, csgraph
from torch import Tensor
from torch.nn import functional as F

from coordination.arrays import Array
from coordination.gather import neighbour_sum
from coordination.graph import Graph
from coordination.links import as_graph, at_ends, endpoints
from coordination.topology.base import Topology

T = TypeVar("T")
LOCAL_WEIGHTS = ("metropolis", "mh", "max_degree", "mean")  # what agents can compute on a graph that changes

_CACHE: WeakKeyDictionary[Topology, dict[tuple, object]] = WeakKeyDictionary()


def cached(topology: Topology, key: tuple, build: Callable[[], T]) -> T:
    """What ``build()`` returned the first time it was asked for ``key`` on this topology."""
    known = _CACHE.setdefault(topology, {})
    if key not in known:
        known[key] = build()
    return known[key]  # type: ignore[return-value]


def whole(graph: Topology | Graph) -> Topology | None:
    """The topology that all samples share with every link up, or None if there is no such thing."""
    if isinstance(graph, Topology):
        return graph
    return graph.topology if graph.live is None else None


def up_links(graph: Topology | Graph, link_up: Tensor | None) -> Tensor | None:
    """``[*, E]`` bool: links that carry this round's message; None where all do.

    Args:
        graph: Links known to be down (``live``) and padding are left out.
        link_up: ``[E]`` or ``[*, E]`` bool: messages that arrive this round, or None if all do.
    """
    known = None if isinstance(graph, Topology) else graph.up()
    if link_up is None or known is None:
        return known if link_up is None else link_up.bool()
    return known & link_up.bool()


def senders(x: Tensor, graph: Topology | Graph) -> Tensor:
    """The sender's value on every edge: ``[*, N, D] -> [*, E, D]``; zero at padding."""
    return at_ends(x, graph, "sender", 1)


def receivers(x: Tensor, graph: Topology | Graph) -> Tensor:
    """The receiver's value on every edge: ``[*, N, D] -> [*, E, D]``; zero at padding."""
    return at_ends(x, graph, "receiver", 1)


def receive(own: Tensor, messages: Tensor, graph: Topology | Graph, reduce: str) -> Tensor:
    """Reduce the messages that reach each agent together with what it holds itself.

    Args:
        own: ``[*, N, D]`` zeros for a plain sum.
        messages: ``[*, E, D]`` with leading axes as in ``own``; padding may hold anything.
        graph: Who hears whom.
        reduce: ``sum``, ``amax`` or ``amin``. Cost O(E D) a sample; any number type.

    Returns:
        ``[*, N, D]``.
    """
    _, receiver = endpoints(graph, own.device)
    if as_graph(graph).topology is not None:
        front = own.movedim(-2, 0)
        columns = messages.movedim(-2, 0).reshape(messages.shape[-2], front[0].numel())
        index = receiver.unsqueeze(1).expand_as(columns)
        reduced = front.reshape(front.shape[0], -1).scatter_reduce(0, index, columns, reduce)
        return reduced.reshape(front.shape).movedim(0, -2)
    index = receiver.unsqueeze(-1).expand_as(messages)
    return F.pad(own, (0, 0, 0, 1)).scatter_reduce(-2, index, messages, reduce)[..., :-1, :]


def in_degree(graph: Topology | Graph, link_up: Tensor | None = None) -> Tensor:
    """``[N]`` or ``[*, N]`` int64: how many up links reach each agent."""
    up = up_links(graph, link_up)
    if up is None:
        topology = whole(graph)
        assert topology is not None
        return topology.in_degree
    zeros = torch.zeros(*up.shape[:-1], graph.num_agents, 1, dtype=torch.int64, device=up.device)
    return receive(zeros, up.long().unsqueeze(-1), graph, "sum").squeeze(-1)


def out_degree(graph: Topology | Graph) -> Tensor:
    """``[N]`` or ``[*, N]`` int64: how many agents hear each agent over links known to be up."""
    topology = whole(graph)
    if topology is not None:
        return torch.bincount(topology.edges[0], minlength=topology.num_agents)
    up = up_links(graph, None)
    assert up is not None
    source, _ = endpoints(graph, up.device)
    zeros = torch.zeros(*up.shape[:-1], graph.num_agents + 1, dtype=torch.int64, device=up.device)
    return zeros.scatter_add(-1, source.expand_as(up), up.long())[..., :-1]


def both_ways(link_up: Array, topology: Topology) -> Tensor:
    """Links up in both directions: an exchange happens only if both messages arrive.

    O(E).

    Args:
        link_up: ``[*, E]`` bool in the order of ``topology.edges``.
        topology: An undirected graph.

    Returns:
        ``[*, E]`` bool, equal for the two directions of a link.

    >>> both_ways(torch.tensor([True, False]), Topology([[0, 1], [1, 0]], 2))
    tensor([False, False])
    """
    link_up = torch.as_tensor(link_up)
    return link_up & link_up[..., opposite(topology, link_up.device)]


def opposite(topology: Topology, device: torch.device | str = "cpu") -> Tensor:
    """``[E]`` int64 on ``device``, cached: where the edge i -> j finds its opposite j -> i.

    Raises:
        ValueError: If some edge has none.
    """
    if not topology.is_undirected:
        raise ValueError(f"needs an undirected graph, {topology.name!r} has one-way edges")
    source, receiver = topology.edges_on(device)
    n, key = topology.num_agents, ("opposite", torch.device(device))
    return cached(topology, key, lambda: torch.searchsorted(receiver * n + source, source * n + receiver))


def edge_weights(graph: Topology | Graph, weights: str | Tensor) -> Tensor:
    """Averaging weight of the sender at the receiver, on every edge.

    On a shared topology these are the off-diagonal entries of ``Topology.mixing(weights)``. Where links are known to be
    down, or samples bring their own edges, they come from the degrees of the living links (Xiao, Boyd and Lall 2005),
    as if the dead links did not exist.

    Args:
        graph: Who hears whom.
        weights: A kind of ``Topology.mixing``, or a tensor ``[E]`` or ``[*, E]`` of your own, returned as it is.

    Returns:
        ``[E]`` on the CPU for a shared topology, else ``[*, E]`` on the graph's device; float64, zero on dead links.

    Raises:
        ValueError: If a tensor does not have one weight an edge, or the kind needs one fixed graph.
    """
    topology = whole(graph)
    if isinstance(weights, Tensor):
        num_edges = endpoints(graph, weights.device)[0].shape[-1]
        if weights.ndim < 1 or weights.shape[-1] != num_edges:
            raise ValueError(f"weights: expected one an edge, [*, E] with E = {num_edges}, got {tuple(weights.shape)}")
        return weights
    if topology is not None:
        return cached(topology, ("weights", weights), lambda: _named_weights(topology, weights))
    if weights not in LOCAL_WEIGHTS:
        local = ", ".join(LOCAL_WEIGHTS)
        raise ValueError(f"weights {weights!r} need one topology with every link up; here use one of: {local}")
    shared = as_graph(graph).topology
    if shared is not None and weights != "mean" and not shared.is_undirected:
        raise ValueError(f"weights {weights!r} need an undirected graph, {shared.name!r} has one-way edges; use 'mean'")
    up = up_links(graph, None)
    assert up is not None
    degree = in_degree(graph).unsqueeze(-1)
    heard, own = senders(degree, graph).squeeze(-1), receivers(degree, graph).squeeze(-1)
    largest = degree.amax(-2) if weights == "max_degree" else own if weights == "mean" else torch.maximum(heard, own)
    shift = 1 if weights in ("metropolis", "mean") else 0
    return torch.where(up, 1 / (largest + shift).clamp(min=1).double(), 0.0)


def _named_weights(topology: Topology, kind: str) -> Tensor:
    source, receiver = topology.edges.numpy()
    entries = topology.mixing(kind).matrix[receiver, source]
    return torch.from_numpy(np.asarray(entries.todense() if hasattr(entries, "todense") else entries).reshape(-1))


def require_weights(graph: Topology | Graph, weights: str | Tensor) -> None:
    """Refuse weights that the graph cannot have, before the first round; errors as in :func:`edge_weights`."""
    topology = whole(graph)
    if topology is not None and isinstance(weights, str):
        topology.mixing(weights)
    else:
        edge_weights(graph, weights)


def mix(x: Array, graph: Topology | Graph, weights: str | Tensor, link_up: Tensor | None = None) -> Tensor:
    """One averaging round: ``x_i <- x_i + sum over links j -> i of w_ij (x_j - x_i)``.

    A message that does not arrive is replaced by the receiver's own value, so rows of weights always sum to one; the
    average stays where ``w_ij = w_ji`` and both directions of a link fail together. Differentiable in ``x`` and in a
    tensor of weights.

    One step of DeGroot's model (1974) with weights as in Xiao and Boyd (2004).

    Args:
        x: ``[*, N, D]`` floating point.
        graph: Who hears whom.
        weights: As in :func:`edge_weights`.
        link_up: ``[E]`` or ``[*, E]`` bool, or None if every message arrives.

    Returns:
        ``[*, N, D]``, stored node-major; O(E D) a sample.

    >>> pair = Topology([[0, 1], [1, 0]], 2)
    >>> mix(torch.tensor([[0.0], [4.0]]), pair, torch.tensor([0.25, 0.25])).squeeze(-1)
    tensor([1., 3.])
    """
    x, topology = torch.as_tensor(x), whole(graph)
    if topology is not None and link_up is None and isinstance(weights, str):
        return topology.mixing(weights)(x, feature_dims=1)
    weight = edge_weights(graph, weights).to(x)
    if link_up is not None:
        weight = torch.where(link_up.bool(), weight, 0.0)
    weighted = dataclasses.replace(as_graph(graph), weight=weight)
    total = neighbour_sum(x.new_ones(*weight.shape[:-1], graph.num_agents, 1), weighted)
    return x * (1 - total) + neighbour_sum(x, weighted)


def flow(x: Tensor, graph: Topology | Graph, weights: str | Tensor, link_up: Tensor | None = None) -> Tensor:
    """``(W - I) x``: what one averaging round would add; shapes as in :func:`mix`."""
    return mix(x, graph, weights, link_up) - x


def same_component(graphs: Sequence[Topology | Graph], batch: int, alive: Tensor | None = None) -> bool:
    """Whether in every sample each living agent can reach every other along links of any of the graphs.

    Args:
        graphs: One graph, or the members of a graph that changes; links that are down do not count.
        batch: Number of samples, leading axes merged.
        alive: ``[batch, N]`` bool, or None if all live.
    """
    topology = whole(graphs[0])
    if len(graphs) == 1 and topology is not None and alive is None:
        return topology.is_connected
    n = graphs[0].num_agents
    edges = torch.cat([as_graph(g).flat(batch, alive)[0].cpu() for g in graphs], 1).numpy()
    matrix = coo_array((np.ones(edges.shape[1]), (edges[0], edges[1])), shape=(batch * n + 1, batch * n + 1))
    label = torch.from_numpy(csgraph.connected_components(matrix, directed=True, connection="strong")[1])
    label = label[:-1].reshape(batch, n)
    living = torch.ones_like(label, dtype=torch.bool) if alive is None else alive.cpu()
    first = label.gather(1, living.long().argmax(1, keepdim=True))
    return bool(((label == first) | ~living).all())
