"""Q-critics: own actions replaced one by one, in one pass; dead slots; order; and no gradient where none belongs."""

from __future__ import annotations

import pytest
import torch

from coordination.graph import Graph
from coordination.topology import Topology
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec
from marl.networks.build import build_q_critic
from marl.networks.config import CriticConfig, GraphConfig, MLPConfig, NetworkConfig

N, D, M = 4, 3, 5
KINDS = ["local", "central", "pooled", "graph"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spec(n: int = N, state: int | None = None) -> AgentSpec:
    return AgentSpec.single(n, ObservationSpec.flat(2), ActionSpec.discrete(D), state_dim=state)


def critic(kind: str, n: int = N, sharing: str = "all", state: int | None = None):
    body = GraphConfig(hidden=8, layers=2) if kind == "graph" else MLPConfig(hidden=(8, 8))
    name = "central" if kind == "pooled" else kind
    config = NetworkConfig(policy=body, critic=CriticConfig(name=name), sharing=sharing, identity="none")
    return build_q_critic(config, spec(n, state), D, seeded())


def scene(kind: str, seed: int = 1, alive: torch.Tensor | None = None) -> tuple[View, torch.Tensor, torch.Tensor]:
    """A view of enough agents for the kind, with what they did and what they would do."""
    n = 20 if kind == "pooled" else N
    ring = torch.arange(n)
    graph = Graph(topology=Topology(torch.stack([ring, (ring + 1) % n]), n))
    everyone = torch.ones(M, n, dtype=torch.bool)
    view = View(torch.randn(M, n, 2, generator=seeded(seed)), everyone if alive is None else alive, graph)
    action, own = (torch.rand(M, n, D, generator=seeded(seed + k)) for k in (1, 2))
    return view, action, own


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sharing", ["all", "none"])
def test_replacing_own_actions_at_once_equals_replacing_them_one_by_one(kind: str, sharing: str) -> None:
    view, action, own = scene(kind)
    n = view.alive.shape[-1]
    net = critic(kind, n, sharing)
    if kind == "graph":  # messages carry what was done, so a second hop still tells of the old own action: one hop here
        net = build_q_critic(
            NetworkConfig(
                policy=GraphConfig(hidden=8), critic=CriticConfig(name="graph"), sharing=sharing, identity="none"
            ),
            spec(n),
            D,
            seeded(),
        )
    together = net(view, action, own)
    torch.testing.assert_close(net(view, action, action), net(view, action))
    for i in range(n):
        one = action.clone()
        one[:, i] = own[:, i]
        torch.testing.assert_close(net(view, one)[:, i], together[:, i])


@pytest.mark.parametrize("kind", KINDS)
def test_each_value_depends_on_one_own_action_alone(kind: str) -> None:
    view, action, own = scene(kind)
    net = critic(kind, view.alive.shape[-1])
    own.requires_grad_()
    net(view, action, own)[:, 1].sum().backward()
    assert own.grad is not None
    assert own.grad[:, 1].abs().max() > 0
    own.grad[:, 1] = 0
    assert own.grad.abs().max() == 0


@pytest.mark.parametrize("kind", ["central", "pooled", "graph"])
def test_values_depend_on_what_the_others_did(kind: str) -> None:
    view, action, own = scene(kind)
    net = critic(kind, view.alive.shape[-1])
    action.requires_grad_()
    net(view, action, own)[:, 1].sum().backward()
    assert action.grad is not None
    assert action.grad[:, 0].abs().max() > 0  # the neighbour that agent 1 hears


@pytest.mark.parametrize("kind", KINDS)
def test_dead_slots_holding_nan_change_nothing(kind: str) -> None:
    shape = scene(kind)[0].alive.shape
    alive = torch.rand(shape, generator=seeded(9)) < 0.6
    view, action, own = scene(kind, alive=alive)
    net, found = critic(kind, shape[-1]), []
    for filler in (0.0, float("nan")):
        fill = [torch.where(alive.unsqueeze(-1), x, filler) for x in (view.obs, action, own)]
        fill[2].requires_grad_()
        values = net(View(fill[0], alive, view.graph), fill[1], fill[2])
        torch.where(alive, values, 0.0).sum().backward()
        assert fill[2].grad is not None
        assert fill[2].grad[~alive].abs().max() == 0
        found.append([torch.where(alive, values, 0.0).detach(), *(p.grad.clone() for p in net.parameters())])
        net.zero_grad()
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["local", "pooled", "graph"])
def test_order_does_not_matter(kind: str) -> None:
    view, action, own = scene(kind)
    n = view.alive.shape[-1]
    net, order = critic(kind, n), torch.randperm(n, generator=seeded(3))
    assert view.graph.topology is not None
    links = Graph(topology=Topology(order.argsort()[view.graph.topology.edges], n))
    permuted = View(view.obs[:, order], view.alive[:, order], links)
    torch.testing.assert_close(net(permuted, action[:, order], own[:, order]), net(view, action, own)[:, order])


@pytest.mark.parametrize("kind", ["central", "pooled", "graph"])
def test_the_global_state_is_read(kind: str) -> None:
    view, action, _ = scene(kind)
    net = critic(kind, view.alive.shape[-1], state=3)
    values = [net(View(view.obs, view.alive, view.graph, state=torch.full((M, 3), x)), action) for x in (0.0, 1.0)]
    assert not torch.allclose(*values)


def test_pooled_weights_know_no_number_of_agents() -> None:
    shapes = [
        {name: p.shape for name, p in critic(kind, n).named_parameters()}
        for kind, n in (("pooled", 20), ("pooled", 50))
    ]
    assert shapes[0] == shapes[1]


def test_a_memory_is_refused() -> None:
    config = NetworkConfig(critic=CriticConfig(name="central"), memory={"name": "gru", "critic": True})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"memory\.critic: critics of replayed actions have no memory"):
        build_q_critic(config, spec(), D, seeded())
