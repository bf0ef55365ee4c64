"""Accelerated averaging: Chebyshev polynomials of W, and the exact average in finitely many rounds.

A third way needs no class: agents that may choose their links average exactly in log2 N rounds of one message each
over the sequence of :func:`one_peer_exponential` topologies.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from coordination import tree
from coordination.arrays import as_float
from coordination.consensus.base import Consensus
from coordination.consensus.links import cached, mix
from coordination.graph import Graph
from coordination.topology.base import Topology

MAX_EIGENVALUES = 20  # more factors lose all digits in float32, whatever their order
DENSE_SPECTRUM = 1000  # eigenvalues are computed up to here


@tree.struct
class ChebyshevState:
    """State of :class:`Chebyshev`.

    Attributes:
        value: ``[*, N, D]`` estimates y_k.
        previous: ``[*, N, D]`` y_{k-1}.
        sigma: Contraction factor that the coefficients are built on.
        ratio: ``T_{k-1}(1/sigma) / T_k(1/sigma)``; 0 before the first round.
    """

    value: Tensor = tree.axes("N D")
    previous: Tensor = tree.axes("N D")
    sigma: float = tree.shared(default=0.0)
    ratio: float = tree.shared(default=0.0)


@dataclasses.dataclass(frozen=True)
class Chebyshev(Consensus[ChebyshevState]):
    """Averaging with Chebyshev acceleration: the best use of k products with a symmetric W (Golub and Varga 1961).

    ``y_{k+1} = 2 c_k / (sigma c_{k+1}) W y_k - c_{k-1} / c_{k+1} y_{k-1}``, ``c_k = T_k(1/sigma)``. After k rounds
    the deviation is at most ``1 / T_k(1/sigma)`` of the first, so rounds grow with the square root of what plain
    averaging needs. O(E D) a round, two values an agent. The average stays in every round.

    Args:
        weights: A symmetric kind of ``Topology.mixing``.
        sigma: Contraction factor of W, in (0, 1); None computes it. Too large costs speed, too small loses convergence.

    >>> ring = Topology([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]], 4)
    >>> state = Chebyshev().init(torch.tensor([[4.0], [0.0], [0.0], [0.0]]), ring)
    >>> round(state.sigma, 6)
    0.333333
    """

    weights: str = "metropolis"
    sigma: float | None = None

    fixed_graph = True
    perfect_links = True

    def __post_init__(self) -> None:
        if self.weights == "mean":
            raise ValueError("Chebyshev: 'mean' weights are not symmetric; use 'metropolis'")
        if self.sigma is not None and not 0 < self.sigma < 1:
            raise ValueError(f"sigma: must be in (0, 1), got {self.sigma}")

    def init(self, x: Tensor, graph: Topology | Graph) -> ChebyshevState:
        """See :meth:`Consensus.init`.

        Raises:
            ValueError: If links are down, the graph is not connected, or W has an eigenvalue -1.
        """
        topology = self._topology(graph)
        self.check(topology)
        sigma = self.sigma
        if sigma is None:
            sigma = cached(topology, ("slem", self.weights), lambda: topology.slem(self.weights))
        if sigma >= 1 - 1e-12:
            raise ValueError(f"Chebyshev: {self.weights!r} weights do not converge on this graph (factor {sigma:.6f})")
        x = as_float(x)
        return ChebyshevState(x, x, max(sigma, 1e-3), 0.0)  # W that averages at once has sigma 0

    def step(
        self,
        state: ChebyshevState,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> ChebyshevState:
        """See :meth:`Consensus.step`."""
        self._refuse_losses(link_up)
        mixed = mix(state.value, graph, self.weights)
        if state.ratio == 0:
            return ChebyshevState(mixed, state.value, state.sigma, state.sigma)
        ratio = 1 / (2 / state.sigma - state.ratio)
        value = mixed.mul(2 * ratio / state.sigma).sub(state.previous, alpha=state.ratio * ratio)
        return ChebyshevState(value, state.value, state.sigma, ratio)


@tree.struct
class FiniteTimeState:
    """State of :class:`FiniteTime`.

    Attributes:
        value: ``[*, N, D]`` estimates.
        eigenvalues: Those whose factors are still to come.
    """

    value: Tensor = tree.axes("N D")
    eigenvalues: tuple[float, ...] = tree.shared(default=())


@dataclasses.dataclass(frozen=True)
class FiniteTime(Consensus[FiniteTimeState]):
    """The exact average in as many rounds as the Laplacian has distinct nonzero eigenvalues.

    ``x <- x - L x / lambda_k`` for each of them in turn, since ``prod_k (I - L / lambda_k) = 11'/N`` on a connected
    graph (Sundaram and Hadjicostis 2007; Kibangou 2012); further rounds change nothing. Leja order keeps the partial
    products small; O(E D) a round.

    Args:
        eigenvalues: The distinct nonzero eigenvalues where they are known in closed form; None computes them (dense,
            up to 1,000 agents).

    >>> star = Topology([[0, 0, 0, 1, 2, 3], [1, 2, 3, 0, 0, 0]], 4)
    >>> FiniteTime().init(torch.zeros(4, 1), star).eigenvalues
    (4.0, 1.0)
    """

    eigenvalues: tuple[float, ...] | None = None

    fixed_graph = True
    perfect_links = True

    def init(self, x: Tensor, graph: Topology | Graph) -> FiniteTimeState:
        """See :meth:`Consensus.init`.

        Raises:
            ValueError: If links are down or one-way, the graph is not connected or has more than 20 distinct
                eigenvalues.
        """
        topology = self._topology(graph)
        self.check(topology)
        if self.eigenvalues is not None:
            return FiniteTimeState(as_float(x), leja_order(self.eigenvalues))
        return FiniteTimeState(as_float(x), cached(topology, ("eigenvalues",), lambda: _distinct_eigenvalues(topology)))

    def step(
        self,
        state: FiniteTimeState,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> FiniteTimeState:
        """See :meth:`Consensus.step`."""
        self._refuse_losses(link_up)
        if not state.eigenvalues:
            return state
        laplacian = self._topology(graph).laplacian()
        value = state.value - laplacian(state.value, feature_dims=1) / state.eigenvalues[0]
        return FiniteTimeState(value, state.eigenvalues[1:])


def leja_order(points: tuple[float, ...]) -> tuple[float, ...]:
    """Points ordered so that each lies farthest, in the product of distances, from 0 and those before it (Leja 1957).

    ``p_k`` maximises ``|p_k| * |p_k - p_1| * ... * |p_k - p_{k-1}|``. O(n^2) for n points.

    >>> leja_order((1.0, 2.0, 4.0))
    (4.0, 2.0, 1.0)
    """
    left, order = sorted(points, reverse=True), [0.0]
    while left:
        chosen = max(left, key=lambda p: math.prod(abs(p - q) for q in order))
        left.remove(chosen)
        order.append(chosen)
    return tuple(order[1:])


def _distinct_eigenvalues(topology: Topology) -> tuple[float, ...]:
    """Distinct nonzero Laplacian eigenvalues in Leja order."""
    n = topology.num_agents
    if n > DENSE_SPECTRUM:
        raise ValueError(f"FiniteTime: give the eigenvalues; they are computed up to {DENSE_SPECTRUM} agents, got {n}")
    if not topology.is_undirected:
        raise ValueError(f"FiniteTime: needs an undirected graph, {topology.name!r} has one-way edges")
    values = np.linalg.eigvalsh(topology.laplacian().matrix.toarray())
    apart = np.flatnonzero(np.diff(values) > 1e-9 * max(values[-1], 1.0)) + 1
    groups = [float(group.mean()) for group in np.split(values, apart)][1:]
    if len(groups) > MAX_EIGENVALUES:
        raise ValueError(
            f"FiniteTime: {topology.name!r} has {len(groups)} distinct nonzero eigenvalues; above {MAX_EIGENVALUES} "
            "rounding errors take over, use Chebyshev"
        )
    return leja_order(tuple(groups))


def one_peer_exponential(num_agents: int) -> list[Topology]:
    """The sequence of one-peer exponential graphs: in round k agent i hears agent ``i + 2^k``, modulo N, alone.

    With ``Averaging("mean")`` (one half each) every round is doubly stochastic, and for N a power of two the log2 N
    rounds of one cycle give the exact average: after k of them each agent holds the mean of 2^k (Ying et al. 2021,
    arXiv 2110.13363, Lemma 1). For other N averaging over the cycle converges, but not in finitely many rounds.

    O(N log N) to build.

    Args:
        num_agents: N, at least 2.

    Returns:
        ``ceil(log2 N)`` topologies with N edges each.

    >>> [t.num_edges for t in one_peer_exponential(8)]
    [8, 8, 8]
    """
    if num_agents < 2:
        raise ValueError(f"num_agents: must be at least 2, got {num_agents}")
    agents = np.arange(num_agents)
    return [
        Topology(np.stack([(agents + 2**k) % num_agents, agents]), num_agents, f"one_peer_exponential_{k}")
        for k in range(math.ceil(math.log2(num_agents)))
    ]
