"""Networks: sharing, equality with PyG and with loops, equivariance, and dead slots that change nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.graph import Graph
from coordination.topology import Topology
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group
from marl.networks.build import build_critic, build_policy
from marl.networks.config import CriticConfig, GraphConfig, MLPConfig, NetworkConfig
from marl.networks.graph import Aggregation
from marl.networks.layers.attention import NeighbourAttention
from marl.networks.layers.mlp import tanh_
from marl.networks.layers.sharing import Linear, Sharing, orthogonal

N, K, WIDTH = 6, 4, 5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spec(n: int = N) -> AgentSpec:
    return AgentSpec.single(n, ObservationSpec.flat(WIDTH), ActionSpec.discrete(K))


def random_topology(n: int, seed: int, share: float = 0.5) -> Topology:
    chosen = (torch.rand(n, n, generator=seeded(seed)) < share).fill_diagonal_(False)
    return Topology(chosen.nonzero().T, n)


def random_view(n: int = N, lead: tuple[int, ...] = (3,), seed: int = 0, alive: torch.Tensor | None = None) -> View:
    obs = torch.randn(*lead, n, WIDTH, generator=seeded(seed))
    alive = torch.ones(*lead, n, dtype=torch.bool) if alive is None else alive
    return View(obs, alive, Graph(topology=random_topology(n, seed)))


SHARINGS = ["all", "group", "none", [1, 0, 1, 1, 2, 0]]


@pytest.mark.parametrize("how", SHARINGS, ids=str)
def test_linear_equals_one_separate_layer_per_agent(how: str | list[int]) -> None:
    spaces = ObservationSpec.flat(WIDTH), ActionSpec.discrete(K)
    groups = Group("a", 0, 3, *spaces), Group("b", 3, 3, *spaces)
    agents = AgentSpec(groups, tuple("abcdef"))
    sharing = Sharing.of(how, agents)
    layer = Linear(WIDTH, 7, sharing, seeded())
    layer.bias.data.normal_(generator=seeded(1))
    x = torch.randn(2, 3, N, WIDTH, generator=seeded(2))
    y = layer(x)
    assert y.shape == (2, 3, N, 7)
    for i, p in enumerate(sharing.owner):
        torch.testing.assert_close(y[..., i, :], x[..., i, :] @ layer.weight[p] + layer.bias[p])


def test_sharing_refuses_gaps_wrong_lengths_and_unknown_names() -> None:
    with pytest.raises(ValueError, match="without gaps"):
        Sharing.of([0, 0, 2, 2, 0, 0], spec())
    with pytest.raises(ValueError, match="expected 6 numbers, one per agent, got 2"):
        Sharing.of([0, 1], spec())
    with pytest.raises(ValueError, match="expected all, group, none"):
        Sharing.of("some", spec())


@given(st.integers(1, 6), st.integers(1, 6))
def test_orthogonal_weights_have_orthonormal_rows_or_columns(rows: int, columns: int) -> None:
    w = orthogonal(2, rows, columns, 1.0, seeded())
    small = w @ w.mT if rows <= columns else w.mT @ w
    torch.testing.assert_close(small, torch.eye(min(rows, columns)).expand(2, -1, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["mean", "sum"])
def test_aggregation_equals_pyg_sage(how: str) -> None:
    from torch_geometric.nn import SAGEConv

    layer = Aggregation(WIDTH, how, Sharing([0] * N, "all"), seeded(), 1.0)
    reference = SAGEConv(WIDTH, WIDTH, aggr=how)
    reference.lin_l.weight.data, reference.lin_l.bias.data = layer.link.weight[0].T, layer.link.bias[0]
    reference.lin_r.weight.data = layer.own.weight[0].T
    view = random_view()
    edges, _, _ = view.graph.flat(3, view.alive)
    expected = reference(view.obs.reshape(-1, WIDTH), edges).reshape(view.obs.shape)
    torch.testing.assert_close(layer(view.obs, view.graph, view.alive), expected)


def test_attention_equals_pyg_gatv2() -> None:
    from torch_geometric.nn import GATv2Conv

    layer = NeighbourAttention(8, Sharing([0] * N, "all"), seeded(), heads=2)
    reference = GATv2Conv(8, 4, heads=2)
    reference.lin_l.weight.data, reference.lin_r.weight.data = layer.sender.weight[0].T, layer.receiver.weight[0].T
    reference.lin_l.bias.data, reference.lin_r.bias.data = layer.sender.bias[0], layer.receiver.bias[0]
    reference.att.data = layer.score.unsqueeze(0)
    x = torch.randn(3, N, 8, generator=seeded())
    view = random_view()
    edges, _, _ = view.graph.flat(3, view.alive)
    torch.testing.assert_close(layer(x, view.graph, view.alive), reference(x.reshape(-1, 8), edges).reshape(x.shape))


LAYERS = ["mean", "sum", "attention", "GCNConv", "GATv2Conv", "SAGEConv"]


def network(layer: str | None, critic: str = "graph", sharing: str = "all") -> NetworkConfig:
    policy = MLPConfig(hidden=(8,)) if layer is None else GraphConfig(hidden=8, layer=layer, layers=2)
    body = policy if layer is not None else None
    return NetworkConfig(policy=policy, critic=CriticConfig(name=critic, body=body), sharing=sharing, identity="none")


@pytest.mark.parametrize("layer", LAYERS)
def test_graph_policies_and_critics_are_permutation_equivariant(layer: str) -> None:
    view = random_view(seed=3)
    assert view.graph.topology is not None
    order = torch.randperm(N, generator=seeded(4))
    place = order.argsort()
    links = Graph(topology=Topology(place[view.graph.topology.edges], N))
    permuted = View(view.obs[:, order], view.alive[:, order], links)
    policy, critic = (make(network(layer), spec(), seeded()) for make in (build_policy, build_critic))
    torch.testing.assert_close(policy(permuted)[0], policy(view)[0][:, order])
    torch.testing.assert_close(critic(permuted)[0], critic(view)[0][:, order])


@pytest.mark.parametrize("layer", [None, *LAYERS])
@pytest.mark.parametrize("critic", ["local", "central", "graph"])
def test_dead_slots_holding_nan_change_nothing_and_get_no_gradient(layer: str | None, critic: str) -> None:
    alive = torch.rand(3, N, generator=seeded(5)) < 0.6
    alive[:, 0] = True
    view = random_view(seed=6, alive=alive)
    nets = [make(network(layer, critic), spec(), seeded()) for make in (build_policy, build_critic)]
    results = []
    for filler in (0.0, float("nan"), 1e9):
        obs = torch.where(alive.unsqueeze(-1), view.obs, filler).requires_grad_()
        seen = View(obs, alive, view.graph)
        outputs = [nets[0](seen)[0].sum(-1), nets[1](seen)[0]]
        sum(torch.where(alive, y, 0.0).sum() for y in outputs).backward()
        grads = [p.grad.clone() for net in nets for p in net.parameters() if p.grad is not None]
        for net in nets:
            net.zero_grad()
        assert obs.grad is not None
        assert torch.equal(obs.grad[~alive], torch.zeros_like(obs.grad[~alive]))
        results.append([torch.where(alive, y, 0.0).detach() for y in outputs] + grads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layer", [None, "mean", "attention"])
@pytest.mark.parametrize("sharing", ["all", "none"])
def test_batched_equals_looped(layer: str | None, sharing: str) -> None:
    view = random_view(lead=(2, 3), seed=7)
    policy = build_policy(network(layer, sharing=sharing), spec(), seeded())
    raw = policy(view)[0]
    for t in range(2):
        for b in range(3):
            torch.testing.assert_close(policy(View(view.obs[t, b], view.alive[t, b], view.graph))[0], raw[t, b])


def test_a_policy_hears_as_many_hops_as_it_has_layers() -> None:
    path = Topology([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]], N)  # each hears the one before
    config = NetworkConfig(policy=GraphConfig(hidden=8, layers=2), critic=CriticConfig(name="local"), identity="none")
    policy = build_policy(config, spec(), seeded())
    obs = torch.randn(1, N, WIDTH, generator=seeded()).requires_grad_()
    policy(View(obs, torch.ones(1, N, dtype=torch.bool), Graph(topology=path)))[0][0, 5].sum().backward()
    assert obs.grad is not None
    assert obs.grad[0].abs().sum(-1).gt(0).tolist() == [False, False, False, True, True, True]


def test_pyg_layers_refuse_unshared_weights_and_unknown_names() -> None:
    with pytest.raises(ValueError, match="PyG layers share their weights; use sharing=all"):
        build_policy(network("GCNConv", sharing="none"), spec(), seeded())
    with pytest.raises(ValueError, match="unknown graph layer 'GCNCon'; did you mean 'GCNConv'"):
        build_policy(network("GCNCon"), spec(), seeded())


def test_critics_above_sixteen_agents_do_not_depend_on_order_or_size() -> None:
    config = NetworkConfig(policy=MLPConfig(hidden=(8,)), critic=CriticConfig(name="central"), identity="none")
    critic = build_critic(config, spec(20), seeded())
    view = random_view(20)
    order = torch.randperm(20, generator=seeded(1))
    swapped = View(view.obs[:, order], view.alive, view.graph)
    torch.testing.assert_close(critic(swapped)[0], critic(view)[0][:, order])
    weights = {name: p.shape for name, p in critic.named_parameters()}
    assert weights == {name: p.shape for name, p in build_critic(config, spec(40), seeded()).named_parameters()}


def test_identity_tells_agents_apart_and_has_limits() -> None:
    view = View(torch.ones(1, N, WIDTH), torch.ones(1, N, dtype=torch.bool), random_view().graph)
    for identity, apart in (("none", False), ("onehot", True), ("embedding", True)):
        config = NetworkConfig(policy=MLPConfig(hidden=(8,)), critic=CriticConfig(name="local"), identity=identity)
        raw = build_policy(config, spec(), seeded())(view)[0]
        assert bool((raw[0, 0] != raw[0, 1]).any()) == apart
    config = NetworkConfig(critic=CriticConfig(name="local"), identity="onehot")
    with pytest.raises(ValueError, match="onehot is for up to 64 agents, got 65"):
        build_policy(config, spec(65), seeded())


def test_the_fast_tanh_is_tanh() -> None:
    x = torch.linspace(-12, 12, 10_001)
    assert (tanh_(x.clone()) - torch.tanh(x)).abs().max() < 2e-7
    y = torch.randn(20, dtype=torch.float64, generator=seeded(), requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: tanh_(z * 1.0), (y,))
