"""Averaging by repeated mixing, how fast it converges, and when it does not.

Averaging ``x <- W x`` converges to the average iff ``W 1 = 1``, ``1' W = 1'`` and the spectral radius of ``W - 11'/N``
is below one; for symmetric W that radius is the worst-case contraction a round (Xiao and Boyd 2004, Theorem 1).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from scipy.sparse import coo_array, csgraph
from torch import Tensor

from coordination import tree
from coordination.arrays import as_float
from coordination.channel import Inbox
from coordination.consensus.base import Consensus
from coordination.consensus.links import (
    edge_weights,
    mix,
    receive,
    receivers,
    require_weights,
    up_links,
    whole,
)
from coordination.graph import Graph
from coordination.links import as_graph
from coordination.topology.base import Topology

DENSE_CHECK = 1000  # own weights are checked by their eigenvalues up to here, by a sufficient condition above
ALWAYS_MIX = ("metropolis", "mean", "best_constant", "fdla", "fmmc")  # on every connected graph


@tree.struct
class Averages:
    """State of protocols that hold nothing but the estimates.

    Attributes:
        value: ``[*, N, D]``.
    """

    value: Tensor = tree.axes("N D")


@dataclasses.dataclass(frozen=True, eq=False)
class Averaging(Consensus[Averages]):
    """Linear averaging ``x <- (1 - lazy) W x + lazy x`` (DeGroot 1974; Xiao and Boyd 2004).

    Each round costs O(E D) a sample and leaves the average where W is doubly stochastic; the deviation from it
    shrinks by ``convergence_factor`` a round. A lost message is replaced by the receiver's own value: the average
    stays if both directions of a link fail together, and drifts otherwise (:class:`PushSum` keeps it).

    Args:
        weights: A kind of ``Topology.mixing``, of which ``mean`` reaches agreement but on a regular graph only the
            average; or a tensor ``[E]`` or ``[*, E]`` of weights ``w_ji`` of the sender at the receiver,
            differentiable.
        lazy: Share of its own value that an agent keeps on top, in [0, 1). Above 0 it makes periodic weights
            converge; raising it slows everything else down.

    >>> line = Topology([[0, 1, 1, 2], [1, 0, 2, 1]], 3)
    >>> protocol = Averaging("metropolis")
    >>> protocol.step(protocol.init(torch.tensor([[3.0], [0.0], [0.0]]), line), line).value.squeeze(-1)
    tensor([2., 1., 0.])
    """

    weights: str | Tensor = "metropolis"
    lazy: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.lazy < 1:
            raise ValueError(f"lazy: must be in [0, 1), got {self.lazy}")

    def init(self, x: Tensor, graph: Topology | Graph) -> Averages:
        """See :meth:`Consensus.init`."""
        require_weights(graph, self.weights)
        return Averages(as_float(x))

    def step(
        self,
        state: Averages,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Averages:
        """See :meth:`Consensus.step`."""
        mixed = mix(state.value, graph, self.weights, link_up)
        return Averages(torch.lerp(mixed, state.value, self.lazy) if self.lazy else mixed)

    def hear(self, state: Averages, graph: Topology | Graph, inbox: Inbox) -> Averages:
        """See :meth:`Consensus.hear`: ``x_i + sum over links of w_ij (m_ij - x_i)`` with what arrived, m.

        Late values still lead to agreement where weights are positive (Bertsekas and Tsitsiklis 1989, section 7.3),
        on some mean of the first values; noise keeps stirring, and quantised values end within some steps.
        """
        x = state.value
        weight = edge_weights(graph, self.weights).to(x).unsqueeze(-1) * (1 - self.lazy)
        told = torch.where(inbox.arrived.unsqueeze(-1), weight * (inbox.value - receivers(x, graph)), 0.0)
        return Averages(receive(x, told, graph, "sum"))

    def check(self, graph: Topology | Graph, batch: int = 1, alive: Tensor | None = None) -> None:
        """Refuse unconnected graphs, one-way links and weights whose powers do not converge."""
        super().check(graph, batch, alive)
        if isinstance(self.weights, Tensor):
            _check_own(graph, self.weights, self.lazy)
        elif self.weights != "mean" and whole(graph) is None and not _two_way(graph, batch):
            raise ValueError("Averaging: a link is up in one direction only, the average would drift; use PushSum")
        elif self.lazy == 0 and self.weights not in ALWAYS_MIX and _periodic(graph, self.weights, batch):
            raise ValueError(
                f"Averaging: {self.weights!r} weights have the eigenvalue -1 on this bipartite graph and never settle; "
                "set lazy above 0, or use 'metropolis'"
            )


def convergence_factor(topology: Topology, weights: str | Tensor = "metropolis") -> float:
    """Contraction a round: the spectral radius of ``W - 11'/N`` (Xiao and Boyd 2004, eq. 8).

    Args:
        topology: Who hears whom.
        weights: A kind of ``Topology.mixing``, or ``[E]`` weights of your own (dense eigenvalues, O(N^3)).

    >>> round(convergence_factor(Topology([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]], 4)), 6)
    0.333333
    """
    if isinstance(weights, str):
        return topology.slem(weights)
    n = topology.num_agents
    source, receiver = topology.edges.numpy()
    matrix = np.zeros((n, n))
    matrix[receiver, source] = edge_weights(topology, weights).detach().cpu().double().numpy()
    matrix += np.diag(1 - matrix.sum(axis=1))
    return float(np.abs(np.linalg.eigvals(matrix - 1 / n)).max())


def rounds_to(tol: float, factor: float, accelerated: bool = False) -> int:
    """Rounds until the deviation from the average is at most ``tol`` times the first one.

    ``log(1/tol) / log(1/factor)`` for plain averaging, ``acosh(1/tol) / acosh(1/factor)`` with Chebyshev (Young 1971).

    O(1).

    Args:
        tol: Relative tolerance, in (0, 1).
        factor: Contraction a round, in [0, 1); see :func:`convergence_factor`.
        accelerated: Whether Chebyshev acceleration is used.

    >>> rounds_to(1e-3, 0.99), rounds_to(1e-3, 0.99, accelerated=True)
    (688, 54)
    """
    if not 0 < tol < 1 or not 0 <= factor < 1:
        raise ValueError(f"rounds_to: needs 0 < tol < 1 and 0 <= factor < 1, got {tol} and {factor}")
    if factor == 0:
        return 1
    exact = math.acosh(1 / tol) / math.acosh(1 / factor) if accelerated else math.log(tol) / math.log(factor)
    return math.ceil(exact)


def _flat(graph: Topology | Graph, batch: int) -> np.ndarray:
    """Edges ``[2, M]`` of the disjoint union of all samples, links that are down left out."""
    edges = as_graph(graph).flat(batch)[0].cpu().numpy()
    return edges[:, (edges < batch * graph.num_agents).all(axis=0)]


def _two_way(graph: Topology | Graph, batch: int) -> bool:
    """Whether every link that is up has its opposite."""
    source, receiver = _flat(graph, batch)
    size = batch * graph.num_agents
    return bool(np.array_equal(np.sort(source * size + receiver), np.sort(receiver * size + source)))


def _periodic(graph: Topology | Graph, weights: str, batch: int) -> bool:
    """Whether non-negative symmetric weights have the eigenvalue -1 in some connected sample.

    They do iff no agent with links keeps a share of its own value and the graph is bipartite, which is when its double
    cover (two copies of each agent, every link from one copy to the other) falls apart.
    """
    weight = edge_weights(graph, weights).unsqueeze(-1)
    total = receive(weight.new_zeros(*weight.shape[:-2], graph.num_agents, 1), weight, graph, "sum").squeeze(-1)
    all_given = (total > 1 - 1e-9) | (total == 0)  # agents without links are dead or alone
    given = (all_given.all(-1) & (total > 0).any(-1)).reshape(-1).cpu().expand(batch)
    source, receiver = _flat(graph, batch)
    size = batch * graph.num_agents
    ends = np.concatenate([source, source + size]), np.concatenate([receiver + size, receiver])
    cover = coo_array((np.ones(ends[0].size), ends), shape=(2 * size, 2 * size))
    label = torch.from_numpy(csgraph.connected_components(cover, directed=False)[1]).reshape(2, batch, -1)
    linked = torch.from_numpy(np.bincount(source, minlength=size) > 0).reshape(batch, -1)
    bipartite = ((label[0] != label[1]) | ~linked).all(-1)
    return bool((given & bipartite).any())


def _check_own(graph: Topology | Graph, weights: Tensor, lazy: float) -> None:
    """Refuse weights of the user's own whose powers do not converge, or cannot be shown to."""
    topology = whole(graph)
    if topology is not None and weights.ndim == 1 and topology.num_agents <= DENSE_CHECK:
        factor = convergence_factor(topology, weights * (1 - lazy))
        if factor >= 1 - 1e-12:
            raise ValueError(f"Averaging: weights do not converge, the spectral radius of W - 11'/N is {factor:.6f}")
        return
    up = up_links(graph, None)
    positive = (weights > 0) if up is None else (weights > 0) | ~up
    kept = weights if up is None else torch.where(up, weights, 0.0)
    total = receive(kept.new_zeros(*kept.shape[:-1], graph.num_agents, 1), kept.unsqueeze(-1), graph, "sum")
    if not bool(positive.all()) or float(total.max()) * (1 - lazy) >= 1:
        raise ValueError(
            "Averaging: cannot show that these weights converge: on large or batched graphs each must be positive "
            f"and an agent's sum below 1, got weights from {float(kept.min()):.4g} and sums to {float(total.max()):.4g}"
        )
