"""The consensus protocol: init, step, value; and ``run``, which repeats steps for rounds or to a tolerance.

Values are ``[*, N, D]`` inside a protocol: any leading axes, the agent axis, D features. :func:`run` also takes scalars
``[*, N]`` (``feature_dims=0``, the default) and numpy arrays. Protocols are frozen dataclasses of settings; all that
changes is in their states, which are structs of tensors.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from coordination.arrays import Array, as_float
from coordination.channel import Channel, Delay, Inbox, Ledger, Noise, Quantise, Stage
from coordination.consensus.links import same_component, up_links, whole
from coordination.graph import Graph
from coordination.links import as_graph, endpoints
from coordination.topology.base import Topology

S = TypeVar("S")
MAX_ROUNDS = 100_000  # where a tolerance is asked for without a limit on rounds


class Consensus(ABC, Generic[S]):
    """What every protocol is: settings that turn states into states.

    Attributes:
        fixed_graph: The protocol's coefficients belong to one graph; a sequence of graphs is refused.
        perfect_links: A message that does not arrive would break the protocol; losses are refused.
    """

    fixed_graph: ClassVar[bool] = False
    perfect_links: ClassVar[bool] = False

    @abstractmethod
    def init(self, x: Tensor, graph: Topology | Graph) -> S:
        """The state before the first round.

        Args:
            x: ``[*, N, D]`` what each agent holds.
            graph: Who hears whom.
        """

    @abstractmethod
    def step(
        self,
        state: S,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> S:
        """The state after one more round.

        Args:
            state: What :meth:`init` or an earlier step returned; it is not changed.
            graph: Who hears whom in this round. Links it knows to be down do not exist for the protocol.
            link_up: ``[E]`` or ``[*, E]`` bool in the graph's edge order: whose message arrives; None if all do.
            generator: Source of the random draws of protocols that make any.
        """

    def value(self, state: S) -> Tensor:
        """``[*, N, D]`` each agent's present estimate."""
        return state.value  # type: ignore[attr-defined]

    def message(self, state: S) -> Tensor:
        """``[*, N, M]`` what each agent sends in the next round, for the ledger of a channel."""
        return self.value(state)

    def hear(self, state: S, graph: Topology | Graph, inbox: Inbox) -> S:
        """The state after a round in which what arrived may be changed or late; :meth:`step` is that of true messages.

        Args:
            state: As in :meth:`step`.
            graph: Who hears whom in this round.
            inbox: What a channel delivered of :meth:`message`, edge by edge.

        Raises:
            ValueError: By default: the protocol needs what was said, when it was said.
        """
        raise ValueError(
            f"{type(self).__name__}: cannot use messages that a channel changes or delays (Noise, Quantise, Delay); "
            "Averaging, Extremum and Resilient can"
        )

    def check(self, graph: Topology | Graph, batch: int = 1, alive: Tensor | None = None) -> None:
        """Refuse a graph on which the protocol does not converge; called by :func:`run` when a tolerance is asked for.

        Args:
            graph: Who hears whom.
            batch: Number of samples.
            alive: ``[batch, N]`` bool, or None if all live.

        Raises:
            ValueError: With the condition that failed. Here: some living agent cannot reach some other.
        """
        if not same_component([graph], batch, alive):
            raise ValueError(f"{type(self).__name__}: the graph is not connected: some agents cannot reach some others")

    def _topology(self, graph: Topology | Graph) -> Topology:
        """The one topology with every link up that the protocol's coefficients belong to."""
        topology = whole(graph)
        if topology is None:
            raise ValueError(
                f"{type(self).__name__}: needs one topology shared by all samples, every agent and link up"
            )
        return topology

    def _refuse_losses(self, link_up: Tensor | None) -> None:
        if link_up is not None:
            raise ValueError(f"{type(self).__name__}: lost messages would break it; use Averaging or PushSum")


@dataclasses.dataclass(frozen=True, eq=False)
class ConsensusResult:
    """Where a run ended.

    Attributes:
        value: In the shape of the input: each agent's estimate; dead slots keep what they held.
        rounds: Rounds done.
        residual: ``[*]`` largest difference between the estimates of two living agents, over all features.
        converged: ``[*]`` bool: the residual and the last change were within the tolerance; None without a tolerance.
        state: The protocol's last state, to go on from.
        ledger: What the channel counted, messages and bits; None without a channel.
    """

    value: Tensor
    rounds: int
    residual: Tensor
    converged: Tensor | None
    state: Any
    ledger: Ledger | None = None


def disagreement(value: Array, alive: Array | None = None) -> Tensor:
    """Largest difference between two living agents: ``max_d (max_i x_id - min_i x_id)``; O(N D).

    The diameter of the values, by which consensus is defined (Tsitsiklis 1984).

    Args:
        value: ``[*, N, D]``.
        alive: ``[*, N]`` bool, or None if all live.

    Returns:
        ``[*]``; 0 where nobody lives.

    >>> disagreement(torch.tensor([[1.0], [4.0], [2.0]]))
    tensor(3.)
    """
    value = torch.as_tensor(value)
    if alive is None:
        return (value.amax(-2) - value.amin(-2)).amax(-1)
    alive = torch.as_tensor(alive)
    kept = alive.unsqueeze(-1)
    some = value.take_along_dim(
        alive.long().argmax(-1)[..., None, None], -2
    )  # any living agent's value fills dead slots
    filled = torch.where(kept, value, some)
    return torch.where(alive.any(-1), (filled.amax(-2) - filled.amin(-2)).amax(-1), 0)


def run(
    protocol: Consensus[Any],
    x: Array | Sequence[Any],
    graph: Topology | Graph | Sequence[Topology],
    *,
    rounds: int | None = None,
    tol: float | None = None,
    alive: Array | None = None,
    channel: Channel | Stage | None = None,
    generator: torch.Generator | None = None,
    feature_dims: int = 0,
) -> ConsensusResult:
    """Repeat a protocol's rounds, ``rounds`` times or until all agree to ``tol``.

    With ``rounds`` alone the rounds are done whatever comes of it (smoothing). With ``tol`` the protocol first
    refuses graphs on which it cannot converge, and stops at the first round after which both the disagreement and the
    last change are at most ``tol`` in every sample (reading that waits for the device); ``rounds`` is then the limit.

    O(rounds) times what a round costs, which the protocols state, and their published sources; beside that O(N D) a
    round for a tolerance and what the channel costs.

    Args:
        protocol: What to do each round.
        x: ``[*, N]``, or ``[*, N, D]`` with ``feature_dims=1``: what each agent holds; truth values become 0 and 1.
        graph: Who hears whom; a sequence is a graph that changes, used in turn.
        rounds: How many rounds, or at most how many with ``tol`` (100,000 if not given).
        tol: Absolute tolerance.
        alive: ``[*, N]`` bool; a dead agent takes part in nothing, as if its links did not exist.
        channel: What messages pass through, and who counts them. Every protocol but those of perfect links stands
            losses (``Drop``, ``Partition``, ``Budget``); those with a :meth:`Consensus.hear` of their own also stand
            messages that are changed or late (``Noise``, ``Quantise``, ``Delay``). Made for one such fault, with
            a guarantee: :class:`Gossip` with ``quantised`` and :class:`Delayed`.
        generator: Source of all random draws.
        feature_dims: 0 for scalars, 1 for features.

    Returns:
        The end of the run; value in the shape and on the device of ``x``.

    Raises:
        ValueError: If neither ``rounds`` nor ``tol`` is given, shapes do not fit, or the protocol refuses the graph.

    >>> from coordination.consensus import Averaging
    >>> run(Averaging(), [1.0, 2.0, 6.0], Topology([[0, 1, 1, 2], [1, 0, 2, 1]], 3), tol=1e-5).value
    tensor([3.0000, 3.0000, 3.0000])
    """
    if rounds is None and tol is None:
        raise ValueError("run: give rounds, tol, or both")
    if (rounds is not None and rounds < 0) or (tol is not None and tol < 0):
        raise ValueError(f"run: rounds and tol must not be negative, got {rounds} and {tol}")
    given, graphs = _inputs(protocol, x, graph, feature_dims)
    start = given
    if alive is not None:
        alive = torch.as_tensor(alive, device=given.device).bool().expand(given.shape[:-1])
        start = torch.where(alive.unsqueeze(-1), given, torch.zeros_like(given))
        graphs: list[Topology | Graph] = [_living(g, alive) for g in graphs]
    if tol is not None:
        _check(protocol, graphs, start, alive)
    state = protocol.init(start, graphs[0])
    links = _Links(channel, generator)
    state, done, converged = _repeat(protocol, state, graphs, rounds, tol, alive, links)
    value = protocol.value(state)
    residual = disagreement(value, alive)
    if alive is not None:
        value = torch.where(alive.unsqueeze(-1), value, given.to(value.dtype))
    value = value.squeeze(-1) if feature_dims == 0 else value
    return ConsensusResult(value.contiguous(), done, residual, converged, state, links.ledger)


class _Links:
    """A channel, its state, and the generator: does each round over it."""

    def __init__(self, channel: Channel | Stage | None, generator: torch.Generator | None) -> None:
        self.channel = Channel(channel) if isinstance(channel, Stage) else channel
        self.generator = generator
        self.state = None
        stages = () if self.channel is None else self.channel.stages
        self.true = not any(isinstance(stage, Noise | Quantise | Delay) for stage in stages)

    @property
    def ledger(self) -> Ledger | None:
        return None if self.state is None else self.state.ledger

    def step(self, protocol: Consensus[Any], state: Any, graph: Topology | Graph) -> Any:
        if self.channel is None:
            return protocol.step(state, graph, None, self.generator)
        sent = protocol.message(state)
        bits = 8 * sent.element_size() * sent.shape[-1]
        inbox, self.state, _ = self.channel.send(
            as_float(sent), as_graph(graph), self.state, generator=self.generator, bits=bits
        )
        if self.true:
            return protocol.step(state, graph, inbox.arrived, self.generator)
        return protocol.hear(state, graph, inbox)


def _inputs(
    protocol: Consensus[Any], x: Tensor | np.ndarray | Sequence[Any], graph: Any, feature_dims: int
) -> tuple[Tensor, list[Topology | Graph]]:
    """Values as ``[*, N, D]`` and the graphs as a list, checked against each other."""
    if feature_dims not in (0, 1):
        raise ValueError(f"feature_dims: 0 for [*, N] or 1 for [*, N, D], got {feature_dims}")
    values = torch.as_tensor(x)
    values = values.long() if values.dtype == torch.bool else values
    if values.ndim < 1 + feature_dims:
        raise ValueError(f"x: expected {'[*, N]' if feature_dims == 0 else '[*, N, D]'}, got {tuple(values.shape)}")
    shape = tuple(values.shape)
    values = values.unsqueeze(-1) if feature_dims == 0 else values
    graphs = list(graph) if isinstance(graph, list | tuple) else [graph]
    for g in graphs:
        if not isinstance(g, Topology | Graph):
            raise TypeError(f"graph: expected a Topology, a Graph or a sequence of them, got {type(g).__name__}")
        if g.num_agents != values.shape[-2]:
            raise ValueError(f"x: expected {g.num_agents} agents on axis {-1 - feature_dims}, got {shape}")
        if isinstance(g, Graph) and g.weight is not None:
            raise ValueError("graph: its link weights would be ignored; pass them as weights of the protocol")
    if not graphs:
        raise ValueError("graph: got an empty sequence")
    if protocol.fixed_graph and len(graphs) > 1:
        name = type(protocol).__name__
        raise ValueError(f"{name}: its coefficients belong to one graph, got a sequence of {len(graphs)}")
    return values, graphs


def _living(graph: Topology | Graph, alive: Tensor) -> Graph:
    """The graph without the links of dead agents."""
    source, receiver = endpoints(graph, alive.device)
    if as_graph(graph).topology is not None:
        both = alive[..., source] & alive[..., receiver]
    else:
        last = alive.shape[-1] - 1
        both = alive.take_along_dim(source.clamp(max=last), -1) & alive.take_along_dim(receiver.clamp(max=last), -1)
    up = up_links(graph, None)
    return dataclasses.replace(as_graph(graph), live=both if up is None else both & up)


def _check(protocol: Consensus[Any], graphs: list[Topology | Graph], x: Tensor, alive: Tensor | None) -> None:
    """The protocol's own check; of a graph that changes, that its members together connect all agents."""
    batch = x.shape[:-2].numel()
    living = None if alive is None else alive.reshape(batch, -1)
    if len(graphs) == 1:
        protocol.check(graphs[0], batch, living)
    elif not same_component(graphs, batch, living):
        raise ValueError(f"{type(protocol).__name__}: the graphs together do not connect all agents")


def _repeat(
    protocol: Consensus[Any],
    state: Any,
    graphs: list[Topology | Graph],
    rounds: int | None,
    tol: float | None,
    alive: Tensor | None,
    links: _Links,
) -> tuple[Any, int, Tensor | None]:
    """Steps until the rounds are done or the tolerance is met."""
    limit = MAX_ROUNDS if rounds is None else rounds
    last = None if tol is None else protocol.value(state)
    converged = None if last is None else last.new_zeros(last.shape[:-2], dtype=torch.bool)
    for done in range(limit):
        graph = graphs[done % len(graphs)]
        state = links.step(protocol, state, graph)
        if tol is None or last is None:
            continue
        value = protocol.value(state)
        spread = disagreement(value, alive)
        if bool(spread.isnan().any()):
            raise ValueError(f"{type(protocol).__name__}: values stopped being finite in round {done + 1}")
        change = (value - last).abs() if alive is None else (value - last).abs() * alive.unsqueeze(-1)
        converged = (spread <= tol) & (change.flatten(-2).amax(-1) <= tol)
        last = value
        if bool(converged.all()):
            return state, done + 1, converged
    return state, limit, converged
