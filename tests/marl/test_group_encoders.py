"""Groups with first layers and readouts of their own on shared bodies: who owns what, and two kinds that understand."""

from __future__ import annotations

import pytest
import torch
from feature_probes import Mirrored, learned

import envs
from coordination.graph import Graph
from coordination.topology import Topology, complete
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group
from marl.networks.build import build_counterfactual, build_critic, build_policy, build_q_critic, ends
from marl.networks.config import AttentionConfig, BodyConfig, CriticConfig, GraphConfig, MLPConfig, NetworkConfig
from marl.networks.graph import GraphNetwork
from marl.networks.layers.mlp import MLP
from marl.networks.layers.transformer import AttentionNetwork
from marl.networks.messaging.commnet import CommNet
from marl.networks.messaging.config import CommNetConfig

B, N, HIDDEN = 3, 5, 8
BODIES = {
    "mlp": MLPConfig(hidden=(HIDDEN, HIDDEN)),
    "graph": GraphConfig(hidden=HIDDEN),
    "attention": AttentionConfig(hidden=HIDDEN),
    "pyg": GraphConfig(hidden=HIDDEN, layer="GCNConv"),
    "commnet": CommNetConfig(hidden=HIDDEN),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kinds(one: ObservationSpec | None = None, choices: int = 3) -> AgentSpec:
    """Two agents that see four numbers and three that see ``one`` (two numbers)."""
    first, second = ObservationSpec.flat(4), one or ObservationSpec.flat(2)
    groups = Group("a", 0, 2, first, ActionSpec.discrete(3)), Group("b", 2, 3, second, ActionSpec.discrete(choices))
    return AgentSpec(groups, tuple("abcde"))


def config(body: BodyConfig, critic: str = "local", **keys: object) -> NetworkConfig:
    return NetworkConfig(policy=body, critic=CriticConfig(name=critic), identity="none", **keys)  # type: ignore[arg-type]


def view(topology: Topology, seed: int = 1) -> View:
    obs = torch.randn(B, N, 4, generator=seeded(seed))
    obs[:, 2:, 2:] = 0
    return View(obs, torch.ones(B, N, dtype=torch.bool), Graph(topology=topology))


def test_groups_that_differ_get_their_own_unless_told_otherwise() -> None:
    body, same = MLPConfig(), ObservationSpec.flat(4)
    assert ends(config(body), kinds()).owner == (0, 0, 1, 1, 1)
    assert ends(config(body), kinds(same, choices=2)).owner == (0, 0, 1, 1, 1)
    assert ends(config(body), kinds(same)).mode == "all"
    assert ends(config(body, encoders="all"), kinds()).mode == "all"
    assert ends(config(body, encoders="group"), kinds(same)).owner == (0, 0, 1, 1, 1)
    assert ends(config(body, sharing="none"), kinds()).mode == "none"
    assert ends(config(body, sharing=(0, 0, 0, 1, 1)), kinds()).owner == (0, 0, 0, 1, 1)
    assert ends(config(body, sharing="none", encoders="group"), kinds()).owner == (0, 0, 1, 1, 1)
    assert ends(config(body), envs.make("navigation", 1).agents).mode == "all"  # three groups of one form
    assert ends(config(body), envs.make("speaker_listener", 1).agents).mode == "group"


@pytest.mark.parametrize("body", ["mlp", "graph", "attention"])
def test_a_single_group_has_the_weights_it_would_have_without(body: str) -> None:
    agents = AgentSpec.single(4, ObservationSpec.flat(4), ActionSpec.discrete(3))
    x = View(torch.randn(B, 4, 4, generator=seeded(2)), torch.ones(B, 4).bool(), Graph(topology=complete(4)))
    for make in (build_policy, build_critic):
        nets = [make(config(BODIES[body], "graph", encoders=how), agents, seeded()) for how in (None, "all", "group")]
        raw = nets[0](x)[0]
        assert torch.equal(nets[1](x)[0], raw)
        torch.testing.assert_close(nets[2](x)[0], raw)
        for name, weight in nets[0].state_dict().items():
            assert all(torch.equal(net.state_dict()[name], weight) for net in nets[1:])


def copies(module: torch.nn.Module) -> set[int]:
    """Numbers of sets of weights of all layers in a module."""
    return {p.shape[0] for p in module.parameters()}


def test_first_layers_and_readouts_are_of_groups_and_bodies_are_shared() -> None:
    for make in (build_policy, build_critic):
        nets = {name: make(config(body), kinds(), seeded()) for name, body in BODIES.items()}
        assert all(copies(net.readout) == {2} for net in nets.values())
        bodies = {name: net.trunk.body for name, net in nets.items()}  # type: ignore[union-attr]
        mlp, graph, attention = bodies["mlp"], bodies["graph"], bodies["attention"]
        assert isinstance(mlp, MLP)
        assert [copies(layer) for layer in mlp.layers] == [{2}, {1}]
        assert isinstance(graph, GraphNetwork)
        assert (copies(graph.encoder), copies(graph.rounds)) == ({2}, {1})
        assert isinstance(attention, AttentionNetwork)
        assert copies(attention.encoder) == {2}
        protocol = bodies["commnet"].protocol  # type: ignore[union-attr]
        assert isinstance(protocol, CommNet)
        assert (copies(protocol.encoder), copies(protocol.listen)) == ({2}, {1})


def test_each_group_goes_through_its_own_weights() -> None:
    policy, seen = build_policy(config(BODIES["mlp"]), kinds(), seeded()), view(complete(N))
    first, second = policy.trunk.body.layers  # type: ignore[misc]
    raw = policy(seen)[0]
    for i in range(N):
        p = int(i >= 2)
        h = torch.relu(seen.obs[:, i] @ first.weight[p] + first.bias[p])
        h = torch.relu(h @ second.weight[0] + second.bias[0])
        torch.testing.assert_close(raw[:, i], h @ policy.readout.weight[p] + policy.readout.bias[p])


def test_messages_carry_gradients_into_the_encoders_of_the_other_kind_alone() -> None:
    policy = build_policy(config(BODIES["graph"]), kinds(), seeded())
    encoder = policy.trunk.body.encoder.layers[0].weight  # type: ignore[union-attr]
    for topology, heard in ((complete(N), True), (Topology([[0, 1], [1, 0]], N), False)):
        policy.zero_grad()
        policy(view(topology))[0][:, :2].sum().backward()
        assert bool(encoder.grad[1].any()) == heard
        assert bool(encoder.grad[0].any())
        assert bool(policy.readout.weight.grad[0].any())
        assert not bool(policy.readout.weight.grad[1].any())


@pytest.mark.parametrize("body", BODIES)
def test_agents_of_a_group_are_interchangeable_and_those_of_two_are_not(body: str) -> None:
    agents, seen = kinds(ObservationSpec.flat(4)), view(complete(N))
    for make in (build_policy, build_critic):
        net = make(config(BODIES[body], "attention", encoders="group"), agents, seeded())
        within, across = torch.tensor([1, 0, 4, 2, 3]), torch.tensor([2, 1, 0, 3, 4])
        moved = [net(View(seen.obs[:, order], seen.alive, seen.graph))[0] for order in (within, across)]
        raw = net(seen)[0]
        torch.testing.assert_close(moved[0], raw[:, within])
        assert not torch.allclose(moved[1], raw[:, across])


@pytest.mark.parametrize("body", BODIES)
def test_the_dead_of_any_group_change_nothing(body: str) -> None:
    alive, results = torch.rand(B, N, generator=seeded(3)) < 0.6, []
    alive[:, 0] = True
    for filler in (0.0, float("nan"), 1e9):
        seen = view(complete(N))
        obs = torch.where(alive.unsqueeze(-1), seen.obs, filler).requires_grad_()
        nets = [make(config(BODIES[body]), kinds(), seeded()) for make in (build_policy, build_critic)]
        outputs = [nets[0](View(obs, alive, seen.graph))[0].sum(-1), nets[1](View(obs, alive, seen.graph))[0]]
        sum(torch.where(alive, y, 0.0).sum() for y in outputs).backward()
        assert torch.equal(obs.grad[~alive], torch.zeros_like(obs.grad[~alive]))
        grads = [p.grad for net in nets for p in net.parameters() if p.grad is not None]
        results.append([torch.where(alive, y, 0.0).detach() for y in outputs] + grads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("critic", ["local", "central", "graph"])
def test_critics_of_actions_are_made_for_groups_that_differ(critic: str) -> None:
    chosen, seen = torch.zeros(B, N, 3), view(complete(N))
    made = build_q_critic(config(BODIES["graph"], critic), kinds(), 3, seeded())
    assert copies(made.readout) == {2}
    assert made(seen, chosen).shape == (B, N)
    counterfactual = build_counterfactual(config(BODIES["graph"], critic), kinds(), 3, 0, seeded())
    assert copies(counterfactual.readout) == {2}
    assert counterfactual(seen, chosen).shape == (B, N, 3)


@pytest.mark.parametrize("partner", [False, True])
def test_two_kinds_of_agents_understand_what_they_see_and_what_they_are_told(partner: bool) -> None:
    body: BodyConfig = GraphConfig(hidden=32) if partner else MLPConfig(hidden=(32,))
    assert learned(Mirrored(partner), config(body)) > 0.97
    assert 0.4 < learned(Mirrored(partner), config(body, encoders="all")) < 0.6
