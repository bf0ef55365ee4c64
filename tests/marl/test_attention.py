"""Attention over agents and pools of them: against torch, order, the dead, limits, and a task that needs it."""

from __future__ import annotations

import pytest
import torch
from feature_probes import Told, learned
from torch import Tensor, nn

from coordination.graph import Graph
from coordination.topology import empty
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec
from marl.config import ConfigError
from marl.networks.build import build_counterfactual, build_critic, build_policy, build_q_critic
from marl.networks.config import AttentionConfig, CriticConfig, MLPConfig, NetworkConfig
from marl.networks.critics import JointCritic
from marl.networks.layers.sharing import Linear, Sharing
from marl.networks.layers.transformer import AttentionNetwork, AttentionPool, Block, SelfAttention
from marl.settings import settings

N, B, WIDTH, DIM, HEADS = 5, 3, 4, 8, 2
ALL = Sharing([0] * N, "all")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spec(n: int = N) -> AgentSpec:
    return AgentSpec.single(n, ObservationSpec.flat(WIDTH), ActionSpec.discrete(3))


def view(n: int = N, alive: Tensor | None = None, seed: int = 0) -> View:
    alive = torch.ones(B, n, dtype=torch.bool) if alive is None else alive
    return View(torch.randn(B, n, WIDTH, generator=seeded(seed)), alive, Graph(topology=empty(n)))


def network(critic: str = "attention", sharing: str = "all", mlp: bool = False, layers: int = 2) -> NetworkConfig:
    body = MLPConfig(hidden=(DIM,)) if mlp else AttentionConfig(hidden=DIM, heads=HEADS, layers=layers)
    return NetworkConfig(policy=body, critic=CriticConfig(name=critic), sharing=sharing, identity="none")


def some_alive(seed: int = 1) -> Tensor:
    alive = torch.rand(B, N, generator=seeded(seed)) < 0.6
    alive[:, 0] = True
    return alive


def fill(torchs: nn.Linear | nn.modules.linear.NonDynamicallyQuantizableLinear, own: Linear) -> None:
    torchs.weight.data, torchs.bias.data = own.weight[0].T.clone(), own.bias[0].clone()


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_a_block_equals_torchs_encoder_layer(dead: bool, activation: str) -> None:
    block = Block(DIM, HEADS, ALL, seeded(), activation)
    for parameter in block.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=seeded(1))
    kind = nn.functional.silu if activation == "silu" else "relu"
    torchs = nn.TransformerEncoderLayer(DIM, HEADS, DIM, 0.0, kind, batch_first=True, norm_first=True)
    own = block.attention
    torchs.self_attn.in_proj_weight.data = own.project.weight[0].T.clone()
    torchs.self_attn.in_proj_bias.data = own.project.bias[0].clone()
    for linear, ours in (
        (torchs.self_attn.out_proj, own.out),
        (torchs.linear1, block.widen),
        (torchs.linear2, block.narrow),
    ):
        fill(linear, ours)
    for norm, ours in ((torchs.norm1, block.before), (torchs.norm2, block.between)):
        norm.weight.data, norm.bias.data = ours.weight[0].clone(), ours.bias[0].clone()
    x, alive = torch.randn(B, N, DIM, generator=seeded(2)), some_alive() if dead else torch.ones(B, N).bool()
    expected = torchs(x, src_key_padding_mask=~alive)
    torch.testing.assert_close(block(x, alive)[alive], expected[alive])


def test_unshared_attention_equals_a_loop() -> None:
    layer = SelfAttention(DIM, HEADS, Sharing(range(N), "none"), seeded())
    x, alive, width = torch.randn(B, N, DIM, generator=seeded(1)), some_alive(), DIM // HEADS
    y = layer(x, alive)
    for b in range(B):
        parts = [(x[b, i] @ layer.project.weight[i] + layer.project.bias[i]).chunk(3) for i in range(N)]
        living = [j for j in range(N) if alive[b, j]]
        for i in living:
            heads = []
            for h in range(HEADS):
                s = slice(h * width, (h + 1) * width)
                weight = torch.stack([parts[i][0][s] @ parts[j][1][s] / width**0.5 for j in living]).softmax(0)
                heads.append(sum(w * parts[j][2][s] for w, j in zip(weight, living, strict=True)))
            expected = torch.cat(heads) @ layer.out.weight[i] + layer.out.bias[i]
            torch.testing.assert_close(y[b, i], expected)


def test_a_pool_equals_torchs_attention_of_one_query() -> None:
    pool = AttentionPool(DIM, ALL, seeded(), HEADS)
    torchs = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    query, key, value = torchs.in_proj_weight.data.chunk(3)
    key_bias, value_bias = torchs.in_proj_bias.data.normal_(generator=seeded(3)).chunk(3)[1:]
    seed, width = torch.randn(1, 1, DIM, generator=seeded(4)), DIM // HEADS
    asked = (seed[0, 0] @ query.T + torchs.in_proj_bias.data[:DIM]).unflatten(0, (HEADS, width)) / width**0.5
    pool.score.weight.data[0] = torch.einsum("hd,hdi->ih", asked, key.unflatten(0, (HEADS, width)))
    pool.score.bias.data[0] = (asked * key_bias.unflatten(0, (HEADS, width))).sum(-1)
    pool.value.weight.data[0], pool.value.bias.data[0] = value.T.clone(), value_bias.clone()
    torchs.out_proj.weight.data, torchs.out_proj.bias.data = torch.eye(DIM), torch.zeros(DIM)
    h, alive = torch.randn(B, N, DIM, generator=seeded(5)), some_alive()
    expected, _ = torchs(seed.expand(B, -1, -1), h, h, key_padding_mask=~alive)
    torch.testing.assert_close(pool(h, alive), expected)


def test_where_nobody_lives_nothing_is_pooled_and_nothing_is_nan() -> None:
    alive = some_alive()
    alive[1] = False
    h = torch.randn(B, N, DIM, generator=seeded(5)).requires_grad_()
    pooled = AttentionPool(DIM, ALL, seeded())(h, alive)
    assert (pooled[1] == 0).all()
    body = AttentionNetwork(DIM, AttentionConfig(hidden=DIM), ALL, seeded())
    y = body(h, view(alive=alive))
    (torch.where(alive.unsqueeze(-1), y, 0.0).sum() + pooled.sum()).backward()
    assert bool(y.isfinite().all())
    assert bool(h.grad.isfinite().all())


@pytest.mark.parametrize("critic", ["attention", "local"])
@pytest.mark.parametrize("mlp", [True, False])
def test_order_changes_nothing(critic: str, mlp: bool) -> None:
    seen, order = view(alive=some_alive()), torch.randperm(N, generator=seeded(3))
    moved = View(seen.obs[:, order], seen.alive[:, order], seen.graph)
    for make in (build_policy, build_critic):
        net = make(network(critic, mlp=mlp), spec(), seeded())
        there = seen.alive[:, order]
        torch.testing.assert_close(net(moved)[0][there], net(seen)[0][:, order][there])


@pytest.mark.parametrize("sharing", ["all", "none"])
def test_the_dead_change_nothing_and_get_no_gradient(sharing: str) -> None:
    alive, results = some_alive(), []
    for filler in (0.0, float("nan"), 1e9):
        seen = view(alive=alive)
        obs = torch.where(alive.unsqueeze(-1), seen.obs, filler).requires_grad_()
        nets = [make(network(sharing=sharing), spec(), seeded()) for make in (build_policy, build_critic)]
        outputs = [nets[0](View(obs, alive, seen.graph))[0].sum(-1), nets[1](View(obs, alive, seen.graph))[0]]
        sum(torch.where(alive, y, 0.0).sum() for y in outputs).backward()
        assert torch.equal(obs.grad[~alive], torch.zeros_like(obs.grad[~alive]))
        grads = [p.grad for net in nets for p in net.parameters() if p.grad is not None]
        results.append([torch.where(alive, y, 0.0).detach() for y in outputs] + grads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b)


def test_dead_slots_are_as_if_they_were_not_there() -> None:
    whole = view(N)
    alive = whole.alive.clone()
    alive[:, 3:] = False
    few = View(whole.obs[:, :3], alive[:, :3], Graph(topology=empty(3)))
    for make in (build_policy, build_critic):
        large, small = (make(network(), spec(n), seeded()) for n in (N, 3))
        seen = View(whole.obs, alive, whole.graph)
        torch.testing.assert_close(large(seen)[0][:, :3], small(few)[0])


def test_batched_equals_looped_and_every_value_depends_on_everyone() -> None:
    seen = view(alive=some_alive())
    for make in (build_policy, build_critic):
        net = make(network(), spec(), seeded())
        whole = net(seen)[0]
        for b in range(B):
            one = View(seen.obs[b], seen.alive[b], seen.graph)
            torch.testing.assert_close(net(one)[0], whole[b])
    obs = view().obs.requires_grad_()
    build_critic(network(mlp=True), spec(), seeded())(View(obs, view().alive, seen.graph))[0][0, 0].backward()
    assert obs.grad[0].abs().sum(-1).gt(0).all()


def test_sizes_widths_and_critics_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"for up to 1,024 agents, got 1,025; use a graph network"):
        build_policy(network(), spec(1025), seeded())
    with pytest.raises(ConfigError, match="hidden: 30 must be divisible by heads, 4"):
        settings({"policy": {"name": "attention", "hidden": 30}})
    with pytest.raises(ValueError, match="attention critic: width 6 must be divisible by 4 heads"):
        build_critic(
            NetworkConfig(policy=MLPConfig(hidden=(6,)), critic=CriticConfig(name="attention")), spec(), seeded()
        )
    with pytest.raises(ConfigError, match="attention pools critics of states"):
        build_q_critic(network(), spec(), 3, seeded())
    with pytest.raises(ConfigError, match="attention pools critics of states"):
        build_counterfactual(network(), spec(), 3, 0, seeded())
    body = CriticConfig(name="central", body=AttentionConfig())
    with pytest.raises(ConfigError, match="attention is for local critics of actions"):
        build_q_critic(NetworkConfig(critic=body), spec(), 3, seeded())


def test_critics_of_attention_policies_and_of_any_size() -> None:
    assert isinstance(build_critic(network("central"), spec(), seeded()), JointCritic)
    shapes = [[p.shape for p in build_critic(network(), spec(n), seeded()).parameters()] for n in (N, 900)]
    assert shapes[0] == shapes[1]
    large = build_critic(network(mlp=True), spec(5000), seeded())  # the pool itself has no limit
    assert large(view(5000))[0].shape == (B, 5000)


def test_settings_take_attention_by_name() -> None:
    chosen = settings({"policy": "attention", "critic": "attention"})
    assert isinstance(chosen.policy, AttentionConfig)
    assert chosen.critic.name == "attention"
    assert not chosen.network.listens


def test_looking_at_everybody_tells_what_nobody_else_does() -> None:
    body = AttentionConfig(hidden=32, heads=2)
    assert learned(Told(), NetworkConfig(policy=body, critic=CriticConfig(name="attention"))) > 0.97
    alone = NetworkConfig(policy=MLPConfig(hidden=(32,)), critic=CriticConfig(name="attention"))
    assert 0.4 < learned(Told(), alone) < 0.6
