"""Wire: the messages of one step: what is sent round by round, through a line or perfectly, and what is heard of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from coordination.channel import Inbox, Keyed
from coordination.channel.draws import pair_key
from coordination.channel.ledger import sum_by
from coordination.gather import neighbour_count, neighbour_mean
from coordination.graph import Graph
from coordination.links import at_ends, endpoints
from envs.base import View
from marl.networks.messaging.line import FLOW, Line

COUNTS = ("bits", *FLOW)


class Heard(NamedTuple):
    """What reaches the agents in one round.

    Attributes:
        message: ``[*, N, D]`` what each said, times its gate.
        graph: Who hears whom.
        alive: ``[*, N]`` bool.
        inbox: What arrived over the links; None where they are perfect.
        held: ``[*, N, D]`` what closed gates held back: zeros that carry the gradient of opening them; None without.
    """

    message: Tensor
    graph: Graph
    alive: Tensor
    inbox: Inbox | None = None
    held: Tensor | None = None

    def mean(self) -> Tensor:
        """``[*, N, D]`` sum of what arrives over the number of living neighbours: who is not heard counts as zeros."""
        if self.inbox is None:
            return neighbour_mean(self.message, self.graph, self.alive)
        inbox, weight = self.inbox, self.graph.weight
        if weight is not None:
            inbox = Inbox(inbox.value * weight.unsqueeze(-1), inbox.arrived, inbox.age)
        count = neighbour_count(self.message, self.graph, self.alive)
        heard = inbox.sum(self.graph) / torch.where(count == 0, 1.0, count)
        return heard if self.held is None else heard + neighbour_mean(self.held, self.graph, self.alive)

    def attend(self, query: Tensor) -> Tensor:
        """``[*, N, D - d]`` attention of ``query [*, N, d]`` over what arrives and one's own message.

        ``y_i = sum_j softmax_j(q_i . k_j / sqrt(d)) v_j``; the first d numbers of message j are k_j, the others v_j.
        """
        dim, inbox = query.shape[-1], _perfect(self) if self.inbox is None else self.inbox
        _, receiver = endpoints(self.graph, query.device)
        query = query / dim**0.5
        own = (query * self.message[..., :dim]).sum(-1)  # [*, N]
        score = (at_ends(query, self.graph, "receiver", 1) * inbox.value[..., :dim]).sum(-1)  # [*, E]
        score = score.masked_fill(~inbox.arrived, -torch.inf)
        sink = own.new_zeros(*own.shape[:-1], 1)
        index = receiver.expand_as(score)
        top = torch.cat([own, sink], -1).detach().scatter_reduce(-1, index, score.detach(), "amax")
        own, score = (own - top[..., :-1]).exp(), (score - top.gather(-1, index)).exp()
        total = own + sum_by(score, receiver, own.shape[-1])
        said = Inbox(score.unsqueeze(-1) * inbox.value[..., dim:], inbox.arrived, inbox.age)
        return (said.sum(self.graph) + own.unsqueeze(-1) * self.message[..., dim:]) / total.unsqueeze(-1)


def _perfect(heard: Heard) -> Inbox:
    """Every message of a living agent at every living neighbour whose link is up."""
    arrived = at_ends(heard.alive, heard.graph, "sender") & at_ends(heard.alive, heard.graph, "receiver")
    up = heard.graph.up()
    arrived = arrived if up is None else arrived & up
    value = at_ends(heard.message, heard.graph, "sender", 1)
    return Inbox(torch.where(arrived.unsqueeze(-1), value, 0.0), arrived, torch.zeros_like(arrived, dtype=torch.long))


class Wire:
    """One step's exchange of messages.

    Args:
        view: Who lives, and who hears whom.
        key: ``[*, N]`` int64: seeds of this step's draws; None where nothing is drawn.
        line: What messages go through; None for perfect links.
        memory: What is remembered of the line, for each round ``[*, N, own]`` and ``[*, N, sample]``.

    Attributes:
        memory: The same, after the rounds so far.
        counts: ``[*, N, 6]`` bits and messages by sender (:data:`COUNTS`), and gates that were open.
    """

    def __init__(
        self,
        view: View,
        key: Tensor | None = None,
        line: Line | None = None,
        memory: list[tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.graph, self.alive, self.key, self.line = view.graph, view.alive, key, line
        self.memory = memory or []
        self.counts = torch.zeros(*view.alive.shape, len(COUNTS) + 1, device=view.alive.device)
        self.rounds = 0
        self._draws: Keyed | None = None

    def gate(self, logit: Tensor, temperature: float) -> Tensor:
        """Draw who speaks: 1 or 0, ``[*, N, 1]``, with the gradient of its relaxation (straight through).

        ``sigmoid((logit + logistic noise) / temperature)`` over one half or not (Maddison et al. 2017,
        arXiv:1611.00712; Jang et al. 2017, arXiv:1611.01144): 1 with probability ``sigmoid(logit)``.

        Args:
            logit: ``[*, N, 1]``.
            temperature: Of the relaxation.
        """
        assert self.key is not None
        share = Keyed(self.key).uniform(logit.shape, logit.dtype)
        soft = torch.sigmoid((logit + share.logit()) / temperature)
        hard = (soft > 0.5).to(soft.dtype)
        self.counts[..., -1:] = torch.where(self.alive.unsqueeze(-1), hard, 0.0)
        return hard + (soft - soft.detach())

    def send(self, message: Tensor, gate: Tensor | None = None) -> Heard:
        """One round: every living agent says ``message [*, N, D]``, if its ``gate [*, N, 1]`` is open."""
        said = message if gate is None else gate * message
        if self.line is None:
            return Heard(said, self.graph, self.alive)
        speaks = None if gate is None else gate.detach() > 0.5
        memory = self.memory[self.rounds]
        inbox, self.memory[self.rounds], counts = self.line.send(
            said, self.graph, self.alive, memory, None if speaks is None else speaks.squeeze(-1), self._of_links()
        )
        self.counts[..., :-1] += counts
        self.rounds += 1
        held = None if speaks is None or not said.requires_grad else torch.where(speaks, 0.0, said)
        return Heard(said, self.graph, self.alive, inbox, held)

    def _of_links(self) -> Keyed:
        """Draws of this step's links: functions of the seeds of their two agents, whatever the agents are called."""
        if self._draws is None:
            assert self.key is not None
            ends = (at_ends(self.key, self.graph, side) for side in ("receiver", "sender"))
            self._draws = Keyed(pair_key(*ends))
        return self._draws
