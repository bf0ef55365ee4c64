"""Distributed optimisation: agents minimise the sum of their private functions while they agree on where.

Minimise ``sum_i f_i(x)``; agent i knows f_i alone. Gradients are callables ``gradient(x) -> [*, N, D]`` on all
agents' points ``[*, N, D]`` at once, row i being that of f_i at x_i. W is a symmetric kind of ``Topology.mixing``.
Every round costs O(E D) and one gradient. The points start where ``init`` puts them; the answer does not depend on
it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from scipy.sparse import csr_array, eye_array
from torch import Tensor

from coordination import tree
from coordination.arrays import as_float
from coordination.consensus.averaging import Averages
from coordination.consensus.base import Consensus
from coordination.consensus.links import mix, require_weights
from coordination.graph import Graph
from coordination.topology.base import Topology
from coordination.topology.spectra import laplacian_extremes

Gradient = Callable[[Tensor], Tensor]


def _check_settings(name: str, step: float, weights: str) -> None:
    if not step > 0:
        raise ValueError(f"{name}: its step must be positive, got {step}")
    if weights == "mean":
        raise ValueError(f"{name}: 'mean' weights are not symmetric; use 'metropolis'")


@dataclasses.dataclass(frozen=True)
class DGD(Consensus[Averages]):
    """Decentralised gradient descent ``x <- W x - alpha grad f(x)`` (Nedic and Ozdaglar 2009).

    With a constant step it settles beside the optimum, where ``(I - W) x = -alpha grad f(x)``: agents disagree by
    O(alpha). It is the baseline that :class:`EXTRA`, :class:`DIGing` and :class:`ADMM` correct.

    Args:
        gradient: See the top of this file.
        alpha: Step; raising it speeds up and widens the bias.
        weights: A symmetric kind of ``Topology.mixing``.

    >>> pair, protocol = Topology([[0, 1], [1, 0]], 2), DGD(lambda x: x - 3.0, 0.5)
    >>> protocol.step(protocol.init(torch.tensor([[0.0], [4.0]]), pair), pair).value.squeeze(-1)
    tensor([3.5000, 1.5000])
    """

    gradient: Gradient
    alpha: float
    weights: str = "metropolis"

    def __post_init__(self) -> None:
        _check_settings("DGD", self.alpha, self.weights)

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
        return Averages(mix(state.value, graph, self.weights, link_up) - self.alpha * self.gradient(state.value))


@tree.struct
class ExtraState:
    """State of :class:`EXTRA`.

    Attributes:
        value: ``[*, N, D]`` points x^k.
        half: ``[*, N, D]`` ``(I + W) x^{k-1} / 2``; x^0 before the first round.
        gradient: ``[*, N, D]`` gradients at x^{k-1}; zero before the first round.
    """

    value: Tensor = tree.axes("N D")
    half: Tensor = tree.axes("N D")
    gradient: Tensor = tree.axes("N D")


@dataclasses.dataclass(frozen=True)
class EXTRA(Consensus[ExtraState]):
    """Exact first-order method with a constant step (Shi, Ling, Wu and Yin 2015, eq. 2.13).

    ``x'' = (I + W) x' - (I + W)/2 x - alpha (grad f(x') - grad f(x))``. Starts with ``x' = W x - alpha grad f(x)``.
    Converges to the optimum for steps below :func:`extra_step_limit`, linearly where the sum is strongly convex.

    Args:
        gradient: See the top of this file.
        alpha: Step.
        weights: A symmetric kind of ``Topology.mixing``.

    >>> pair, protocol = Topology([[0, 1], [1, 0]], 2), EXTRA(lambda x: x - 3.0, 0.5)
    >>> protocol.step(protocol.init(torch.tensor([[0.0], [4.0]]), pair), pair).value.squeeze(-1)
    tensor([3.5000, 1.5000])
    """

    gradient: Gradient
    alpha: float
    weights: str = "metropolis"

    fixed_graph = True
    perfect_links = True

    def __post_init__(self) -> None:
        _check_settings("EXTRA", self.alpha, self.weights)

    def init(self, x: Tensor, graph: Topology | Graph) -> ExtraState:
        """See :meth:`Consensus.init`."""
        require_weights(graph, self.weights)
        x = as_float(x)
        return ExtraState(x, x, torch.zeros_like(x))

    def step(
        self,
        state: ExtraState,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> ExtraState:
        """See :meth:`Consensus.step`."""
        self._refuse_losses(link_up)
        gradient = self.gradient(state.value)
        both = state.value + mix(state.value, graph, self.weights)
        return ExtraState(both - state.half - self.alpha * (gradient - state.gradient), both / 2, gradient)


def extra_step_limit(topology: Topology, smoothness: float, weights: str = "metropolis") -> float:
    """Steps below ``2 lambda_min((I + W)/2) / smoothness`` make :class:`EXTRA` converge (Shi et al. 2015, Theorem 3.3).

    One eigenvalue by Lanczos iterations of O(E).

    Args:
        topology: Who hears whom.
        smoothness: Largest Lipschitz constant of the agents' gradients.
        weights: A symmetric kind of ``Topology.mixing``.

    >>> pair = Topology([[0, 1], [1, 0]], 2)
    >>> round(extra_step_limit(pair, smoothness=2.0), 6)
    0.5
    """
    difference = csr_array(eye_array(topology.num_agents) - topology.mixing(weights).matrix)
    return (2 - laplacian_extremes(difference)[1]) / smoothness


@tree.struct
class TrackingState:
    """State of :class:`DIGing`.

    Attributes:
        value: ``[*, N, D]`` points.
        tracker: ``[*, N, D]`` estimates of the average gradient; they sum to what the gradients sum to.
        gradient: ``[*, N, D]`` gradients at ``value``.
    """

    value: Tensor = tree.axes("N D")
    tracker: Tensor = tree.axes("N D")
    gradient: Tensor = tree.axes("N D")


@dataclasses.dataclass(frozen=True)
class DIGing(Consensus[TrackingState]):
    """Gradient tracking (Nedic, Olshevsky and Shi 2017).

    ``x' = W x - alpha y``, ``y' = W y + grad f(x') - grad f(x)``, with ``y = grad f(x)`` at first. The trackers y sum
    to what the gradients sum to in every round, also on graphs that change, if W stays doubly stochastic. Linear for
    strongly convex sums and small enough steps. Two messages a round.

    Args:
        gradient: See the top of this file.
        alpha: Step.
        weights: A symmetric kind of ``Topology.mixing``.

    >>> pair, protocol = Topology([[0, 1], [1, 0]], 2), DIGing(lambda x: x - 3.0, 0.5)
    >>> protocol.step(protocol.init(torch.tensor([[0.0], [4.0]]), pair), pair).value.squeeze(-1)
    tensor([3.5000, 1.5000])
    """

    gradient: Gradient
    alpha: float
    weights: str = "metropolis"

    def __post_init__(self) -> None:
        _check_settings("DIGing", self.alpha, self.weights)

    def init(self, x: Tensor, graph: Topology | Graph) -> TrackingState:
        """See :meth:`Consensus.init`."""
        require_weights(graph, self.weights)
        x = as_float(x)
        gradient = self.gradient(x)
        return TrackingState(x, gradient, gradient)

    def step(
        self,
        state: TrackingState,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> TrackingState:
        """See :meth:`Consensus.step`."""
        value = mix(state.value, graph, self.weights, link_up) - self.alpha * state.tracker
        gradient = self.gradient(value)
        tracker = mix(state.tracker, graph, self.weights, link_up) + (gradient - state.gradient)
        return TrackingState(value, tracker, gradient)

    def message(self, state: TrackingState) -> Tensor:
        """``[*, N, 2 D]``: point and tracker."""
        return torch.cat([state.value, state.tracker], -1)


@tree.struct
class DualState:
    """State of :class:`ADMM`.

    Attributes:
        value: ``[*, N, D]`` points.
        dual: ``[*, N, D]`` multipliers; they sum to zero.
    """

    value: Tensor = tree.axes("N D")
    dual: Tensor = tree.axes("N D")


@dataclasses.dataclass(frozen=True)
class ADMM(Consensus[DualState]):
    """Decentralised alternating direction method of multipliers (Shi, Ling, Yuan, Wu and Yin 2014).

    With degrees d and adjacency A, ``x' = argmin f(x) + c d |x - v|^2``, ``v = (x + A x / d) / 2 - p / (2 c d)``, then
    ``p' = p + c (d x' - A x')``. Linear for strongly convex sums, for any penalty c.

    Args:
        prox: ``prox(v [*, N, D], rho [N, 1]) -> [*, N, D]``, the minimiser of ``f_i(x) + rho_i / 2 |x - v_i|^2`` for
            every agent.
        penalty: c above 0; raising it stresses agreement over progress.

    >>> pair = Topology([[0, 1], [1, 0]], 2)
    >>> protocol = ADMM(lambda v, rho: (3.0 + rho * v) / (1 + rho))  # all want to be at 3
    >>> protocol.step(protocol.init(torch.zeros(2, 1), pair), pair).value.squeeze(-1)
    tensor([1., 1.])
    """

    prox: Callable[[Tensor, Tensor], Tensor]
    penalty: float = 1.0

    fixed_graph = True
    perfect_links = True

    def __post_init__(self) -> None:
        _check_settings("ADMM", self.penalty, "")

    def init(self, x: Tensor, graph: Topology | Graph) -> DualState:
        """See :meth:`Consensus.init`.

        Raises:
            ValueError: If links are one-way or an agent has none.
        """
        topology = self._topology(graph)
        if not topology.is_undirected or bool((topology.in_degree == 0).any()):
            raise ValueError(f"ADMM: needs an undirected graph in which every agent has a neighbour, got {topology!r}")
        x = as_float(x)
        return DualState(x, torch.zeros_like(x))

    def step(
        self,
        state: DualState,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> DualState:
        """See :meth:`Consensus.step`."""
        self._refuse_losses(link_up)
        topology = self._topology(graph)
        heard = topology.adjacency()
        degree = topology.row_start_on(state.value.device).diff().to(state.value.dtype).unsqueeze(-1)
        rho = 2 * self.penalty * degree
        middle = (state.value + heard(state.value, feature_dims=1) / degree) / 2 - state.dual / rho
        value = self.prox(middle, rho)
        dual = state.dual + self.penalty * topology.laplacian()(value, feature_dims=1)
        return DualState(value, dual)
