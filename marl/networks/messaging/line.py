"""Line: coordination's channel for the messages of agents, its memory laid out as columns of what agents remember."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from coordination.channel import Budget, Channel, ChannelState, Delay, Drop, Inbox, Keyed, Ledger, Noise, Quantise
from coordination.graph import Graph
from coordination.links import endpoints
from coordination.topology import Topology
from marl.networks.messaging.config import ChannelConfig

EVERYONE_UP_TO = 64  # above this a place for every other agent would be too much memory
FLOW = ("sent", "delivered", "dropped", "withheld")  # counts of messages, by sender


def build_channel(config: ChannelConfig) -> Channel:
    """The stages of a configuration: quantise, budget, noise, drop, delay."""
    given = {
        Quantise: config.quantise,
        Budget: config.budget,
        Noise: config.noise,
        Drop: config.drop,
        Delay: config.delay,
    }
    return Channel(*(stage(**settings.model_dump()) for stage, settings in given.items() if settings is not None))


class Field(NamedTuple):
    """One state tensor of a stage: whose it is, its other axes, and the number it starts with.

    Attributes:
        stage, name: Where in the channel's state.
        owner: Who has one.
        axis: Of the links, from behind.
        shape: Axes beside that of the owners.
        blank: What it is before the first step.
        dtype: As the stage wants it.
    """

    stage: str
    name: str
    owner: Literal["link", "agent", "sample"]
    axis: int
    shape: torch.Size
    blank: float
    dtype: torch.dtype

    def restored(self, x: Tensor) -> Tensor:
        """The stage's tensor out of ``x [*, owners, width]``."""
        x = (x + self.blank).to(self.dtype)
        return x.unflatten(-1, self.shape).movedim(x.ndim - 2, self.axis) if self.shape else x.squeeze(-1)

    def stored(self, x: Tensor, lead: int) -> Tensor:
        """``[*, owners, width]`` of the stage's tensor, behind ``lead`` axes."""
        x = x.movedim(self.axis, lead) if self.shape else x.unsqueeze(-1)
        return x.flatten(lead + 1).to(torch.float32) - self.blank


class Line:
    """A channel whose state between two steps is one row of numbers for each agent.

    What is remembered of a link lies with its receiver, in a place for each agent that it may hear. Everything is
    stored as its difference from a fresh start, so that zeros are one. Links of moving agents are followed from step to
    step as :class:`Channel` does.

    Args:
        config: Stages.
        num_agents: Number of agents N.
        message_dim: Width D of messages.

    Attributes:
        own_dim: Columns that go when their agent goes.
        sample_dim: Columns of the whole sample, the same in every row.

    Raises:
        ValueError: If a stage's arguments do not fit each other, no message could ever be paid for, or there are too
            many agents to remember something of every link.
    """

    def __init__(self, config: ChannelConfig, num_agents: int, message_dim: int) -> None:
        self.channel, self.num_agents = build_channel(config), num_agents
        pair = Graph(topology=Topology([[0], [1]], 2))
        fresh = self.channel.initial(torch.zeros(2, message_dim), pair).stages
        bits = torch.finfo(torch.float32).bits * message_dim
        for stage in self.channel.stages:
            bits = stage.size(bits, message_dim)  # refuses messages that could never be paid for
        fields = [
            _field(key, name, x, stage.edge_axis.get(name))
            for (key, state), stage in zip(fresh.items(), self.channel.stages, strict=True)
            for name, x in state.items()
        ]
        self.stages = list(fresh)
        self.links, self.agents, self.samples = (
            [f for f in fields if f.owner == owner] for owner in ("link", "agent", "sample")
        )
        self.places = _places(config.max_in_degree, num_agents, bool(self.links))
        who = [self.places] if self.links else []
        self.widths = [*who, *(self.places * f.shape.numel() for f in self.links), *(1 for _ in self.agents)]
        self.own_dim, self.sample_dim = sum(self.widths), len(self.samples)

    def send(
        self,
        message: Tensor,
        graph: Graph,
        alive: Tensor,
        memory: tuple[Tensor, Tensor],
        gate: Tensor | None,
        draws: Keyed,
    ) -> tuple[Inbox, tuple[Tensor, Tensor], Tensor]:
        """One round of messages.

        Args:
            message: ``[*, N, D]``.
            graph: Who can be heard.
            alive: ``[*, N]`` bool.
            memory: ``[*, N, own_dim]`` and ``[*, N, sample_dim]``; zeros for a fresh start.
            gate: ``[*, N]`` bool: who speaks; None for everyone.
            draws: Keyed by link, ``[*, E]``.

        Returns:
            What arrives, what is remembered next, and by sender bits and counts (:data:`FLOW`), ``[*, N, 5]``.
        """
        slots = self._slots(graph, message.device) if self.links else None
        state = self._state(graph, memory, slots)
        inbox, after, flow = self.channel.send(message, graph, state, gate, draws, alive=alive)
        if graph.topology is not None:
            flow = flow.per_agent(graph)
        counts = [flow.sent[..., 1], *(getattr(flow, name)[..., 0] for name in FLOW)]
        return inbox, self._memory(graph, after, slots), torch.stack(counts, -1).to(message.dtype)

    def _slots(self, graph: Graph, device: torch.device) -> Tensor:
        """``[E]`` or ``[*, E]``: each edge's place among those of all receivers; the last for padding."""
        _, receiver = endpoints(graph, device)
        first = graph.row_start if graph.topology is None else graph.topology.row_start
        assert first is not None
        if first.device.type == "cpu":  # elsewhere asking would wait for the device: links without a place begin anew
            most = int(first.diff().max())
            if most > self.places:
                raise ValueError(
                    f"channel.max_in_degree: an agent hears {most} others, there is room for {self.places}; raise it"
                )
        first = first if graph.topology is None else graph.topology.row_start_on(device)
        rank = torch.arange(receiver.shape[-1], device=device) - first.gather(-1, receiver)
        there = (receiver < self.num_agents) & (rank < self.places)
        return torch.where(there, receiver * self.places + rank, self.num_agents * self.places)

    def _state(self, graph: Graph, memory: tuple[Tensor, Tensor], slots: Tensor | None) -> ChannelState:
        """The channel's state out of the agents' memory."""
        own, sample = memory
        lead, edges = own.shape[:-2], None
        parts = list(own.split(self.widths, -1)) if self.widths else []
        links = [x.reshape(*lead, self.num_agents * self.places, -1) for x in parts[: -len(self.agents) or None]]
        if links and graph.topology is None:
            edges = self._edges(links[0].squeeze(-1).long())
        elif links:
            assert slots is not None
            links = [x.index_select(-2, slots) for x in links]
        found = [*links[1:], *parts[len(links) :], *(sample[..., :1, i : i + 1] for i in range(self.sample_dim))]
        stages: dict[str, dict[str, Tensor]] = {key: {} for key in self.stages}
        for field, x in zip([*self.links, *self.agents, *self.samples], found, strict=True):
            stages[field.stage][field.name] = field.restored(x)
        size = graph.num_agents if graph.topology is None else graph.topology.num_edges
        step = torch.zeros(lead, dtype=torch.long, device=own.device)
        return ChannelState(step, Ledger.zeros(tuple(lead), size, own.device), stages, edges, graph.topology)

    def _memory(self, graph: Graph, state: ChannelState, slots: Tensor | None) -> tuple[Tensor, Tensor]:
        """Inverse of :meth:`_state`."""
        lead = state.step.shape
        device = state.step.device

        def stored(fields: list[Field]) -> list[Tensor]:
            return [f.stored(state.stages[f.stage][f.name], len(lead)) for f in fields]

        own: list[Tensor] = []
        if slots is not None:
            sender, _ = endpoints(graph, device)
            who = (sender + 1).to(torch.float32).expand(*lead, -1).unsqueeze(-1)
            for x in (who, *stored(self.links)):
                room = x.new_zeros(*lead, self.num_agents * self.places + 1, x.shape[-1])
                place = slots.expand(x.shape[:-1]).unsqueeze(-1).expand_as(x)
                own.append(room.scatter(-2, place, x)[..., :-1, :].reshape(*lead, self.num_agents, -1))
        own += stored(self.agents)
        sample = [x.expand(*lead, self.num_agents, 1) for x in stored(self.samples)]
        blank = torch.zeros(*lead, self.num_agents, 0, device=device)
        return torch.cat([*own, blank], -1), torch.cat([*sample, blank], -1)

    def _edges(self, who: Tensor) -> Tensor:
        """``[*, 2, N * places]`` links of the last step out of whom each place held, 0 for nobody."""
        place = torch.arange(self.num_agents, device=who.device).repeat_interleave(self.places)
        there = who > 0
        return torch.where(there.unsqueeze(-2), torch.stack([who - 1, place.expand_as(who)], -2), self.num_agents)


def _field(stage: str, name: str, x: Tensor, axis: int | None) -> Field:
    """What a stage keeps between two agents that share one link says whose it is."""
    blank = float(x.flatten()[0])
    if bool((x != blank).any()):
        raise TypeError(f"channel: the state {name!r} of {stage} does not start with one number")
    if axis is None:
        return Field(stage, name, "sample" if x.shape[-1] == 1 else "agent", -1, torch.Size(()), blank, x.dtype)
    shape = list(x.shape)
    shape.pop(axis)
    return Field(stage, name, "link", axis, torch.Size(shape), blank, x.dtype)


def _places(given: int | None, num_agents: int, needed: bool) -> int:
    """Links that each agent has room for."""
    if not needed:
        if given is not None:
            raise ValueError("channel.max_in_degree: no stage remembers anything of links; leave it out")
        return 0
    if given is None and num_agents > EVERYONE_UP_TO:
        raise ValueError(
            f"channel.max_in_degree: say how many of {num_agents} agents each hears at most, such as 8 for knn:8; "
            "delays, bursts of loss and budgets per edge are remembered for every link"
        )
    return max(1, min(num_agents - 1, num_agents if given is None else given))
