"""Policies whose agents talk, and views for them: what the tests of learned communication share."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from coordination.graph import Graph
from coordination.topology import Topology
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec
from marl.networks.build import build_policy
from marl.networks.config import CriticConfig, NetworkConfig
from marl.networks.messaging.config import (
    BudgetConfig,
    ChannelConfig,
    CommNetConfig,
    DelayConfig,
    DropConfig,
    IC3NetConfig,
    MessagingConfig,
    NoiseConfig,
    QuantiseConfig,
    TarMACConfig,
)
from marl.networks.policy import Policy

N, STEPS, COPIES, WIDTH, H = 5, 6, 4, 3, 8
LINKS = [[0, 1, 2, 3, 4, 0, 2, 4], [1, 2, 3, 4, 0, 2, 4, 1]]
NEIGHBOURS = [[j for j, i in zip(*LINKS, strict=True) if i == agent] for agent in range(N)]

EVERYTHING = ChannelConfig(
    quantise=QuantiseConfig(bits=5, dither=True),
    budget=BudgetConfig(rate=60, burst=120),
    noise=NoiseConfig(std=0.2),
    drop=DropConfig(loss=0.3, burst=2),
    delay=DelayConfig(steps=1, jitter=1),
)
LOSSY = ChannelConfig(noise=NoiseConfig(std=0.2), drop=DropConfig(loss=0.3))
BODIES: dict[str, MessagingConfig] = {
    "commnet": CommNetConfig(hidden=H, rounds=2),
    "recurrent": CommNetConfig(hidden=H, rounds=2, recurrent=True, message_dim=4),
    "ic3net": IC3NetConfig(hidden=H, rounds=2),
    "tarmac": TarMACConfig(hidden=H, rounds=2, message_dim=6, signature_dim=3),
}
CHANNELS = {"none": None, "counted": ChannelConfig(), "lossy": LOSSY, "everything": EVERYTHING}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spec(n: int = N) -> AgentSpec:
    return AgentSpec.single(n, ObservationSpec.flat(WIDTH), ActionSpec.discrete(3))


def config(body: MessagingConfig, channel: ChannelConfig | None = None, **more: object) -> NetworkConfig:
    policy = body.model_copy(update={"channel": channel})
    return NetworkConfig(policy=policy, **({"critic": CriticConfig(name="central")} | more))  # type: ignore[arg-type]


def make(body: str, channel: str = "none", **more: object) -> Policy:
    return build_policy(config(BODIES[body], CHANNELS[channel], **more), spec(), seeded())


def views(lead: tuple[int, ...] = (STEPS, COPIES), alive: Tensor | None = None, links: list | None = None) -> View:
    obs = torch.randn(*lead, N, WIDTH, generator=seeded(1))
    alive = torch.ones(*lead, N, dtype=torch.bool) if alive is None else alive
    return View(obs, alive, Graph(topology=Topology(LINKS if links is None else links, N)))


def moving(view: View) -> View:
    """Every sample with links of its own."""
    up = torch.rand(*view.alive.shape, N, generator=seeded(7)) < 0.5
    up = up & ~torch.eye(N, dtype=torch.bool)
    pairs = torch.cartesian_prod(torch.arange(N), torch.arange(N)).T  # sender, receiver
    edges = torch.where(up.transpose(-1, -2).flatten(-2).unsqueeze(-2), pairs, N)
    return replace(view, graph=Graph.from_edges(edges, N))


NEVER = torch.zeros(STEPS, COPIES, dtype=torch.bool)
