"""What all protocols share: run, batches, names, states as structs, dead agents, channels, refusals."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import connected, relabelled, topology

from coordination import tree
from coordination.channel import Delay, Drop, Noise, Partition, Quantise
from coordination.consensus import (
    ADMM,
    DGD,
    EXTRA,
    Averaging,
    Chebyshev,
    Delayed,
    DIGing,
    EventTriggered,
    Extremum,
    FiniteTime,
    Gossip,
    LogLinearPool,
    PushSum,
    Resilient,
    disagreement,
    run,
)
from coordination.graph import Graph
from coordination.topology import Topology

CIRCLE = topology(nx.cycle_graph(8))
GENERATOR = torch.Generator().manual_seed(0)


def parabola(x: torch.Tensor) -> torch.Tensor:
    return 2 * (x - 1)


PROTOCOLS = [
    Averaging(),
    Averaging("mh", lazy=0.3),
    Chebyshev(),
    FiniteTime(),
    PushSum(),
    Extremum("min"),
    EventTriggered(0.1),
    Delayed(2, 0.05),
    DGD(parabola, 0.1),
    EXTRA(parabola, 0.1),
    DIGing(parabola, 0.1),
    ADMM(lambda v, rho: (2 + rho * v) / (2 + rho)),
    Resilient("wmsr", 1),
    LogLinearPool(),
]
each = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: type(p).__name__)


@each
@given(graph=connected(), seed=st.integers(0, 2**31))
def test_batches_are_loops_and_names_do_not_matter(protocol, graph, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(graph.num_agents)
    x = torch.from_numpy(rng.normal(size=(2, 2, graph.num_agents, 2)))
    kept = x.clone()
    value = run(protocol, x, graph, rounds=4, feature_dims=1).value
    assert torch.equal(x, kept)
    assert value.is_contiguous()
    for i, j in ((0, 1), (1, 0)):
        assert torch.allclose(run(protocol, x[i, j], graph, rounds=4, feature_dims=1).value, value[i, j])
    moved = torch.empty_like(x)
    moved[..., order, :] = x
    renamed = run(protocol, moved, relabelled(graph, order), rounds=4, feature_dims=1).value
    assert torch.allclose(renamed[..., order, :], value, atol=1e-9)


@each
def test_stopping_and_going_on_is_never_having_stopped(protocol):
    x = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = run(protocol, x, CIRCLE, rounds=3, feature_dims=1).state
    state = tree.unpack(state, tree.pack(state))  # as a checkpoint would
    for _ in range(2):
        state = protocol.step(state, CIRCLE)
    assert torch.equal(protocol.value(state), run(protocol, x, CIRCLE, rounds=5, feature_dims=1).value)
    assert protocol.message(state).shape[:-1] == x.shape[:-1]


@pytest.mark.parametrize(
    "protocol", [Averaging(), PushSum(), Extremum(), Resilient("wmsr", 1), DGD(parabola, 0.1), DIGing(parabola, 0.1)]
)
@given(graph=connected(3), seed=st.integers(0, 2**31))
def test_dead_agents_change_nothing(protocol, graph, seed):
    """Equal to the graph without them, and blind to what stands in their slots."""
    rng = np.random.default_rng(seed)
    alive = rng.random(graph.num_agents) < 0.7
    alive[0] = True
    x = rng.normal(size=graph.num_agents)
    x[~alive] = np.nan
    value = run(protocol, x, graph, rounds=3, alive=torch.from_numpy(alive)).value.numpy()
    assert np.isnan(value[~alive]).all()
    links = graph.edges.numpy()[:, alive[graph.edges.numpy()].all(0)]
    place = np.cumsum(alive) - 1
    smaller = type(graph)(place[links], int(alive.sum()))
    np.testing.assert_allclose(value[alive], run(protocol, x[alive], smaller, rounds=3).value.numpy(), atol=1e-12)


def test_arrays_lists_whole_numbers_and_types():
    assert run(Averaging(), np.arange(8), CIRCLE, rounds=1).value.dtype == torch.float32
    assert run(Averaging(), np.arange(8.0), CIRCLE, rounds=1).value.dtype == torch.float64
    assert run(Averaging(), [0.0] * 8, CIRCLE, rounds=0).value.tolist() == [0.0] * 8
    assert run(Extremum(), torch.arange(8), CIRCLE, rounds=4).value.tolist() == [7] * 8
    assert run(Extremum(), torch.arange(8) == 3, CIRCLE, tol=0).value.tolist() == [1] * 8
    alone = run(Averaging(), [5.0], Topology([[], []], 1), tol=1e-3)
    assert (alone.value.tolist(), alone.rounds) == ([5.0], 1)
    assert run(Averaging(), torch.zeros(0, 8), CIRCLE, tol=1e-3).value.shape == (0, 8)


def test_tolerance_stops_at_agreement_and_reports_what_was_reached():
    x = torch.stack([torch.zeros(8), torch.arange(8.0)])
    result = run(Averaging(), x, CIRCLE, tol=1e-3)
    assert result.converged.all()
    assert (result.residual <= 1e-3).all()
    assert run(Averaging(), x, CIRCLE, rounds=result.rounds - 1).residual.max() > 1e-3
    short = run(Averaging(), x, CIRCLE, tol=1e-3, rounds=3)
    assert short.rounds == 3
    assert short.converged.tolist() == [True, False]
    assert run(Averaging(), x, CIRCLE, rounds=3).converged is None
    still_moving = run(
        EXTRA(parabola, 0.1), torch.zeros(8), CIRCLE, tol=1e-5
    )  # all agree at once, the optimum is later
    assert torch.allclose(still_moving.value, torch.ones(8), atol=1e-3)


def test_disagreement_ignores_the_dead():
    x = torch.tensor([[1.0, 5.0, 100.0], [0.0, 0.0, 0.0]]).unsqueeze(-1)
    alive = torch.tensor([[True, True, False], [False] * 3])
    assert disagreement(x, alive).tolist() == [4.0, 0.0]


def test_channels_lose_and_count_messages():
    x = torch.arange(8.0).expand(2, 8)
    generator = torch.Generator().manual_seed(0)
    apart = run(Averaging(), x, CIRCLE, rounds=300, channel=Partition([0] * 4 + [1] * 4))
    assert torch.allclose(apart.value[0, [0, 7]], torch.tensor([1.5, 5.5]), atol=1e-4)
    lossy = run(Extremum(), x, CIRCLE, rounds=100, channel=Drop(0.5) | Partition([0] * 8), generator=generator)
    assert (lossy.value == 7).all()
    assert lossy.ledger.sent[..., 0].sum() == 2 * 16 * 100
    assert (lossy.ledger.imbalance() == 0).all()


@pytest.mark.parametrize("protocol", [Averaging("mh", lazy=0.25), Extremum(), Resilient("wmsr", 1)])
def test_messages_that_arrive_as_they_were_sent_make_the_same_round(protocol):
    x = torch.randn(3, 8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own = Graph.from_edges(CIRCLE.edges.expand(3, 2, 16), 8)
    for graph in (CIRCLE, own):
        plain = run(protocol, x, graph, rounds=4, feature_dims=1)
        through = run(protocol, x, graph, rounds=4, feature_dims=1, channel=Delay(0))
        assert torch.allclose(through.value, plain.value)
        down = run(protocol, x, graph, rounds=4, feature_dims=1, channel=Delay(0) | Drop(1.0), generator=GENERATOR)
        assert torch.allclose(down.value, x)


def test_averaging_of_late_and_rounded_messages_by_hand():
    pair, x = Topology([[0, 1], [1, 0]], 2), torch.tensor([0.0, 1.0], dtype=torch.float64)
    weight = Averaging(torch.tensor([0.25, 0.25], dtype=torch.float64))
    late = run(weight, x, pair, rounds=3, channel=Delay(1)).value  # nothing, then (1, 0), then again (1, 0)
    assert late.tolist() == [0.25 + 0.25 * 0.75, 0.75 * 0.75]
    rounded = run(weight, x, pair, rounds=1, channel=Quantise(1, 0.0, 1.0))  # levels 1/4 and 3/4
    assert rounded.value.tolist() == [0.25 * 0.75, 1 - 0.25 * 0.75]
    assert rounded.ledger.sent[:, 1].tolist() == [1, 1]  # one bit each
    noisy = run(weight, x.expand(20_000, 2), pair, rounds=1, channel=Noise(2.0), generator=GENERATOR).value
    assert noisy.mean(0).tolist() == pytest.approx([0.25, 0.75], abs=0.02)
    assert noisy.std(0).tolist() == pytest.approx([0.5, 0.5], rel=0.03)


def test_late_messages_delay_agreement():
    x = torch.arange(8.0)
    assert (run(Extremum(), x, CIRCLE, rounds=4 * 3, channel=Delay(2)).value == 7).all()  # a hop takes three rounds
    assert (run(Extremum(), x, CIRCLE, rounds=4 * 3 - 1, channel=Delay(2)).value == 7).sum() == 7
    late = run(Averaging(), x, CIRCLE, tol=1e-5, channel=Delay(2, jitter=2), generator=GENERATOR)
    assert late.converged
    assert 0 < late.value[0] < 7
    assert late.rounds > run(Averaging(), x, CIRCLE, tol=1e-5).rounds


def test_what_needs_true_messages_refuses_others():
    for protocol in (PushSum(), Chebyshev(), Gossip(), EXTRA(parabola, 0.1)):
        with pytest.raises(ValueError, match=f"{type(protocol).__name__}: cannot use messages that a channel changes"):
            run(protocol, torch.zeros(8), CIRCLE, rounds=1, channel=Delay(1), generator=GENERATOR)


def test_graphs_of_each_sample():
    per_sample = Graph.from_edges(torch.stack([CIRCLE.edges, CIRCLE.edges.flip(1)]), 8)
    x = torch.randn(2, 8, dtype=torch.float64)
    for protocol in (Averaging(), PushSum(), Extremum()):
        expected = run(protocol, x, CIRCLE, rounds=3).value
        assert torch.allclose(run(protocol, x, per_sample, rounds=3).value, expected)
    assert run(Averaging(), x, per_sample, tol=1e-6).converged.all()
    alive = torch.ones(2, 8, dtype=torch.bool)
    alive[1, 0] = alive[1, 4] = False  # the second circle falls in two
    with pytest.raises(ValueError, match="the graph is not connected"):
        run(Averaging(), x, per_sample, tol=1e-6, alive=alive)


def test_mistakes_are_named():
    x = torch.arange(8.0)
    with pytest.raises(ValueError, match="give rounds, tol, or both"):
        run(Averaging(), x, CIRCLE)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        run(Averaging(), x, CIRCLE, rounds=-1)
    with pytest.raises(ValueError, match=r"x: expected 8 agents on axis -1, got \(7,\)"):
        run(Averaging(), x[:7], CIRCLE, rounds=1)
    with pytest.raises(ValueError, match=r"x: expected 8 agents on axis -2, got \(2, 8\)"):
        run(Averaging(), x.expand(2, 8), CIRCLE, rounds=1, feature_dims=1)
    with pytest.raises(ValueError, match="feature_dims: 0"):
        run(Averaging(), x, CIRCLE, rounds=1, feature_dims=2)
    with pytest.raises(TypeError, match="expected a Topology, a Graph or a sequence"):
        run(Averaging(), x, nx.cycle_graph(8), rounds=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pass them as weights of the protocol"):
        run(Averaging(), x, Graph(CIRCLE, weight=torch.ones(16)), rounds=1)
    with pytest.raises(ValueError, match="empty sequence"):
        run(Averaging(), x, [], rounds=1)
    with pytest.raises(ValueError, match="values stopped being finite in round"):
        run(DGD(lambda v: -(v**3), 1.0), x, CIRCLE, tol=1e-3)
    with pytest.raises(ValueError, match="Gossip: needs one topology shared by all samples"):
        run(Gossip(), x.expand(1, 8), Graph.from_edges(CIRCLE.edges.unsqueeze(0), 8), rounds=1)
