"""Messenger: a protocol of learned communication as the body of a policy, with all it must remember in one row each."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from coordination.channel.draws import mix
from envs.base import View
from marl.networks.messaging.config import ChannelConfig
from marl.networks.messaging.line import Line
from marl.networks.messaging.wire import COUNTS, Wire
from marl.networks.trunk import Remembering

HALF = 24  # bits of a whole number that a float32 column holds exactly, as a fraction of 2^24
MASK = (1 << 2 * HALF) - 1
FACTOR, STEP = 25214903917, 11  # of the linear congruence modulo 2^48 that is drand48


class Communication(Protocol):
    """What agents say to each other and make of it.

    Attributes:
        out_dim: Width H of the encodings.
        state_dim: Width of what an agent itself remembers.
        message_dim: Width D of messages.
        rounds: Rounds of messages in a step.
        gated: Whether agents draw whether to speak.
    """

    out_dim: int
    state_dim: int
    message_dim: int
    rounds: int
    gated: bool

    def __call__(self, x: Tensor, state: Tensor, wire: Wire) -> tuple[Tensor, Tensor]:
        """One step: inputs ``[*, N, I]`` and what is remembered ``[*, N, S]`` to ``[*, N, H]`` and the next memory."""
        ...


class Forgetful(nn.Module):
    """A protocol over perfect links that remembers nothing: a body like any other.

    Args:
        protocol: What is said and made of it.
    """

    def __init__(self, protocol: Communication) -> None:
        super().__init__()
        self.protocol, self.out_dim = protocol, protocol.out_dim

    def forward(self, x: Tensor, view: View) -> Tensor:
        """Encode ``x [*, N, I]`` over ``view.graph``."""
        return self.protocol(x, x[..., :0], Wire(view))[0]


class Messenger(Remembering):
    """A protocol that remembers, over perfect links or through a channel.

    A row of what agents remember holds, in this order, what goes with the agent (the protocol's state, and of every
    round's line what lies on the agent and on the links into it), what goes with the episode (of every round's line),
    and what stays: the traffic of the last step, and a seed. All draws of a step are functions of the seeds, which
    move on with every step. So whoever begins with the same rows hears the same noise and suffers the same losses: a
    learner that replays a rollout from its first rows finds the log-probabilities of its actions again, whatever
    minibatch they stand in. Newborns begin with a blank row; seeds outlive the agents.

    Args:
        protocol: What is said and made of it.
        num_agents: Number of agents N.
        channel: What happens to messages on their way; None for perfect links.
    """

    def __init__(self, protocol: Communication, num_agents: int, channel: ChannelConfig | None = None) -> None:
        super().__init__()
        self.protocol, self.out_dim = protocol, protocol.out_dim
        self.line = None if channel is None else Line(channel, num_agents, protocol.message_dim)
        own, sample = (0, 0) if self.line is None else (self.line.own_dim, self.line.sample_dim)
        self.own = [protocol.state_dim, *(own for _ in range(protocol.rounds))]
        self.draws = protocol.gated or self.line is not None
        kept = len(COUNTS) + 1 + 2 if self.draws else 0
        self.widths = [sum(self.own), protocol.rounds * sample, kept]
        self.state_dim, self.content_dim = sum(self.widths), protocol.state_dim

    def forward(self, x: Tensor, view: View, hidden: Tensor, forget: Tensor) -> tuple[Tensor, Tensor]:
        """One step; arguments as in :class:`Remembering`."""
        own, sample, kept = hidden.split(self.widths, -1)
        own = torch.where(forget.unsqueeze(-1), 0.0, own)
        sample = torch.where(forget.all(-1)[..., None, None], 0.0, sample)
        state, *links = own.split(self.own, -1)
        key = _following(kept[..., -2:]) if self.draws else None
        shared = sample.tensor_split(self.protocol.rounds, -1)
        wire = Wire(view, key, self.line, list(zip(links, shared, strict=True)))
        h, state = self.protocol(x, state, wire)
        links, shared = zip(*wire.memory, strict=True)
        own = torch.where(view.alive.unsqueeze(-1), torch.cat([state, *links], -1), 0.0)
        rest = [] if key is None else [wire.counts / (1 << HALF), _columns(key)]
        return h, torch.cat([own, *shared, *rest], -1)

    def initial(
        self, shape: torch.Size | tuple[int, ...], device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Blank rows ``[*, N, S]``, each with a seed of its own."""
        rows = torch.zeros(*shape, self.state_dim, device=device)
        if self.draws:
            root: Tensor | int = 0
            if generator is not None:
                root = torch.randint(1 << 2 * HALF, (), generator=generator, device=generator.device).to(device)
            seeds = mix(root + torch.arange(rows[..., 0].numel(), device=device)) & MASK
            rows[..., -2:] = _columns(seeds.reshape(rows.shape[:-1]))
        return rows

    def traffic(self, hidden: Tensor, alive: Tensor) -> dict[str, Tensor]:
        """Per living agent and step, bits and messages sent and the share of open gates; shares of messages."""
        if not self.draws:
            return {}
        first = sum(self.widths[:2])
        totals = hidden[..., first : first + len(COUNTS) + 1].flatten(0, -2).sum(0) * (1 << HALF)
        bits, sent, delivered, dropped, withheld, spoke = totals
        living = alive.sum().clamp(min=1)
        found = {"speaking": spoke / living} if self.protocol.gated else {}
        if self.line is None:
            return found
        return found | {
            "bits": bits / living,
            "sent": sent / living,
            "delivered": delivered / sent.clamp(min=1),
            "dropped": dropped / sent.clamp(min=1),
            "withheld": withheld / (sent + withheld).clamp(min=1),
        }


def _following(columns: Tensor) -> Tensor:
    """``[*, N]`` int64 seeds of this step, out of those of the last."""
    low, high = (columns * (1 << HALF)).long().unbind(-1)
    return ((high << HALF | low) * FACTOR + STEP) & MASK


def _columns(seed: Tensor) -> Tensor:
    """``[*, N, 2]`` float32: the two halves of 48 bits, each as a fraction."""
    return torch.stack([seed & ((1 << HALF) - 1), seed >> HALF], -1).to(torch.float32) / (1 << HALF)
