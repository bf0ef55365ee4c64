"""Channel: what happens to messages between sender and receiver, stage by stage, with all state in the open.

A channel is a chain of stages. Those at the *sender* (:class:`Quantise`, :class:`Budget`) decide what is sent and how
many bits it takes; those on the *link* (:class:`Noise`, :class:`Drop`, :class:`Delay`, :class:`Partition`) decide what
becomes of it. Values stay differentiable from inbox to message, through time where messages are delayed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from coordination import tree
from coordination.arrays import Array
from coordination.channel.draws import Source
from coordination.channel.ledger import Ledger, pairs_by
from coordination.channel.packet import Inbox, Packet
from coordination.graph import Graph
from coordination.links import as_graph, at_ends, endpoints, follow
from coordination.topology import Topology


@tree.struct
class ChannelState:
    """Everything a channel remembers, explicit and per sample.

    ``tree.where(start, channel.initial(message, graph), state)`` starts some samples anew.

    Attributes:
        step: ``[*]`` int64 steps since the start.
        ledger: All traffic since the start.
        stages: State tensors of each stage, by its place and name.
        edges: ``[*, 2, E]`` edges of the last step where every sample has its own, else None.
        topology: The edges the state belongs to where all samples share them, else None.
    """

    step: Tensor = tree.axes("")
    ledger: Ledger = tree.axes("")
    stages: dict[str, dict[str, Tensor]] = tree.axes("", default_factory=dict)
    edges: Tensor | None = tree.axes("2 E", default=None)
    topology: Topology | None = tree.shared(default=None)


class Stage(ABC):
    """One thing that happens to messages; stages and channels compose with ``|``.

    Attributes:
        side: ``sender`` stages stand before ``link`` stages in a channel: what they hold back was never sent.
        edge_axis: For each state tensor that has one, the (negative) axis that runs over edges.
    """

    side: ClassVar[Literal["sender", "link"]] = "link"
    edge_axis: ClassVar[dict[str, int]] = {}

    def initial(self, packet: Packet, graph: Graph) -> dict[str, Tensor]:
        """State before the first step, shaped like ``packet``; none by default."""
        return {}

    def size(self, bits: int, dim: int) -> int:
        """Bits of a message of D numbers after this stage, given its size before."""
        return bits

    def in_flight(self, state: dict[str, Tensor]) -> Tensor | None:
        """``[*, E, 2]`` messages and bits that the stage holds; None if it never holds any."""
        return None

    @abstractmethod
    def apply(
        self,
        packet: Packet,
        state: dict[str, Tensor],
        graph: Graph,
        step: Tensor,
        generator: Source | None,
    ) -> tuple[Packet, dict[str, Tensor], Tensor]:
        """One step: what goes on, the new state, and ``[*, E, 2]`` messages and bits lost (sender: withheld)."""

    def __or__(self, other: Stage | Channel) -> Channel:
        return Channel(self) | other

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_") and v is not None)
        return f"{type(self).__name__}({shown})"


class Channel:
    """Stages one after the other; without any, a perfect channel.

    Raises:
        TypeError: If something is no stage.
        ValueError: If a sender stage stands behind a link stage.

    >>> from coordination.channel import Drop, Quantise
    >>> Channel(Drop(0.5), Quantise(4))
    Traceback (most recent call last):
    ValueError: channel: Quantise acts at the sender, put it before Drop
    """

    def __init__(self, *stages: Stage) -> None:
        on_link = None
        for stage in stages:
            if not isinstance(stage, Stage):
                raise TypeError(f"channel: expected stages such as Drop(0.1), got {stage!r}")
            if stage.side == "link":
                on_link = on_link or stage
            elif on_link is not None:
                name, first = type(stage).__name__, type(on_link).__name__
                raise ValueError(f"channel: {name} acts at the sender, put it before {first}")
        self.stages = stages

    def __repr__(self) -> str:
        return f"Channel({' | '.join(map(repr, self.stages))})"

    def __or__(self, other: Stage | Channel) -> Channel:
        return Channel(*self.stages, *(other.stages if isinstance(other, Channel) else (other,)))

    def initial(self, message: Tensor, graph: Graph, per_edge: bool = False) -> ChannelState:
        """State before the first step, for messages of the shape of ``message``; arguments as in :meth:`send`."""
        packet = tree.map(torch.zeros_like, self._enter(message, graph, None, None, per_edge, 0))
        lead, size = packet.present.shape[:-1], packet.present.shape[-1]
        if graph.topology is None:
            size = graph.num_agents
        return ChannelState(
            step=torch.zeros(lead, dtype=torch.long, device=message.device),
            ledger=Ledger.zeros(tuple(lead), size, message.device),
            stages={key: stage.initial(packet, graph) for key, stage in self._named()},
            edges=graph.edges,
            topology=graph.topology,
        )

    def send(
        self,
        message: Array,
        graph: Topology | Graph,
        state: ChannelState | None = None,
        gate: Array | None = None,
        generator: Source | None = None,
        *,
        alive: Array | None = None,
        bits: int | None = None,
        per_edge: bool = False,
    ) -> tuple[Inbox, ChannelState, Ledger]:
        """One step of the channel.

        Args:
            message: ``[*, N, D]`` one message per agent, sent over every edge that leaves it; with ``per_edge``,
                ``[*, E, D]`` one per edge.
            graph: Who can be heard by whom now. Links that are down (``live``) and padded edges carry nothing, and
                nothing counts as sent on them. Where every sample has edges of its own, a link is followed from step to
                step by its two agents; what is in flight on a link that vanishes is dropped.
            state: From the last step; None for a fresh start.
            gate: ``[*, N]`` (``[*, E]`` with ``per_edge``) bool: who sends; None if everyone does.
            generator: For stages that draw; with :class:`Keyed` (keys ``[*, E]``) the same keys give the same draws.
            alive: ``[*, N]`` bool: dead agents send nothing, and what arrives at them is dropped; None if all live.
            bits: Size of a message before any quantiser; None for the width of its numbers (32 D for float32). A symbol
                out of a vocabulary of V takes ``ceil(log2 V)``, however it is encoded as a vector.
            per_edge: Whether ``message`` and ``gate`` are per edge.

        Returns:
            What arrives; the state after; and the ledger of this step alone (flows of this step, ``in_flight`` at its
            end). O(E D) time and memory, times the length of the longest delay.

        Raises:
            ValueError: If shapes do not fit each other or the state.
            TypeError: If the gate is not bool (multiply the message for a soft gate).

        >>> from coordination.channel import Delay
        >>> channel, graph = Channel(Delay(1)), Topology([[0, 1], [1, 0]], 2)
        >>> _, state, _ = channel.send(torch.tensor([[5.0], [7.0]]), graph)
        >>> channel.send(torch.zeros(2, 1), graph, state)[0].sum(graph).flatten().tolist()
        [7.0, 5.0]
        """
        message, graph = torch.as_tensor(message), as_graph(graph)
        gate, alive = (None if x is None else torch.as_tensor(x, device=message.device) for x in (gate, alive))
        packet = self._enter(message, graph, gate, alive, per_edge, bits)
        if state is None:
            state = self.initial(message, graph, per_edge)
        self._check_state(state, packet, graph)
        stages, held_before, carried = self._carry_over(state, packet, graph)
        entered = packet.count()
        withheld = dropped = torch.zeros_like(entered)
        after: dict[str, dict[str, Tensor]] = {}
        for key, stage in self._named():
            packet, after[key], lost = stage.apply(packet, stages[key], graph, state.step, generator)
            if stage.side == "sender":
                withheld = withheld + lost
            else:
                dropped = dropped + lost
        if alive is not None:
            hears = at_ends(alive, graph, "receiver")
            dropped = dropped + packet.count(~hears)
            packet = packet.keep(hears)
        arrived = packet.present
        age = torch.where(arrived, packet.age, 0)
        flow = Ledger(entered - withheld, packet.count(), dropped, withheld, self._held(after, entered), age)
        if graph.topology is None:  # by sender; what was on links that vanished is dropped
            flow = flow.by(endpoints(graph, message.device)[0], graph.num_agents)
            flow = replace(flow, dropped=flow.dropped + held_before - carried)
        following = ChannelState(state.step + 1, state.ledger.then(flow), after, graph.edges, graph.topology)
        return Inbox(packet.value, arrived, age), following, flow

    def _named(self) -> list[tuple[str, Stage]]:
        return [(f"{i}_{type(stage).__name__.lower()}", stage) for i, stage in enumerate(self.stages)]

    def _enter(
        self,
        message: Tensor,
        graph: Graph,
        gate: Tensor | None,
        alive: Tensor | None,
        per_edge: bool,
        bits: int | None,
    ) -> Packet:
        """The messages on their edges, before the first stage."""
        _check_message(message, graph, gate, alive, per_edge, bits)
        value = message if per_edge else at_ends(message, graph, "sender", 1)
        present = torch.ones(value.shape[:-1], dtype=torch.bool, device=value.device)
        for mask in (graph.up(), gate if per_edge or gate is None else at_ends(gate, graph, "sender")):
            present = present if mask is None else present & mask
        if alive is not None:
            present = present & at_ends(alive, graph, "sender") & at_ends(alive, graph, "receiver")
        each = torch.finfo(message.dtype).bits * message.shape[-1] if bits is None else bits
        for stage in self.stages:
            each = stage.size(each, message.shape[-1])
        size_of = torch.full_like(present, each, dtype=torch.long)
        return Packet(torch.where(present.unsqueeze(-1), value, 0.0), present, size_of, torch.zeros_like(size_of))

    def _check_state(self, state: ChannelState, packet: Packet, graph: Graph) -> None:
        size = packet.present.shape[-1] if graph.topology is not None else graph.num_agents
        expected = (*packet.present.shape[:-1], size, 2)
        found = tuple(state.ledger.sent.shape)
        wrong = (
            "batch or number of edges"
            if found != expected
            else "topology"
            if state.topology is not graph.topology
            else "channel"
            if list(state.stages) != [key for key, _ in self._named()]
            else None
        )
        if wrong:
            raise ValueError(
                f"state: made for another {wrong} (its ledger is {found}, expected {expected}); "
                f"start anew with channel.initial(message, graph)"
            )

    def _carry_over(
        self, state: ChannelState, packet: Packet, graph: Graph
    ) -> tuple[dict[str, dict[str, Tensor]], Tensor, Tensor]:
        """Stage states on the edges of now; and by sender, what was in flight before and what still is."""
        none = torch.zeros((), dtype=torch.long, device=packet.present.device)
        if graph.edges is None or state.edges is None or not any(stage.edge_axis for stage in self.stages):
            return state.stages, none, none
        n = graph.num_agents
        index, found = follow(state.edges, graph.edges, n)
        moved: dict[str, dict[str, Tensor]] = {}
        for key, stage in self._named():
            fresh = stage.initial(tree.map(torch.zeros_like, packet), graph)
            moved[key] = {
                name: _rearrange(x, fresh[name], index, found, stage.edge_axis[name]) if name in stage.edge_axis else x
                for name, x in state.stages[key].items()
            }
        counts = torch.zeros(*state.edges.shape[:-2], state.edges.shape[-1], 2, dtype=torch.long, device=none.device)
        before = pairs_by(self._held(state.stages, counts), state.edges[..., 0, :], n)
        after = pairs_by(self._held(moved, packet.count()), graph.edges[..., 0, :], n)
        return moved, before, after

    def _held(self, states: dict[str, dict[str, Tensor]], like: Tensor) -> Tensor:
        total = torch.zeros_like(like)
        for key, stage in self._named():
            held = stage.in_flight(states[key])
            total = total if held is None else total + held
        return total


def _check_message(
    message: Tensor, graph: Graph, gate: Tensor | None, alive: Tensor | None, per_edge: bool, bits: int | None
) -> None:
    """Refuse what does not fit each other; reads shapes only."""
    size = endpoints(graph, message.device)[0].shape[-1] if per_edge else graph.num_agents
    if message.ndim < 2 or message.shape[-2] != size or not message.is_floating_point():
        expected = f"float [*, {size} {'edges' if per_edge else 'agents'}, D]"
        raise ValueError(f"message: expected {expected}, got {message.dtype} {tuple(message.shape)}")
    lead = tuple(message.shape[:-2])
    for name, x, behind in (("edges", graph.edges, 2), ("live", graph.live, 1)):
        if x is not None and tuple(x.shape[:-behind]) not in ((lead,) if name == "edges" else (lead, ())):
            raise ValueError(f"graph: expected {name} with the leading axes of message {lead}, got {tuple(x.shape)}")
    if gate is not None and gate.dtype != torch.bool:
        raise TypeError(f"gate: expected bool, got {gate.dtype}; for a soft gate multiply the message")
    for name, mask, length in (("gate", gate, size), ("alive", alive, graph.num_agents)):
        if mask is not None and tuple(mask.shape) != (*lead, length):
            raise ValueError(f"{name}: expected {(*lead, length)}, got {tuple(mask.shape)}")
    if bits is not None and bits < 0:
        raise ValueError(f"bits: must not be negative, got {bits}")


def _rearrange(x: Tensor, fresh: Tensor, index: Tensor, found: Tensor, axis: int) -> Tensor:
    """State of links by their new places: ``x`` where the link was there before, else ``fresh``."""
    shape = list(fresh.shape)
    lead = index.ndim - 1
    view = [*index.shape[:lead], *[1] * (fresh.ndim + axis - lead), index.shape[-1], *[1] * (-1 - axis)]
    wide, there = index.reshape(view).expand(shape), found.reshape(view).expand(shape)
    if x.shape[axis] == 0:
        return fresh
    return torch.where(there, x.gather(fresh.ndim + axis, wide), fresh)
