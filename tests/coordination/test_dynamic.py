"""Averaging in time: maxima, moving inputs, silent agents and late messages."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import connected, relabelled, topology

from coordination.channel import Drop
from coordination.consensus import (
    Delayed,
    DynamicAverage,
    EventTriggered,
    Extremum,
    delay_margin,
    disagreement,
    run,
    tracking_error,
)
from coordination.topology import Topology

CIRCLE = topology(nx.cycle_graph(10))


@given(connected(), st.integers(0, 2**31))
def test_extremum_takes_as_many_rounds_as_its_holder_is_far(graph, seed):
    x = torch.randperm(graph.num_agents, generator=torch.Generator().manual_seed(seed))
    far = nx.eccentricity(graph.to_networkx(), int(x.argmax()))
    assert (run(Extremum(), x, graph, rounds=far).value == x.max()).all()
    assert far == 0 or not (run(Extremum(), x, graph, rounds=far - 1).value == x.max()).all()
    least = run(Extremum("min"), x, graph, tol=0)
    assert (least.value == 0).all()
    assert least.rounds <= nx.diameter(graph.to_networkx()) + 1


def test_extremum_only_waits_for_lost_messages_and_believes_one_liar():
    x = torch.arange(10.0).expand(4, 10)
    result = run(Extremum(), x, CIRCLE, rounds=200, channel=Drop(0.7), generator=torch.Generator().manual_seed(0))
    assert (result.value == 9).all()
    lied = x.clone()
    lied[:, 3] = 1e6
    assert (run(Extremum(), lied, CIRCLE, rounds=5).value == 1e6).all()


def test_extremum_ignores_the_dead_and_follows_names():
    x = torch.tensor([0.0, 9.0, 3.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 5.0])
    alive = torch.tensor([True, False] + [True] * 8)
    assert (run(Extremum(), x, CIRCLE, tol=0, alive=alive).value[alive] == 5).all()
    order = np.random.default_rng(0).permutation(10)
    moved = torch.empty_like(x)
    moved[order] = x
    two = run(Extremum(), x, CIRCLE, rounds=2).value
    assert torch.equal(run(Extremum(), moved, relabelled(CIRCLE, order), rounds=2).value[order], two)


@given(connected(), st.integers(0, 2**31))
def test_tracking_sums_to_the_inputs_in_every_round(graph, seed):
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(7, 2, graph.num_agents, 3, generator=generator, dtype=torch.float64)
    protocol = DynamicAverage(lambda k: signal[k])
    state = protocol.init(signal[0], graph)
    for k in range(1, 7):
        state = protocol.step(state, graph)
        assert torch.allclose(state.value.sum(-2), signal[k].sum(-2), atol=1e-12)


def test_a_ramp_leaves_the_known_steady_error():
    rate = 0.01 * torch.arange(10, dtype=torch.float64)
    ramp = DynamicAverage(lambda k: (k * rate).unsqueeze(-1))
    value = run(ramp, torch.zeros(10, dtype=torch.float64), CIRCLE, rounds=400).value
    error = value - 400 * rate.mean()
    assert error.abs().max().item() == pytest.approx(0.24375, abs=1e-9)
    assert torch.allclose(tracking_error(CIRCLE, rate), error, atol=1e-9)
    bound = torch.linalg.vector_norm(rate - rate.mean()) / (1 - CIRCLE.slem())
    assert bound.item() == pytest.approx(0.7134, abs=1e-4)
    assert torch.linalg.vector_norm(error) <= bound


def test_inputs_that_stand_still_are_averaged_exactly():
    protocol = DynamicAverage()
    first, last = torch.zeros(10, 1, dtype=torch.float64), torch.arange(10.0, dtype=torch.float64).unsqueeze(1)
    state = protocol.init(first, CIRCLE)
    for _ in range(300):
        state = protocol.track(state, CIRCLE, last)
    assert torch.allclose(state.value, last.mean(), atol=1e-9)
    with pytest.raises(ValueError, match="has none to ask"):
        protocol.step(state, CIRCLE)
    with pytest.raises(ValueError, match=r"signal: expected \[\*, N, D\] = \(10, 1\), got \(10,\)"):
        run(DynamicAverage(lambda k: torch.zeros(10)), torch.zeros(10), CIRCLE, rounds=1)
    apart = Topology([[0, 1, 2, 3], [1, 0, 3, 2]], 4)
    with pytest.raises(ValueError, match="error_bound: needs a connected graph and weights that converge"):
        EventTriggered(0.1).error_bound(apart)
    with pytest.raises(ValueError, match="delay_margin: 'custom' has no links"):
        delay_margin(Topology(np.zeros((2, 0)), 3))
    with pytest.raises(ValueError, match="needs a connected graph"):
        tracking_error(topology(nx.Graph([(0, 1), (2, 3)])), torch.zeros(4))


def test_events_save_messages_within_the_error_bound():
    x = 10 * torch.randn(5, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    protocol = EventTriggered(floor=0.05, scale=1.0, decay=0.9)
    result = run(protocol, x, CIRCLE, rounds=300)
    assert torch.allclose(result.value.mean(-1), x.mean(-1), atol=1e-12)
    deviation = torch.linalg.vector_norm(result.value - x.mean(-1, keepdim=True), dim=-1)
    assert (deviation <= protocol.error_bound(CIRCLE)).all()
    assert result.state.broadcasts.double().mean() < 0.5 * 300
    exact = run(EventTriggered(floor=0.0, decay=0.9), x, CIRCLE, rounds=300)
    assert torch.allclose(exact.value, x.mean(-1, keepdim=True).expand_as(x), atol=1e-6)


def test_an_event_by_hand():
    pair = topology(nx.path_graph(2))  # W = 1/2 everywhere
    protocol = EventTriggered(floor=1.0, scale=0.0)
    state = protocol.init(torch.tensor([[0.0], [4.0]]), pair)
    state = protocol.step(state, pair)  # nobody has moved yet: both use 0 and 4
    assert state.value.squeeze(-1).tolist() == [2.0, 2.0]
    assert state.broadcasts.tolist() == [1, 1]
    state = protocol.step(state, pair)  # both moved by 2 > 1 and say so; equal values stay
    assert state.broadcasts.tolist() == [2, 2]
    assert state.value.squeeze(-1).tolist() == [2.0, 2.0]


@pytest.mark.parametrize(("graph", "margin"), [(nx.complete_graph(10), 0.15708), (nx.cycle_graph(10), 0.39270)])
def test_delays_flip_from_decay_to_divergence_at_the_margin(graph, margin):
    graph = topology(graph)
    assert delay_margin(graph) == pytest.approx(margin, abs=1e-5)
    x = torch.randn(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    delay = 20  # an Euler step is a twentieth of the delay, an oscillation at the margin four delays
    for factor, settles in ((0.95, True), (1.05, False)):
        protocol = Delayed(delay, factor * delay_margin(graph) / delay)
        state, spread = protocol.init(x.unsqueeze(-1), graph), []
        for _ in range(108 * delay):
            state = protocol.step(state, graph)
            spread.append(float(disagreement(protocol.value(state))))
        assert protocol.value(state).mean().item() == pytest.approx(x.mean().item(), abs=1e-9)
        early, late = max(spread[4 * delay : 8 * delay]), max(spread[104 * delay :])
        assert late < 0.2 * early if settles else late > 5 * early


@pytest.mark.parametrize("delay", [0, 1, 2, 5])
def test_the_discrete_margin_is_that_of_the_characteristic_polynomial(delay):
    """Roots of ``z^(d+1) - z^d + b``: inside the unit circle below the margin, outside above."""
    margin = Delayed(delay, 1.0).gain_margin()
    for factor, inside in ((0.999, True), (1.001, False)):
        polynomial = np.zeros(delay + 2)
        polynomial[0], polynomial[1] = 1, -1
        polynomial[-1] += factor * margin
        assert (np.abs(np.roots(polynomial)).max() < 1) == inside


def test_late_averaging_refuses_gains_beyond_the_margin():
    x = torch.arange(10.0, dtype=torch.float64)
    low = 2 * math.sin(math.pi / 14) / 4  # delay 3, lambda_N = 4 on the circle
    assert torch.allclose(run(Delayed(3, 0.9 * low), x, CIRCLE, tol=1e-9).value, x.mean())
    with pytest.raises(ValueError, match=r"gain \* lambda_N must be below 0\.4450 for a delay of 3"):
        run(Delayed(3, 1.01 * low), x, CIRCLE, tol=1e-9)
    with pytest.raises(ValueError, match="one-way edges"):
        delay_margin(Topology([[0, 1], [1, 2]], 3))
    up = torch.ones(20, dtype=torch.bool)
    protocol = Delayed(1, 0.2)
    state = protocol.init(x.unsqueeze(-1), CIRCLE)
    assert torch.allclose(protocol.step(state, CIRCLE, up).history[0], protocol.step(state, CIRCLE).history[0])
