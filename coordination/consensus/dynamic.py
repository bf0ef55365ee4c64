"""Averaging in time: inputs that move, broadcasts only when needed, and messages that are late."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_array, eye_array
from torch import Tensor

from coordination import tree
from coordination.arrays import as_float
from coordination.consensus.base import Consensus
from coordination.consensus.links import flow, mix, require_weights
from coordination.graph import Graph
from coordination.topology.base import Topology
from coordination.topology.spectra import laplacian_extremes

DENSE_SOLVE = 2000  # largest graph whose tracking error is solved for


@tree.struct
class TrackingState:
    """State of :class:`DynamicAverage`.

    Attributes:
        value: ``[*, N, D]`` estimates of the present average input.
        signal: ``[*, N, D]`` inputs that the estimates account for.
        round: Rounds done.
    """

    value: Tensor = tree.axes("N D")
    signal: Tensor = tree.axes("N D")
    round: int = tree.shared(default=0)


@dataclasses.dataclass(frozen=True, eq=False)
class DynamicAverage(Consensus[TrackingState]):
    """Track the average of inputs that change: ``x <- W x + u(k+1) - u(k)``, ``x(0) = u(0)`` (Zhu and Martinez 2010).

    In every round the estimates sum to what the inputs sum to. Once the inputs stand still the error shrinks as in
    plain averaging; inputs that grow steadily leave the steady error of :func:`tracking_error` (Kia et al. 2019). O(E
    D) a round.

    Args:
        signal: ``signal(k) -> [*, N, D]``, the inputs in round k = 1, 2, ...; ``init`` takes those of round 0. None
            where inputs are given one by one, to :meth:`track`.
        weights: A doubly stochastic kind of ``Topology.mixing``, or weights of your own.

    >>> pair, protocol = Topology([[0, 1], [1, 0]], 2), DynamicAverage()
    >>> state = protocol.init(torch.tensor([[0.0], [4.0]]), pair)
    >>> protocol.track(state, pair, signal=torch.tensor([[2.0], [4.0]])).value.squeeze(-1)
    tensor([4., 2.])
    """

    signal: Callable[[int], Tensor] | None = None
    weights: str | Tensor = "metropolis"

    def init(self, x: Tensor, graph: Topology | Graph) -> TrackingState:
        """See :meth:`Consensus.init`; ``x`` is the first input."""
        require_weights(graph, self.weights)
        return TrackingState(as_float(x), as_float(x))

    def track(
        self, state: TrackingState, graph: Topology | Graph, signal: Tensor, link_up: Tensor | None = None
    ) -> TrackingState:
        """One round with the new inputs ``signal [*, N, D]``."""
        mixed = mix(state.value, graph, self.weights, link_up)
        return TrackingState(mixed + (signal - state.signal), signal, state.round + 1)

    def step(
        self,
        state: TrackingState,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> TrackingState:
        """See :meth:`Consensus.step`."""
        if self.signal is None:
            raise ValueError("signal: DynamicAverage has none to ask for the next inputs; use track")
        signal = torch.as_tensor(self.signal(state.round + 1)).to(state.value)
        if signal.shape != state.value.shape:
            expected, found = tuple(state.value.shape), tuple(signal.shape)
            raise ValueError(f"signal: expected [*, N, D] = {expected}, got {found}")
        return self.track(state, graph, signal, link_up)


def tracking_error(topology: Topology, rate: Tensor | np.ndarray, weights: str = "metropolis") -> Tensor:
    """Steady error of :class:`DynamicAverage` under inputs that grow steadily: ``(I - W)^+ (rate - mean rate)``.

    The fixed point of the error recursion (Kia et al. 2019).

    Args:
        topology: A connected undirected graph of at most 2,000 agents (dense, O(N^3)).
        rate: ``[*, N]`` growth of each input a round.
        weights: A doubly stochastic kind of ``Topology.mixing``.

    Returns:
        ``[*, N]`` float64: estimate minus average input, in the limit.

    >>> pair = Topology([[0, 1], [1, 0]], 2)
    >>> tracking_error(pair, torch.tensor([0.0, 1.0]))
    tensor([-0.5000,  0.5000], dtype=torch.float64)
    """
    n = topology.num_agents
    if n > DENSE_SOLVE or not topology.is_connected:
        raise ValueError(f"tracking_error: needs a connected graph of at most {DENSE_SOLVE} agents, got {topology!r}")
    given = torch.as_tensor(rate, dtype=torch.float64)
    operator = torch.eye(n, dtype=torch.float64) - topology.mixing(weights).dense()
    regular = (operator + 1 / n).to(given.device)  # invertible, equal on deviations
    return torch.linalg.solve(regular, (given - given.mean(-1, keepdim=True)).unsqueeze(-1)).squeeze(-1)


@tree.struct
class EventState:
    """State of :class:`EventTriggered`.

    Attributes:
        value: ``[*, N, D]`` estimates.
        heard: ``[*, N, D]`` what each agent broadcast last.
        broadcasts: ``[*, N]`` int64 broadcasts so far.
        round: Rounds done.
    """

    value: Tensor = tree.axes("N D")
    heard: Tensor = tree.axes("N D")
    broadcasts: Tensor = tree.axes("N")
    round: int = tree.shared(default=0)


@dataclasses.dataclass(frozen=True)
class EventTriggered(Consensus[EventState]):
    """Averaging that is silent while there is nothing new to say.

    After Seyboth, Dimarogonas and Johansson (2013), in discrete time. An agent broadcasts in round k when some
    feature differs from its last broadcast xh_i by more than ``floor + scale decay^k``; then ``x <- x + (W - I) xh``.
    Both ends of a link use broadcast values, so the average stays exactly. The deviation from it (2-norm over agents)
    ends within :meth:`error_bound`, zero for ``floor = 0``. O(E D) a round.

    Args:
        floor: Lasting threshold; raising it saves messages and widens the error.
        scale: Further threshold of the first rounds.
        decay: Its factor a round, in [0, 1).
        weights: A symmetric kind of ``Topology.mixing``.

    >>> pair, protocol = Topology([[0, 1], [1, 0]], 2), EventTriggered(floor=5.0)
    >>> state = protocol.init(torch.tensor([[0.0], [4.0]]), pair)
    >>> protocol.step(state, pair).broadcasts  # the values before the first round are known
    tensor([1, 1])
    """

    floor: float = 0.0
    scale: float = 1.0
    decay: float = 0.95
    weights: str = "metropolis"

    perfect_links = True

    def __post_init__(self) -> None:
        if self.floor < 0 or self.scale < 0 or not 0 <= self.decay < 1:
            raise ValueError(f"EventTriggered: needs floor >= 0, scale >= 0, decay in [0, 1); got {self}")

    def init(self, x: Tensor, graph: Topology | Graph) -> EventState:
        """See :meth:`Consensus.init`; the first values are known to all neighbours."""
        require_weights(graph, self.weights)
        x = as_float(x)
        return EventState(x, x, torch.ones(x.shape[:-1], dtype=torch.int64, device=x.device))

    def step(
        self,
        state: EventState,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> EventState:
        """See :meth:`Consensus.step`."""
        self._refuse_losses(link_up)
        threshold = self.floor + self.scale * self.decay**state.round
        speaks = ((state.value - state.heard).abs() > threshold).any(-1)
        heard = torch.where(speaks.unsqueeze(-1), state.value, state.heard)
        value = state.value + flow(heard, graph, self.weights)
        return EventState(value, heard, state.broadcasts + speaks.long(), state.round + 1)

    def error_bound(self, topology: Topology) -> float:
        """Bound on the final deviation of a scalar: ``|I - W|_2 sqrt(N) floor / (1 - SLEM)``.

        From ``x <- W x + (W - I)(xh - x)`` with every entry of ``xh - x`` at most ``floor`` in the limit.
        """
        factor = topology.slem(self.weights)
        if factor >= 1 - 1e-12:
            raise ValueError(
                f"error_bound: needs a connected graph and weights that converge, {topology.name!r} with "
                f"{self.weights!r} has the factor {factor:.6f}"
            )
        difference = csr_array(eye_array(topology.num_agents) - topology.mixing(self.weights).matrix)
        largest = laplacian_extremes(difference)[1]
        return largest * math.sqrt(topology.num_agents) * self.floor / (1 - factor)


@tree.struct
class DelayedState:
    """State of :class:`Delayed`.

    Attributes:
        history: ``[*, N, D]`` each: the values of the last ``delay + 1`` rounds, latest first.
    """

    history: tuple[Tensor, ...] = tree.axes("N D")


@dataclasses.dataclass(frozen=True)
class Delayed(Consensus[DelayedState]):
    """Laplacian averaging on values that are ``delay`` rounds old: ``x(k+1) = x(k) - gain L x(k - delay)``.

    An Euler step of ``x' = -L x(t - tau)`` (Olfati-Saber and Murray 2004) with ``gain`` the step and ``tau = gain *
    delay``, or a method of its own. The average stays whatever the delay. It converges iff the graph is connected and
    ``gain lambda_N`` is below :meth:`gain_margin`, asked for by :meth:`check`. O(E D) a round, delay + 1 values an
    agent.

    Args:
        delay: Age of the values in rounds, for all links alike.
        gain: Step size; raising it speeds up until the margin.

    >>> pair, protocol = Topology([[0, 1], [1, 0]], 2), Delayed(delay=1, gain=0.25)
    >>> state = protocol.init(torch.tensor([[0.0], [4.0]]), pair)
    >>> protocol.step(state, pair).history[0].squeeze(-1)
    tensor([1., 3.])
    """

    delay: int
    gain: float

    def __post_init__(self) -> None:
        if self.delay < 0 or self.gain <= 0:
            raise ValueError(f"Delayed: needs delay >= 0 and gain > 0, got {self.delay} and {self.gain}")

    def gain_margin(self) -> float:
        """Supremum of ``gain lambda_N`` that converges: ``2 sin(pi / (2 (2 delay + 1)))``, exact (Kuruklis 1994)."""
        return 2 * math.sin(math.pi / (2 * (2 * self.delay + 1)))

    def init(self, x: Tensor, graph: Topology | Graph) -> DelayedState:
        """See :meth:`Consensus.init`; before the first round all stood still."""
        return DelayedState((as_float(x),) * (self.delay + 1))

    def step(
        self,
        state: DelayedState,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> DelayedState:
        """See :meth:`Consensus.step`."""
        topology = self._topology(graph)
        if link_up is None:
            change = -topology.laplacian()(state.history[-1], feature_dims=1)
        else:
            change = flow(state.history[-1], topology, link_up.to(state.history[0].dtype))
        return DelayedState((state.history[0] + self.gain * change, *state.history[:-1]))

    def value(self, state: DelayedState) -> Tensor:
        """``[*, N, D]`` the latest values."""
        return state.history[0]

    def check(self, graph: Topology | Graph, batch: int = 1, alive: Tensor | None = None) -> None:
        """Refuse unconnected and directed graphs, and gains beyond the margin."""
        super().check(graph, batch, alive)
        largest = _extremes(self._topology(graph))[1]
        if self.gain * largest >= self.gain_margin():
            raise ValueError(
                f"Delayed: gain * lambda_N must be below {self.gain_margin():.4f} for a delay of {self.delay}, "
                f"got {self.gain} * {largest:.4f} = {self.gain * largest:.4f}"
            )


def _extremes(topology: Topology) -> tuple[float, float]:
    """(lambda_2, lambda_N) of an undirected topology."""
    if not topology.is_undirected:
        raise ValueError(f"the Laplacian spectrum needs an undirected graph, {topology.name!r} has one-way edges")
    return laplacian_extremes(topology.laplacian().matrix)


def delay_margin(topology: Topology) -> float:
    """Largest delay that continuous-time averaging ``x' = -L x(t - tau)`` survives: ``pi / (2 lambda_N)``, exclusive.

    In units of time where L is a rate; Olfati-Saber and Murray (2004, Theorem 10).

    One eigenvalue by Lanczos iterations of O(E).

    >>> pair = Topology([[0, 1], [1, 0]], 2)
    >>> round(delay_margin(pair), 6)
    0.785398
    """
    if topology.num_edges == 0:
        raise ValueError(f"delay_margin: {topology.name!r} has no links, any delay will do")
    return math.pi / (2 * _extremes(topology)[1])
