"""Randomised gossip: agents average in pairs, one pair or one matching a round, with real or with whole numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from torch import Tensor

from coordination.arrays import as_float
from coordination.consensus.averaging import Averages
from coordination.consensus.base import Consensus
from coordination.consensus.links import both_ways, opposite, receive, receivers, senders, up_links
from coordination.graph import Graph
from coordination.topology.base import Topology
from coordination.topology.spectra import laplacian_extremes


@dataclasses.dataclass(frozen=True)
class Gossip(Consensus[Averages]):
    """Pairwise gossip: two neighbours replace their values by the mean of both.

    ``pair``: each round one agent, uniformly drawn, calls one of its neighbours, uniformly drawn (Boyd, Ghosh,
    Prabhakar and Shah 2006); then ``E |e_k|^2 <= lambda_2(Wbar)^k |e_0|^2`` with :func:`gossip_rate`. ``matching``:
    each round many disjoint pairs at once, the links whose random priority is the lowest at both ends. Every exchange
    keeps the sum.

    ``quantised`` (Kashyap, Basar and Srikant 2007): values stay whole numbers. The two share their sum as evenly as
    whole numbers allow, the one that held less taking the larger part, so that values one apart swap. The sum stays
    exactly, and all values end as the average rounded down or up.

    Every sample draws for itself. O(D) draws and O(N D) copying a round for pairs, O(E + N D) for matchings. An
    exchange needs both directions of its link; if either fails nothing happens.

    Args:
        pairs: ``pair`` or ``matching``.
        quantised: Whole numbers only.

    >>> graph = Topology([[0, 1], [1, 0]], 2)
    >>> protocol = Gossip(quantised=True)
    >>> state = protocol.init(torch.tensor([[0], [7]]), graph)
    >>> protocol.step(state, graph, generator=torch.Generator()).value.squeeze(-1)
    tensor([4, 3])
    """

    pairs: Literal["pair", "matching"] = "pair"
    quantised: bool = False

    def __post_init__(self) -> None:
        if self.pairs not in ("pair", "matching"):
            raise ValueError(f"pairs: 'pair' or 'matching', got {self.pairs!r}")

    def init(self, x: Tensor, graph: Topology | Graph) -> Averages:
        """See :meth:`Consensus.init`.

        Raises:
            ValueError: If the graph has one-way edges, or a quantised value is no whole number.
        """
        opposite(self._shared(graph))
        if self.quantised and x.is_floating_point() and not bool((x == x.round()).all()):
            raise ValueError("x: quantised gossip needs whole numbers; scale and round first")
        return Averages(x if self.quantised else as_float(x))

    def step(
        self,
        state: Averages,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Averages:
        """See :meth:`Consensus.step`.

        Raises:
            ValueError: If no generator is given.
        """
        if generator is None:
            raise ValueError("generator: Gossip draws at random, pass a torch.Generator")
        topology = self._shared(graph)
        up = up_links(graph, link_up)
        up = None if up is None else both_ways(up, topology)
        if self.pairs == "matching":
            return Averages(self._matching(state.value, topology, up, generator))
        return Averages(self._pair(state.value, topology, up, generator))

    def _shared(self, graph: Topology | Graph) -> Topology:
        topology = graph if isinstance(graph, Topology) else graph.topology
        if topology is None:
            raise ValueError("Gossip: needs one topology shared by all samples, got edges of each sample's own")
        return topology

    def _exchange(self, own: Tensor, other: Tensor) -> Tensor:
        """What the first of two holds afterwards."""
        if not self.quantised:
            return (own + other) / 2
        total = own + other
        smaller = torch.div(total, 2, rounding_mode="floor")
        return torch.where(own < other, total - smaller, smaller)

    def _pair(self, x: Tensor, topology: Topology, up: Tensor | None, generator: torch.Generator) -> Tensor:
        if topology.num_edges == 0:
            return x
        lead, device = x.shape[:-2], x.device
        start = topology.row_start_on(device)
        caller = torch.randint(topology.num_agents, lead, generator=generator, device=device)
        degree = start[caller + 1] - start[caller]
        place = (torch.rand(lead, generator=generator, device=device, dtype=torch.float64) * degree).long()
        edge = (start[caller] + place).clamp(max=topology.num_edges - 1)  # an agent without neighbours calls nobody
        acts = degree > 0
        if up is not None:
            acts = acts & up.expand(*lead, -1).gather(-1, edge.unsqueeze(-1)).squeeze(-1)
        both = torch.stack([caller, topology.edges_on(device)[0][edge]], -1).unsqueeze(-1).expand(*lead, 2, x.shape[-1])
        held = x.gather(-2, both)
        after = torch.where(acts[..., None, None], self._exchange(held, held.flip(-2)), held)
        return x.scatter(-2, both, after)

    def _matching(self, x: Tensor, topology: Topology, up: Tensor | None, generator: torch.Generator) -> Tensor:
        source, receiver = topology.edges_on(x.device)
        shape = (*x.shape[:-2], topology.num_edges)
        drawn = torch.rand(shape, generator=generator, device=x.device, dtype=torch.float64)
        priority = torch.where(source < receiver, drawn, drawn[..., opposite(topology).to(x.device)]).unsqueeze(-1)
        if up is not None:
            priority = torch.where(up.unsqueeze(-1), priority, 2.0)
        lowest = receive(priority.new_full((*x.shape[:-1], 1), 2.0), priority, topology, "amin")
        acts = (priority == senders(lowest, topology)) & (priority == receivers(lowest, topology)) & (priority < 2)
        partner = receive(torch.zeros_like(x), torch.where(acts, senders(x, topology), 0), topology, "sum")
        paired = receive(torch.zeros_like(lowest), acts.to(lowest.dtype), topology, "sum") > 0
        return torch.where(paired, self._exchange(x, partner), x)


def gossip_rate(topology: Topology) -> float:
    """Second largest eigenvalue of the expected exchange of pairwise gossip.

    ``Wbar = I - L_w / 2N`` with link weights ``w_ij = 1/d_i + 1/d_j``. The squared deviation shrinks by at least this
    factor a round in expectation (Boyd et al. 2006, eq. 14).

    One eigenvalue by Lanczos iterations of O(E).

    >>> triangle = Topology([[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]], 3)
    >>> round(gossip_rate(triangle), 6)
    0.5
    """
    opposite(topology)  # refuses one-way edges
    n = topology.num_agents
    source, receiver = topology.edges.numpy()
    degree = topology.in_degree.numpy()
    weight = csr_array((1 / degree[source] + 1 / degree[receiver], (receiver, source)), shape=(n, n))
    laplacian = csr_array(diags_array(np.asarray(weight.sum(axis=1))) - weight)
    return 1 - laplacian_extremes(laplacian)[0] / (2 * n)


def gossip_rounds(topology: Topology, tol: float) -> tuple[float, float]:
    """Lower and upper bound on the rounds after which ``P(|e_k| >= tol |e_0|) <= tol`` for pairwise gossip.

    ``0.5 log(1/tol) / log(1/lambda_2) <= T(tol) <= 3 log(1/tol) / log(1/lambda_2)`` (Boyd et al. 2006, Theorem 3).

    One eigenvalue by Lanczos iterations of O(E), see :func:`gossip_rate`.

    Raises:
        ValueError: If tol is not in (0, 1) or the graph is not connected.

    >>> triangle = Topology([[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]], 3)
    >>> [round(bound, 2) for bound in gossip_rounds(triangle, 0.01)]
    [3.32, 19.93]
    """
    rate = gossip_rate(topology)
    if not 0 < tol < 1:
        raise ValueError(f"tol: must be in (0, 1), got {tol}")
    if rate >= 1:
        raise ValueError(f"gossip_rounds: {topology.name!r} is not connected, no number of rounds is enough")
    unit = math.log(1 / tol) / math.log(1 / rate) if rate > 0 else 0.0
    return 0.5 * unit, 3 * unit
