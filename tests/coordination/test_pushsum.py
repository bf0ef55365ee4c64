"""Push-sum: exact on directed and lossy graphs, with mass conserved in every round."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination import tree
from coordination.channel import Drop
from coordination.consensus import Averaging, PushSum, push_matrix, run
from coordination.graph import Graph
from coordination.topology import Topology

TRIANGLE = Topology([[0, 1, 2, 0], [1, 2, 0, 2]], 3)  # 0 -> 1, 1 -> 2, 2 -> 0, 0 -> 2
X = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)


@st.composite
def strongly_connected(draw: st.DrawFn) -> Topology:
    n = draw(st.integers(2, 7))
    cycle = {(i, (i + 1) % n) for i in range(n)}
    others = [(i, j) for i in range(n) for j in range(n) if i != j and (i, j) not in cycle]
    if others:
        cycle |= set(draw(st.lists(st.sampled_from(others), max_size=6)))
    return Topology(np.array(sorted(cycle)).T, n)


def test_the_ratio_is_exact_where_naive_averaging_is_biased():
    assert torch.allclose(run(PushSum(), X, TRIANGLE, tol=1e-10).value, torch.tensor(3.0).double())
    row_stochastic = run(Averaging("mean"), X, TRIANGLE, rounds=500).value
    assert torch.allclose(row_stochastic, torch.tensor(26 / 9).double())
    values = X.clone()
    for _ in range(500):
        values = push_matrix(TRIANGLE)(values)
    assert torch.allclose(values, torch.tensor([3.0, 2.0, 4.0]).double())


def test_running_sums_survive_losing_half_of_all_messages_and_plain_ones_do_not():
    batch = X.expand(20, 3)
    drop, generator = Drop(0.5), torch.Generator().manual_seed(0)
    robust = run(PushSum(), batch, TRIANGLE, rounds=400, channel=drop, generator=generator)
    assert torch.allclose(robust.value, torch.tensor(3.0).double(), atol=1e-6)
    naive = run(PushSum(robust=False), batch, TRIANGLE, rounds=50, channel=drop, generator=generator)
    assert ((naive.value[..., 0] - 3).abs() > 1e-3).all()
    assert robust.ledger is not None
    sent, delivered = robust.ledger.sent[..., 0].sum(), robust.ledger.delivered[..., 0].sum()
    assert sent == 20 * 4 * 400
    assert 0.47 < delivered / sent < 0.53
    assert robust.ledger.sent[0, 0, 1] == 400 * 2 * 64  # value and weight, 64 bits each


@given(strongly_connected(), st.integers(0, 2**31))
def test_mass_is_conserved_and_weights_stay_positive(graph, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, graph.num_agents, 2, generator=generator, dtype=torch.float64)
    protocol = PushSum()
    state = protocol.init(x, graph)
    total = state.mass.sum(-2)
    for k in range(6):
        up = torch.rand(3, graph.num_edges, generator=generator) < 0.5 if k % 3 else None
        state = protocol.step(state, graph, up)
        held = state.mass.sum(-2) + (0 if state.backlog is None else state.backlog.sum(-2))
        assert torch.allclose(held, total, atol=1e-12)
        assert (state.mass[..., -1] > 0).all()


@given(strongly_connected(), st.integers(0, 2**31))
def test_delivered_backlog_equals_the_difference_of_running_sums(graph, seed):
    """Against the published form: cumulative sums at senders, last received sums at receivers."""
    rng = np.random.default_rng(seed)
    n, (source, receiver) = graph.num_agents, graph.edges.numpy()
    mass = np.stack([rng.normal(size=n), np.ones(n)], 1)
    state = PushSum().init(torch.from_numpy(mass[:, :1]), graph)
    share = 1 / (1 + np.bincount(source, minlength=n))
    sums, seen = np.zeros((n, 2)), np.zeros((graph.num_edges, 2))
    for _ in range(8):
        up = rng.random(graph.num_edges) < 0.6
        state = PushSum().step(state, graph, torch.from_numpy(up))
        sums += mass * share[:, None]
        mass = mass * share[:, None]
        for e in np.flatnonzero(up):
            mass[receiver[e]] += sums[source[e]] - seen[e]
            seen[e] = sums[source[e]]
        np.testing.assert_allclose(state.mass.numpy(), mass, atol=1e-12)


def test_every_message_arriving_equals_the_sparse_product():
    up = torch.ones(4, dtype=torch.bool)
    state = PushSum().init(X.unsqueeze(-1), TRIANGLE)
    for _ in range(3):
        state = PushSum().step(state, TRIANGLE, up)
    plain = run(PushSum(), X, TRIANGLE, rounds=3).state
    assert torch.allclose(state.mass, plain.mass)
    per_sample = Graph.from_edges(TRIANGLE.edges.expand(2, -1, -1), 3)
    both = run(PushSum(), X.expand(2, 3), per_sample, rounds=3).state
    assert torch.allclose(both.mass, plain.mass.expand(2, -1, -1))


def test_dead_agents_change_nothing():
    graph = Topology([[0, 1, 2, 0, 3, 0], [1, 2, 0, 2, 0, 3]], 4)
    alive = torch.tensor([True, True, True, False])
    x = torch.tensor([1.0, 2.0, 6.0, torch.nan], dtype=torch.float64)
    result = run(PushSum(), x, graph, tol=1e-10, alive=alive)
    assert torch.allclose(result.value[:3], torch.tensor(3.0).double())
    assert result.value[3].isnan()
    living = run(PushSum(), X, TRIANGLE, rounds=result.rounds).value
    assert torch.allclose(result.value[:3], living)


def test_states_are_structs_and_conditions_are_named():
    state = run(PushSum(), X.expand(2, 3), TRIANGLE, rounds=1).state
    assert tree.lead(state) == (2,)
    with pytest.raises(ValueError, match="PushSum: the graph is not connected"):
        run(PushSum(), X, Topology([[0, 1], [1, 2]], 3), tol=1e-3)
    lossy = PushSum().step(PushSum().init(X.unsqueeze(-1), TRIANGLE), TRIANGLE, torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="mass waits on 4 links, the graph now has 3"):
        PushSum().step(lossy, Topology([[0, 1, 2], [1, 2, 0]], 3))
