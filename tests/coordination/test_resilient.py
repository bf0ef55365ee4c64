"""Resilient consensus: what robust graphs guarantee, what others do not, and what is refused."""

from __future__ import annotations

import dataclasses

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import connected, relabelled, topology

from coordination.aggregation import krum, trimmed_around
from coordination.consensus import Resilient, run
from coordination.graph import Graph
from coordination.topology import Topology

FULL, CIRCULANT = topology(nx.complete_graph(5)), topology(nx.circulant_graph(8, [1, 2]))
CLIQUES = topology(
    nx.Graph([*[(i, j) for k in (0, 4) for i in range(k, k + 4) for j in range(k, i)], *[(i, i + 4) for i in range(4)]])
)


def against_a_ramp(graph: Topology, f: int, rounds: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    """Honest values before and after, with agent 0 adding a quarter to its value in every round."""
    x = torch.linspace(0, 1, graph.num_agents, dtype=torch.float64).unsqueeze(-1)
    protocol = Resilient("wmsr", f)
    state = protocol.init(x, graph)
    for k in range(rounds):
        value = state.value.clone()
        value[0] = 0.25 * k
        state = protocol.step(dataclasses.replace(state, value=value), graph)
    return x[1:], state.value[1:]


@pytest.mark.parametrize("graph", [FULL, CIRCULANT])
def test_robust_graphs_agree_inside_the_hull_despite_a_ramp(graph):
    before, after = against_a_ramp(graph, f=1)
    assert float(after.max() - after.min()) < 1e-12
    assert before.min() <= after.min()
    assert after.max() <= before.max()


def test_without_trimming_one_liar_drags_everyone_along():
    _, after = against_a_ramp(FULL, f=0)
    assert after.min() > 20


def test_well_connected_but_not_robust_freezes_without_any_liar():
    x = torch.tensor([0.0] * 4 + [1.0] * 4)
    result = run(Resilient("wmsr", 1), x, CLIQUES, rounds=200)
    assert torch.equal(result.value, x)
    with pytest.raises(ValueError, match=r"f = 1 is too large, 'custom' is not \(2, 2\)-robust: all subsets of 8"):
        run(Resilient("wmsr", 1), x, CLIQUES, tol=1e-3)
    assert run(Resilient("wmsr", 1), x, CIRCULANT, tol=1e-6).converged


@given(connected(), st.integers(0, 2), st.integers(0, 2**31))
def test_wmsr_equals_its_definition_agent_by_agent_and_stays_in_the_hull(graph, f, seed):
    x = torch.randn(3, graph.num_agents, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    up = torch.rand(3, graph.num_edges, generator=torch.Generator().manual_seed(seed)) < 0.8
    protocol = Resilient("wmsr", f)
    for link_up in (None, up):
        value = protocol.step(protocol.init(x, graph), graph, link_up).value
        for b, i in ((0, 0), (2, graph.num_agents - 1)):
            heard = graph.edges[0, (graph.edges[1] == i) & (True if link_up is None else up[b])]
            assert torch.allclose(value[b, i], trimmed_around(x[b, i], x[b, heard], f))
        assert (value <= x.amax(-2, keepdim=True) + 1e-12).all()
        assert (value >= x.amin(-2, keepdim=True) - 1e-12).all()


@pytest.mark.parametrize("rule", ["wmsr", "trimmed_mean", "median", "geometric_median", "krum", "centred_clipping"])
def test_every_rule_survives_a_liar_where_everyone_hears_everyone(rule):
    full = topology(nx.complete_graph(7))
    protocol = Resilient(rule, 1, radius=0.5 if rule == "centred_clipping" else None)
    x = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = protocol.init(x, full)
    for _ in range(60):
        value = state.value.clone()
        value[:, 0] = 1e6
        state = protocol.step(dataclasses.replace(state, value=value), full)
    honest = state.value[:, 1:]
    if rule == "centred_clipping":  # clipping bounds the pull of a round: no more than radius / 7
        assert honest.abs().max() < 3 + 60 * 0.5 / 7
    else:
        assert (honest.amax(-2) - honest.amin(-2)).max() < 1e-3
        assert (honest <= x[:, 1:].amax(-2, keepdim=True) + 1e-6).all()


@given(connected(4), st.sampled_from(["wmsr", "median", "geometric_median"]), st.integers(0, 2**31))
def test_names_batches_and_per_sample_edges_do_not_matter(graph, rule, seed):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(2, graph.num_agents, 2)))
    protocol = Resilient(rule, 1 if rule == "wmsr" else 0)
    value = run(protocol, x, graph, rounds=2, feature_dims=1).value
    order = rng.permutation(graph.num_agents)
    moved = torch.empty_like(x)
    moved[:, order] = x
    assert torch.allclose(
        run(protocol, moved, relabelled(graph, order), rounds=2, feature_dims=1).value[:, order], value
    )
    own = Graph.from_edges(graph.edges.expand(2, -1, -1), graph.num_agents)
    assert torch.allclose(run(protocol, x, own, rounds=2, feature_dims=1).value, value)
    assert torch.allclose(run(protocol, x[1], graph, rounds=2, feature_dims=1).value, value[1])


def test_dead_agents_and_agents_that_hear_too_little_change_nothing():
    x = torch.tensor([0.0, 1.0, 2.0, 3.0, torch.nan])
    alive = torch.tensor([True] * 4 + [False])
    result = run(Resilient("trimmed_mean", 1), x, FULL, rounds=1, alive=alive)
    assert result.value[:4].tolist() == [1.5] * 4
    assert result.value[4].isnan()
    silent = torch.zeros(FULL.num_edges, dtype=torch.bool)
    protocol = Resilient("median", 1)
    state = protocol.init(torch.arange(5.0).unsqueeze(-1), FULL)
    assert torch.equal(protocol.step(state, FULL, silent).value, state.value)


def test_a_star_is_gathered_without_a_square():
    star = topology(nx.star_graph(3000))
    x = torch.randn(2, 3001, generator=torch.Generator().manual_seed(0))
    value = run(Resilient("wmsr", 1), x, star, rounds=1).value
    leaves = trimmed_around(x[:, :1], x[:, 1:].unsqueeze(-1), 1).squeeze(-1)
    assert torch.allclose(value[:, 0], leaves, atol=1e-5)


def test_krum_on_a_complete_graph_is_the_central_rule():
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    full = topology(nx.complete_graph(7))
    for convention in ("published", "byzfl"):
        value = run(Resilient("krum", 2, convention=convention), x, full, rounds=1, feature_dims=1).value
        assert torch.allclose(value, krum(x, 2, convention=convention).expand(7, 2))


def test_conditions_are_named():
    ring = topology(nx.cycle_graph(6))
    with pytest.raises(
        ValueError, match="'krum' with f = 1 needs 5 values, its own included; agent 0 hears 2 neighbours"
    ):
        run(Resilient("krum", 1), torch.arange(6.0), ring, rounds=1)
    with pytest.raises(ValueError, match="did you mean 'median'"):
        Resilient("meadian", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="radius: belongs to 'centred_clipping'"):
        Resilient("median", 1, radius=1.0)
    with pytest.raises(ValueError, match="radius: belongs to 'centred_clipping'"):
        Resilient("centred_clipping", 1)
    with pytest.raises(ValueError, match="convention: belongs to 'krum'"):
        Resilient("median", 1, convention="byzfl")
