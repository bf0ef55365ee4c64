"""What the tests of channels share: a ring, and a channel over time."""

from __future__ import annotations

import torch

from coordination.graph import Graph
from coordination.topology import Topology

RING = Topology([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]], 4)
SHARED = Graph(topology=RING)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def messages(steps, *shape, seed=0):
    return torch.randn(steps, *shape, generator=generator(seed))


def run(channel, graph, message, seed=0, **kwargs):
    """Everything a channel does to ``message [T, ...]``: inboxes, states and step ledgers, lists of T."""
    state, draws, seen = None, generator(seed), []
    for now in message:
        inbox, state, flow = channel.send(now, graph, state, generator=draws, **kwargs)
        seen.append((inbox, state, flow))
    return [list(x) for x in zip(*seen, strict=True)]
