"""Push-sum: the average over directed and lossy links, by moving mass instead of mixing values."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from torch import Tensor

from coordination import tree
from coordination.arrays import as_float
from coordination.consensus.base import Consensus
from coordination.consensus.links import (
    cached,
    out_degree,
    receive,
    senders,
    up_links,
    whole,
)
from coordination.graph import Graph
from coordination.topology.base import Topology
from coordination.topology.sparse import SparseOperator


@tree.struct
class PushSumState:
    """State of :class:`PushSum`.

    Attributes:
        mass: ``[*, N, D+1]`` value mass s_i, and weight w_i in the last column.
        backlog: ``[*, E, D+1]`` mass sent over each link since a message last arrived there; None before any loss.
    """

    mass: Tensor = tree.axes("N D+1")
    backlog: Tensor | None = tree.axes("E D+1", default=None)


@dataclasses.dataclass(frozen=True)
class PushSum(Consensus[PushSumState]):
    """Push-sum, or ratio consensus: ``s <- P s``, ``w <- P w``, estimate ``s_i / w_i`` (Kempe, Dobra and Gehrke 2003).

    Every agent splits what it holds evenly over itself and those that hear it, ``p_ji = 1 / (1 + outdegree_i)``, so
    the columns of P sum to one and total mass stays. On a strongly connected graph all ratios tend to the average, at
    the rate ``|lambda_2(P)|``. O(E D) a round.

    With ``robust`` the average survives lost messages (running sums, Hadjicostis, Vaidya and Dominguez-Garcia 2016):
    senders transmit the sum of all they ever sent over a link, receivers take the difference to the last sum that
    arrived. The state keeps that difference, which unlike the sums does not grow and loses no digits.

    Args:
        robust: Keep the mass of lost messages for the next that arrives. Without, it vanishes and the estimate is
            biased.

    >>> graph = Topology([[0, 1, 2, 0], [1, 2, 0, 2]], 3)
    >>> protocol = PushSum()
    >>> protocol.step(protocol.init(torch.tensor([[1.0], [2.0], [6.0]]), graph), graph).mass[:, 0]
    tensor([3.3333, 1.3333, 4.3333])
    """

    robust: bool = True

    def init(self, x: Tensor, graph: Topology | Graph) -> PushSumState:
        """See :meth:`Consensus.init`."""
        x = as_float(x)
        return PushSumState(torch.cat([x, torch.ones_like(x[..., :1])], -1))

    def step(
        self,
        state: PushSumState,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> PushSumState:
        """See :meth:`Consensus.step`.

        Raises:
            ValueError: If mass waits on the links of another graph.
        """
        topology = whole(graph)
        if topology is not None and link_up is None and state.backlog is None:
            return PushSumState(push_matrix(topology)(state.mass, feature_dims=1))
        share = state.mass / (1 + out_degree(graph).to(state.mass)).unsqueeze(-1)
        sent = senders(share, graph)
        known = up_links(graph, None)
        if known is not None:
            sent = torch.where(known.unsqueeze(-1), sent, 0.0)
        if state.backlog is not None:
            if state.backlog.shape != sent.shape:
                waiting, links = state.backlog.shape[-2], sent.shape[-2]
                raise ValueError(f"PushSum: mass waits on {waiting} links, the graph now has {links}; keep one graph")
            sent = sent + state.backlog
        up = up_links(graph, link_up)
        if up is None:
            return PushSumState(receive(share, sent, graph, "sum"))
        arrives = up.unsqueeze(-1)
        mass = receive(share, torch.where(arrives, sent, 0.0), graph, "sum")
        waits = self.robust and (link_up is not None or state.backlog is not None)
        return PushSumState(mass, torch.where(arrives, 0.0, sent) if waits else None)

    def value(self, state: PushSumState) -> Tensor:
        """``[*, N, D]`` estimates ``s_i / w_i``."""
        return state.mass[..., :-1] / state.mass[..., -1:]

    def message(self, state: PushSumState) -> Tensor:
        """``[*, N, D+1]``: value mass and weight travel together."""
        return state.mass


def push_matrix(topology: Topology) -> SparseOperator:
    """The column-stochastic matrix ``P_ij = 1 / (1 + outdegree_j)`` over links j -> i and j itself; cached.

    Kempe, Dobra and Gehrke (2003). O(N + E) to build once a topology.

    >>> push_matrix(Topology([[0], [1]], 2)).dense()
    tensor([[0.5000, 0.0000],
            [0.5000, 1.0000]], dtype=torch.float64)
    """

    def build() -> SparseOperator:
        n = topology.num_agents
        source, receiver = topology.edges.numpy()
        share = 1 / (1 + np.bincount(source, minlength=n))
        return SparseOperator(csr_array((share[source], (receiver, source)), shape=(n, n)) + diags_array(share))

    return cached(topology, ("push",), build)
