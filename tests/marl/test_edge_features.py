"""Features of links: own layers against loops and PyG, dead links, declared widths, and a task that needs them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from feature_probes import Marked, learned
from simulated_device import ACCELERATORS, accelerator, assert_same

import envs
from coordination import tree
from coordination.graph import Graph
from coordination.topology import Topology
from envs import registry
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec
from marl.networks.build import build_critic, build_policy
from marl.networks.config import CriticConfig, GraphConfig, NetworkConfig
from marl.networks.graph import Aggregation
from marl.networks.layers.attention import NeighbourAttention
from marl.networks.layers.convolution import Convolution
from marl.networks.layers.sharing import Sharing

N, B, E, WIDTH, EDGE, DIM = 6, 3, 14, 5, 3, 8
ALL = Sharing([0] * N, "all")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def links(shared: bool, weighted: bool = False, seed: int = 0) -> Graph:
    """Random links with features, some down, some padded where each sample has its own."""
    generator = seeded(seed)
    chosen = (torch.rand(N, N, generator=generator) < 0.5).fill_diagonal_(False)
    topology = Topology(chosen.nonzero().T, N)
    count = topology.num_edges if shared else E
    attr = torch.randn(B, count, EDGE, generator=generator)
    live = torch.rand(B, count, generator=generator) < 0.8
    weight = torch.rand(B, count, generator=generator) if weighted else None
    if shared:
        return Graph(topology=topology, live=live, weight=weight, attr=attr)
    pairs = torch.stack([torch.randperm(N * (N - 1), generator=generator)[:E] for _ in range(B)])
    sender, receiver = pairs // (N - 1), pairs % (N - 1)
    receiver = receiver + (receiver >= sender).long()
    edges = torch.stack([sender, receiver], 1)
    edges[:, :, :3] = N  # padding
    return Graph.from_edges(edges, N, live, weight, attr)


def edge_list(graph: Graph, b: int) -> list[tuple[int, int, int]]:
    """Links of a sample that are up: place, sender, receiver."""
    edges = graph.topology.edges if graph.topology is not None else graph.edges[b]
    up = graph.up()
    return [(e, s, r) for e, (s, r) in enumerate(edges.T.tolist()) if up is None or up[b, e]]


SHARINGS = {
    "all": ALL,
    "group": Sharing([0, 0, 0, 0, 1, 1], "group"),
    "none": Sharing(range(N), "none"),
    "explicit": Sharing([1, 0, 1, 1, 2, 0], "explicit"),
}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("how", ["mean", "sum"])
@pytest.mark.parametrize("sharing", SHARINGS)
def test_messages_equal_a_loop_over_links(shared: bool, how: str, sharing: str) -> None:
    who = SHARINGS[sharing]
    layer, graph = Aggregation(DIM, how, who, seeded(), 1.0, EDGE), links(shared, weighted=True)
    x, alive = torch.randn(B, N, DIM, generator=seeded(1)), torch.rand(B, N, generator=seeded(2)) < 0.7
    y, owner = layer(x, graph, alive), who.owner
    for b in range(B):
        total, heard = torch.zeros(N), torch.zeros(N, DIM)
        for e, s, r in edge_list(graph, b):
            if alive[b, s]:
                told = torch.relu(x[b, s] + graph.attr[b, e] @ layer.edge.weight[owner[r]])
                heard[r] += graph.weight[b, e] * told
                total[r] += graph.weight[b, e]
        if how == "mean":
            heard /= torch.where(total == 0, 1.0, total).unsqueeze(-1)
        for i in range(N):
            p = owner[i]
            expected = x[b, i] @ layer.own.weight[p] + heard[i] @ layer.link.weight[p]
            if alive[b, i]:
                torch.testing.assert_close(y[b, i], expected + layer.own.bias[p] + layer.link.bias[p])


@pytest.mark.parametrize("shared", [True, False])
def test_sum_equals_pyg_gine(shared: bool) -> None:
    from torch_geometric.nn import GINEConv

    layer, graph = Aggregation(DIM, "sum", ALL, seeded(), 1.0, EDGE), links(shared)
    inner = torch.nn.Linear(DIM, DIM)
    inner.weight.data, inner.bias.data = layer.link.weight[0].T, layer.link.bias[0]
    reference = GINEConv(inner, eps=-1.0, edge_dim=EDGE)
    reference.lin.weight.data, reference.lin.bias.data = layer.edge.weight[0].T, torch.zeros(DIM)
    x = torch.randn(B, N, DIM, generator=seeded(1))
    edges, _, attr = graph.flat(B)
    rows = torch.cat([x.flatten(0, 1), torch.zeros(1, DIM)])
    expected = reference(rows, edges, attr)[:-1].reshape(x.shape) + layer.own(x)
    torch.testing.assert_close(layer(x, graph, None), expected)


def gatv2(layer: NeighbourAttention) -> torch.nn.Module:
    from torch_geometric.nn import GATv2Conv

    reference = GATv2Conv(DIM, DIM // layer.heads, heads=layer.heads, edge_dim=EDGE)
    reference.lin_l.weight.data, reference.lin_r.weight.data = layer.sender.weight[0].T, layer.receiver.weight[0].T
    reference.lin_l.bias.data, reference.lin_r.bias.data = layer.sender.bias[0], layer.receiver.bias[0]
    reference.lin_edge.weight.data, reference.att.data = layer.edge.weight[0].T, layer.score.unsqueeze(0)
    return reference


@pytest.mark.parametrize("shared", [True, False])
def test_attention_equals_pyg_gatv2_in_value_and_gradient(shared: bool) -> None:
    layer, graph = NeighbourAttention(DIM, ALL, seeded(), heads=2, edge_dim=EDGE), links(shared)
    for linear in (layer.sender, layer.receiver):
        linear.bias.data.normal_(generator=seeded(3))
    x, alive = torch.randn(B, N, DIM, generator=seeded(1)), torch.rand(B, N, generator=seeded(2)) < 0.7
    reference = gatv2(layer)
    edges, _, attr = graph.flat(B, alive)
    rows = torch.cat([x.flatten(0, 1), torch.zeros(1, DIM)])
    expected = reference(rows, edges, attr)[:-1].reshape(x.shape)
    y = layer(x, graph, alive)
    torch.testing.assert_close(y, expected)
    (y * x).sum().backward()
    (expected * x).sum().backward()
    torch.testing.assert_close(layer.edge.weight.grad[0], reference.lin_edge.weight.grad.T)
    torch.testing.assert_close(layer.sender.weight.grad[0], reference.lin_l.weight.grad.T)
    torch.testing.assert_close(layer.receiver.weight.grad[0], reference.lin_r.weight.grad.T)


@pytest.mark.parametrize("name", ["GATv2Conv", "GATConv", "TransformerConv", "GENConv", "GeneralConv"])
def test_pyg_layers_read_features_where_they_take_them(name: str) -> None:
    layer, graph = Convolution(name, DIM, ALL, seeded(), EDGE), links(shared=True)
    x = torch.randn(B, N, DIM, generator=seeded(1))
    edges, _, attr = graph.flat(B)
    rows = torch.cat([x.flatten(0, 1), torch.zeros(1, DIM)])
    up = graph.up().reshape(-1, 1)
    expected = layer.layer(rows, edges, edge_attr=torch.where(up, attr, 0.0))[:-1].reshape(x.shape)
    torch.testing.assert_close(layer(x, graph, None), expected)
    assert not torch.allclose(layer(x, replace(graph, attr=graph.attr + 1), None), expected)


def test_pyg_layers_without_features_do_without() -> None:
    layer, graph = Convolution("GCNConv", DIM, ALL, seeded(), EDGE), links(shared=True)
    x = torch.randn(B, N, DIM, generator=seeded(1))
    assert torch.equal(layer(x, graph, None), layer(x, replace(graph, attr=None), None))


def spec(n: int = N) -> AgentSpec:
    return AgentSpec.single(n, ObservationSpec.flat(WIDTH), ActionSpec.discrete(4), edge_dim=EDGE)


LAYERS = ["mean", "sum", "attention", "GATv2Conv"]


def network(layer: str) -> NetworkConfig:
    body = GraphConfig(hidden=DIM, layer=layer, layers=2)
    return NetworkConfig(policy=body, critic=CriticConfig(name="graph", body=body), identity="none")


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("shared", [True, False])
def test_what_dead_and_broken_links_hold_changes_nothing(layer: str, shared: bool) -> None:
    graph, alive = links(shared), torch.rand(B, N, generator=seeded(5)) < 0.7
    alive[:, 0] = True
    obs = torch.randn(B, N, WIDTH, generator=seeded(6))
    ends = graph.topology.edges.expand(B, 2, -1) if shared else graph.edges
    padded = torch.cat([alive, torch.zeros(B, 1, dtype=torch.bool)], 1)
    real = graph.up() & padded.gather(1, ends[:, 0]) & padded.gather(1, ends[:, 1])
    assert 0 < real.sum() < real.numel()
    results = []
    for filler in (0.0, float("nan"), 1e9):
        attr = torch.where(real.unsqueeze(-1), graph.attr, filler).requires_grad_()
        view = View(torch.where(alive.unsqueeze(-1), obs, filler), alive, replace(graph, attr=attr))
        nets = [make(network(layer), spec(), seeded()) for make in (build_policy, build_critic)]
        outputs = [nets[0](view)[0].sum(-1), nets[1](view)[0]]
        sum(torch.where(alive, y, 0.0).sum() for y in outputs).backward()
        assert torch.equal(attr.grad[~real], torch.zeros_like(attr.grad[~real]))
        grads = [p.grad for net in nets for p in net.parameters() if p.grad is not None]
        results.append([torch.where(alive, y, 0.0).detach() for y in outputs] + grads)
    assert all(bool(x.isfinite().all()) for x in results[0])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layer", LAYERS)
def test_equivariance_and_every_weight_is_used(layer: str) -> None:
    graph = replace(links(shared=False), live=None)
    obs, alive = torch.randn(B, N, WIDTH, generator=seeded(6)), torch.ones(B, N, dtype=torch.bool)
    name = torch.randperm(N, generator=seeded(7))  # agent i is now called name[i]
    pairs = torch.where(graph.edges < N, name[graph.edges.clamp(max=N - 1)], N)
    moved = Graph.from_edges(pairs, N, attr=graph.attr)
    policy = build_policy(network(layer), spec(), seeded())
    raw = policy(View(obs, alive, graph))[0]
    torch.testing.assert_close(policy(View(obs[:, name.argsort()], alive, moved))[0][:, name], raw)
    raw.square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in policy.parameters())


@pytest.mark.parametrize("device", ACCELERATORS)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("sharing", ["all", "none"])
@pytest.mark.parametrize("layer", ["mean", "attention"])
def test_an_accelerator_gives_the_same_without_making_the_host_wait(
    layer: str, sharing: str, shared: bool, device: str
) -> None:
    alive = torch.rand(B, N, generator=seeded(5)) < 0.7
    view = View(torch.randn(B, N, WIDTH, generator=seeded(6)), alive, links(shared, weighted=True))
    policy = build_policy(network(layer).model_copy(update={"sharing": sharing}), spec(), seeded())

    def gradients(seen: View) -> list[torch.Tensor]:
        policy.zero_grad()
        raw = policy(seen)[0]
        torch.where(seen.alive.unsqueeze(-1), raw, 0.0).square().sum().backward()
        return [raw.detach(), *(p.grad for p in policy.parameters() if p.grad is not None)]

    expected = gradients(view)
    with accelerator(device) as there:
        policy.to(there.device)
        moved = tree.to(view, there.device)
        gradients(moved)  # by now what does not change from step to step has been brought there
        with there.waits() as waits:
            found = gradients(moved)
        assert waits == []
        assert_same(found, expected, there.home)


def test_features_that_are_missing_or_of_another_width_are_refused() -> None:
    policy, graph = build_policy(network("mean"), spec(), seeded()), links(shared=True)
    obs, alive = torch.randn(B, N, WIDTH), torch.ones(B, N, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"reads 3 features of every link .*, got none; train it on the graph"):
        policy(View(obs, alive, replace(graph, attr=None)))
    with pytest.raises(ValueError, match=r"reads 3 features of every link .*, got 2"):
        policy(View(obs, alive, replace(graph, attr=graph.attr[..., :2])))
    alone = policy(View(obs, alive, graph.without_links()))[0]
    assert bool(alone.isfinite().all())


@pytest.mark.parametrize("name", registry.ENVIRONMENTS)
def test_environments_declare_the_features_of_their_links(name: str) -> None:
    env = envs.make(name, 2)
    attr = env.reset(0).graph.attr
    assert env.agents.edge_dim == (0 if attr is None else attr.shape[-1])


def test_another_graph_has_no_features() -> None:
    assert envs.make("navigation", 2).agents.edge_dim == 7
    assert envs.make("navigation", 2, graph="ring").agents.edge_dim == 0


@pytest.mark.parametrize("layer", ["mean", "attention"])
def test_a_link_tells_whom_to_believe(layer: str) -> None:
    body = GraphConfig(hidden=32, layer=layer)
    config = NetworkConfig(policy=body, critic=CriticConfig(name="local"))
    assert learned(Marked(), config) > 0.97
    if layer == "mean":
        assert 0.6 < learned(Marked(told=False), config) < 0.82
