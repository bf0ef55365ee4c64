"""Learned communication against loops over agents; gates; who is dead, who is called what, how many there are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from messengers import (
    BODIES,
    CHANNELS,
    COPIES,
    LINKS,
    LOSSY,
    NEIGHBOURS,
    NEVER,
    STEPS,
    H,
    N,
    config,
    make,
    moving,
    seeded,
    spec,
    views,
)
from torch import Tensor

from coordination import tree
from coordination.graph import Graph
from coordination.topology import Topology
from envs.base import View
from marl.networks.build import build_policy
from marl.networks.layers.sharing import Linear
from marl.networks.messaging.commnet import CommNet, IC3Net
from marl.networks.messaging.tarmac import TarMAC
from marl.networks.policy import Policy

# -- equality with a loop over agents ---------------------------------------------------------------


def affine(layer: Linear, i: int, x: Tensor) -> Tensor:
    p = layer.sharing.owner[i]
    return x @ layer.weight[p] + layer.bias[p]


def lstm(net: CommNet, i: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    assert net.cell is not None
    inward, forget, out, new = (affine(net.cell.feed, i, x) + affine(net.cell.recur, i, h)).chunk(4, -1)
    c = torch.sigmoid(forget + 1) * c + torch.sigmoid(inward) * torch.tanh(new)
    return torch.sigmoid(out) * torch.tanh(c), c


def commnet_by_hand(net: CommNet, x: list[Tensor], h: list[Tensor], c: list[Tensor], gate: Tensor) -> list[Tensor]:
    """Encodings of one sample after all rounds; ``h`` and ``c`` are moved on in place."""
    e = [torch.tanh(affine(net.encoder.layers[0], i, x[i])) for i in range(N)]
    now = e if net.cell is None else list(h)
    for k in range(net.rounds):
        said = [gate[i] * (now[i] if net.say is None else affine(net.say, i, now[i])) for i in range(N)]
        heard = [sum((said[j] for j in NEIGHBOURS[i]), torch.zeros(net.message_dim)) for i in range(N)]
        told = [e[i] + affine(net.listen[k], i, heard[i] / max(len(NEIGHBOURS[i]), 1)) for i in range(N)]
        if net.cell is None:
            now = [torch.tanh(told[i] + affine(net.keep[k], i, now[i])) for i in range(N)]
        else:
            for i in range(N):
                now[i], c[i] = lstm(net, i, told[i], now[i], c[i])
    h[:] = now
    return now


@pytest.mark.parametrize("sharing", ["all", "none", (0, 1, 0, 1, 2)], ids=str)
@pytest.mark.parametrize("body", ["commnet", "recurrent", "ic3net"])
def test_commnet_and_ic3net_equal_a_loop_over_agents(body: str, sharing: object) -> None:
    policy, view = make(body, sharing=sharing), views((STEPS, 1))
    randomise(policy)
    net = policy.trunk.body.protocol  # type: ignore[union-attr]
    assert isinstance(net, CommNet)
    h, c = [torch.zeros(H)] * N, [torch.zeros(H)] * N
    hidden = policy.trunk.initial((1, N), view.obs.device) if policy.state_dim else None
    drawn = set()
    for t in range(STEPS):
        found, hidden = policy.trunk(tree.index(view, t), hidden)
        gate = torch.ones(N)
        if isinstance(net, IC3Net):
            assert hidden is not None
            gate = hidden[0, :, -3] * 2**24
            drawn |= set(gate.tolist())
        expected = commnet_by_hand(net, list(view.obs[t, 0]), h, c, gate)
        torch.testing.assert_close(found[0], torch.stack(expected))
    assert drawn == ({0.0, 1.0} if body == "ic3net" else set())


@pytest.mark.parametrize("sharing", ["all", "none"])
def test_tarmac_equals_a_loop_over_agents(sharing: str) -> None:
    policy, view = make("tarmac", sharing=sharing), views((STEPS, 1))
    randomise(policy)
    net = policy.trunk.body.protocol  # type: ignore[union-attr]
    assert isinstance(net, TarMAC)
    assert net.again is not None
    remembered, hidden = [torch.zeros(H)] * N, None
    for t in range(STEPS):
        found, hidden = policy.trunk(tree.index(view, t), hidden)
        h = list(remembered)
        for k in range(2):
            heard = []
            for i in range(N):
                from_whom = [i, *NEIGHBOURS[i]]
                score = torch.stack([affine(net.ask, i, h[i]) @ affine(net.sign, j, h[j]) / 3**0.5 for j in from_whom])
                said = torch.stack([affine(net.say, j, h[j]) for j in from_whom])
                heard.append(torch.softmax(score, 0) @ said)
            if k == 0:
                h = [torch.tanh(affine(net.again, i, torch.cat([heard[i], h[i]]))) for i in range(N)]
        for i in range(N):
            told = torch.tanh(affine(net.encoder.layers[0], i, view.obs[t, 0, i])) + affine(net.listen, i, heard[i])
            fed, own = affine(net.cell.feed, i, told).chunk(3), affine(net.cell.recur, i, remembered[i]).chunk(3)
            new = torch.tanh(fed[2] + torch.sigmoid(fed[0] + own[0]) * own[2])
            keep = torch.sigmoid(fed[1] + own[1])
            remembered[i] = (1 - keep) * new + keep * remembered[i]
        torch.testing.assert_close(found[0], torch.stack(remembered))


def randomise(policy: Policy) -> None:
    """Biases that are not zero, so that a forgotten one is noticed."""
    for name, p in policy.named_parameters():
        if name.endswith("bias"):
            p.data.normal_(generator=seeded(len(name)))


# -- gates ------------------------------------------------------------------------------------------


def with_gate(bias: float, channel: str = "none") -> Policy:
    policy = make("ic3net", channel)
    policy.trunk.body.protocol.gate.bias.data.fill_(bias)  # type: ignore[union-attr]
    return policy


@pytest.mark.parametrize("channel", ["none", "counted"])
def test_closed_gates_are_an_lstm_for_each_agent_bit_for_bit(channel: str) -> None:
    silent, view = with_gate(-100.0, channel), views()
    found, _ = silent.trunk.unroll(view, None, NEVER)
    alone, _ = with_gate(0.0).trunk.unroll(views(links=[[], []]), None, NEVER)
    assert torch.equal(found, alone)
    net = silent.trunk.body.protocol  # type: ignore[union-attr]
    assert isinstance(net, IC3Net)
    assert net.cell is not None
    e = net.encoder(view.obs)
    twice = torch.stack([e, e], 1).flatten(0, 1)  # the LSTM runs once a round
    h, _ = net.cell.unroll(twice, torch.zeros(COPIES, N, 2 * H), torch.zeros(2 * STEPS, COPIES, N, dtype=torch.bool))
    torch.testing.assert_close(found, h[1::2])
    heard, _ = with_gate(100.0, channel).trunk.unroll(view, None, NEVER)
    assert not torch.allclose(found, heard)


def test_gates_are_drawn_with_their_probability() -> None:
    policy = with_gate(1.0)
    policy.trunk.body.protocol.gate.weight.data.zero_()  # type: ignore[union-attr]
    view = views((1, 1000))
    _, hidden = policy.unroll(view, None, torch.zeros(1, 1000, dtype=torch.bool))
    spoke = policy.trunk.traffic(hidden.detach(), view.alive)["speaking"]
    assert float(spoke) == pytest.approx(1 / (1 + math.exp(-1)), abs=0.02)  # 5,000 draws: 3 standard errors


def test_a_channel_that_does_nothing_changes_neither_values_nor_gradients() -> None:
    for body in BODIES:
        outputs, gradients = [], []
        for channel in ("none", "counted"):
            policy, start = make(body, channel), torch.rand(STEPS, COPIES, generator=seeded(4)) < 0.2
            alive = torch.rand(STEPS, COPIES, N, generator=seeded(3)) < 0.8
            hidden = policy.trunk.initial((COPIES, N), torch.device("cpu"), seeded(2))
            h, _ = policy.trunk.unroll(views(alive=alive), hidden, start)
            torch.where(alive.unsqueeze(-1), h, 0.0).sum().backward()
            outputs.append(torch.where(alive.unsqueeze(-1), h, 0.0))
            gradients.append({name: p.grad for name, p in policy.trunk.named_parameters()})
        torch.testing.assert_close(*outputs)
        assert all(g is not None and g.any() for name, g in gradients[0].items() if "gate" in name)
        for name, g in gradients[0].items():
            torch.testing.assert_close(g, gradients[1][name], msg=f"{body} {name}")


# -- the population: who is dead, who is called what, how many there are -----------------------------


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("body", BODIES)
def test_dead_slots_holding_nan_change_nothing_and_get_no_gradient(body: str, channel: str) -> None:
    alive = torch.rand(STEPS, COPIES, N, generator=seeded(5)) < 0.7
    view, policy = views(), make(body, channel)
    results = []
    for filler in (0.0, float("nan"), 1e9):
        obs = torch.where(alive.unsqueeze(-1), view.obs, filler).requires_grad_()
        raw, hidden = policy.unroll(View(obs, alive, view.graph), None, NEVER)
        raw = torch.where(alive.unsqueeze(-1), raw, 0.0)
        raw.square().sum().backward()
        assert obs.grad is not None
        assert torch.equal(obs.grad[~alive], torch.zeros_like(obs.grad[~alive]))
        grads = [p.grad.clone() for p in policy.parameters() if p.grad is not None]
        policy.zero_grad()
        results.append([raw.detach(), *grads, *([] if hidden is None else [hidden.detach()])])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("channel", ["none", "everything"])
@pytest.mark.parametrize("body", ["recurrent", "ic3net", "tarmac"])
def test_a_newborn_begins_with_a_blank_row_and_keeps_the_seed(body: str, channel: str) -> None:
    alive = torch.ones(STEPS, COPIES, N, dtype=torch.bool)
    alive[2, :, 1] = False
    policy = make(body, channel)
    _, hidden = policy.unroll(views(alive=alive), None, NEVER)
    own = sum(policy.trunk.body.own)  # type: ignore[union-attr]
    assert not hidden[2, :, 1, :own].any()
    assert hidden[1, :, 1, :own].any(-1).all()
    if policy.trunk.body.draws:  # type: ignore[union-attr]
        _, all_alive = policy.unroll(views(), None, NEVER)
        assert torch.equal(hidden[..., -2:], all_alive[..., -2:])


def test_the_dead_neither_speak_nor_count() -> None:
    alive = torch.ones(1, N, dtype=torch.bool)
    alive[0, 0] = False
    some = [[j, i] for j, i in zip(*LINKS, strict=True) if 0 not in (i, j)]
    for body in BODIES:
        for channel in ("none", "counted"):
            policy = make(body, channel)
            found = policy.trunk(views((1,), alive))[0]
            without = policy.trunk(views((1,), links=list(zip(*some, strict=True))))[0]
            torch.testing.assert_close(found[0, 1:], without[0, 1:])


@pytest.mark.parametrize("links", ["shared", "own"])
@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("body", BODIES)
def test_agents_by_other_names_say_the_same_even_what_is_lost(body: str, channel: str, links: str) -> None:
    policy, order = make(body, channel), torch.randperm(N, generator=seeded(4))
    place, view, start = order.argsort(), views(), torch.rand(STEPS, COPIES, generator=seeded(2)) < 0.2
    if links == "shared":
        graph = Graph(topology=Topology(place[torch.tensor(LINKS)], N))
    else:
        view = moving(view)
        assert view.graph.edges is not None
        graph = Graph.from_edges(torch.cat([place, torch.tensor([N])])[view.graph.edges], N)
    renamed = View(view.obs[..., order, :], view.alive[..., order], graph)
    hidden = policy.trunk.initial((COPIES, N), torch.device("cpu"), seeded(3)) if policy.state_dim else None
    found, _ = policy.unroll(renamed, None if hidden is None else hidden[:, order], start)
    torch.testing.assert_close(found, policy.unroll(view, hidden, start)[0][..., order, :])


@pytest.mark.parametrize("body", BODIES)
def test_weights_do_not_depend_on_the_number_of_agents(body: str) -> None:
    few, many = (build_policy(config(BODIES[body], LOSSY), spec(n), seeded()) for n in (3, 100))
    shapes = [{name: p.shape for name, p in policy.named_parameters()} for policy in (few, many)]
    assert shapes[0] == shapes[1]
    assert few.state_dim == many.state_dim


def test_links_of_its_own_for_every_sample_equal_a_shared_topology() -> None:
    view = views()
    edges = torch.tensor(LINKS).expand(STEPS, COPIES, 2, -1)
    padded = torch.cat([edges, torch.full((STEPS, COPIES, 2, 3), N)], -1)
    own = replace(view, graph=Graph.from_edges(padded, N))
    for body in BODIES:
        policy = make(body, "everything")
        hidden = policy.trunk.initial((COPIES, N), torch.device("cpu"), seeded(3))
        first, second = (policy.unroll(v, hidden, NEVER) for v in (view, own))
        torch.testing.assert_close(first[0], second[0])
        counts = slice(-8, -3)
        torch.testing.assert_close(first[1][..., counts], second[1][..., counts])


def test_weights_of_links_weigh_what_is_heard() -> None:
    view = views((2,))
    weight = torch.rand(2, len(LINKS[0]), generator=seeded(6))
    weighted = replace(view, graph=replace(view.graph, weight=weight))
    plain, counted = (make("commnet", channel).trunk for channel in ("none", "counted"))
    torch.testing.assert_close(plain(weighted)[0], counted(weighted)[0])
    assert not torch.allclose(plain(weighted)[0], plain(view)[0])
