"""Distributed optimisation of a sum of parabolas on a circle of five, whose answers are known."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import connected, relabelled, topology

from coordination.consensus import ADMM, DGD, EXTRA, Averaging, DIGing, extra_step_limit, run
from coordination.topology import Topology

CIRCLE = topology(nx.cycle_graph(5))
A = torch.arange(1.0, 6.0, dtype=torch.float64).unsqueeze(-1)  # f_i(x) = a_i / 2 (x - b_i)^2
B = torch.tensor([1.0, -1.0, 2.0, 0.0, 3.0], dtype=torch.float64).unsqueeze(-1)
START = torch.zeros(5, dtype=torch.float64)
OPTIMUM = 4 / 3


def gradient(x: torch.Tensor) -> torch.Tensor:
    return A * (x - B)


def prox(v: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    return (A * B + rho * v) / (A + rho)


def rounds_to_optimum(protocol) -> int:
    state = protocol.init(START.unsqueeze(-1), CIRCLE)
    for k in range(1, 1000):
        state = protocol.step(state, CIRCLE)
        if (state.value - OPTIMUM).abs().max() < 1e-10:
            return k
    return 1000


@pytest.mark.parametrize(
    ("protocol", "rounds"), [(EXTRA(gradient, 0.05), 141), (DIGing(gradient, 0.05), 138), (ADMM(prox, 1.0), 54)]
)
def test_exact_methods_reach_the_optimum_in_the_known_number_of_rounds(protocol, rounds):
    assert rounds_to_optimum(protocol) == rounds


def test_constant_step_descent_stalls_beside_the_optimum():
    value = run(DGD(gradient, 0.05), START, CIRCLE, rounds=3000).value
    known = torch.tensor([1.31786, 0.97566, 1.22615, 1.12842, 1.70774], dtype=torch.float64)
    assert torch.allclose(value, known, atol=1e-5)
    assert (value - OPTIMUM).abs().max().item() == pytest.approx(0.374, abs=1e-3)


def test_trackers_sum_to_the_gradients_and_duals_to_zero():
    tracking, dual = DIGing(gradient, 0.05), ADMM(prox)
    state, other = tracking.init(B, CIRCLE), dual.init(B, CIRCLE)
    for _ in range(100):
        state, other = tracking.step(state, CIRCLE), dual.step(other, CIRCLE)
        assert state.tracker.sum().item() == pytest.approx(gradient(state.value).sum().item(), abs=1e-12)
        assert other.dual.sum().item() == pytest.approx(0, abs=1e-12)


def test_extra_diverges_beyond_its_step_limit():
    limit = extra_step_limit(CIRCLE, smoothness=5.0)
    assert limit == pytest.approx(0.1588, abs=1e-4)
    assert torch.allclose(
        run(EXTRA(gradient, 0.9 * limit), START, CIRCLE, tol=1e-9).value, torch.tensor(OPTIMUM).double()
    )
    assert limit == pytest.approx((1 + float(torch.linalg.eigvalsh(CIRCLE.mixing().dense())[0])) / 5)
    assert run(EXTRA(gradient, 3 * limit), START, CIRCLE, rounds=500).residual > 1e3


@given(connected(), st.integers(0, 2**31))
def test_exact_methods_agree_on_random_graphs_and_features(graph, seed):
    rng = np.random.default_rng(seed)
    n = graph.num_agents
    a, b = (torch.from_numpy(rng.uniform(0.5, 2, size=(2, n, 3))) for _ in range(2))
    best = (a * b).sum(-2, keepdim=True) / a.sum(-2, keepdim=True)
    start = torch.from_numpy(rng.normal(size=(2, n, 3)))
    step = 0.4 * extra_step_limit(graph, 2.0)
    for protocol in (EXTRA(lambda x: a * (x - b), step), ADMM(lambda v, rho: (a * b + rho * v) / (a + rho), 0.5)):
        value = run(protocol, start, graph, tol=1e-9, rounds=20_000, feature_dims=1).value
        assert torch.allclose(value, best.expand_as(value), atol=1e-5)


def test_without_gradients_descent_is_averaging_and_names_do_not_matter():
    nothing = torch.zeros_like
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    averaged = run(Averaging(), x, CIRCLE, rounds=6).value
    for protocol in (DGD(nothing, 0.1), DIGing(nothing, 0.1)):
        assert torch.allclose(run(protocol, x, CIRCLE, rounds=6).value, averaged)
    order = np.random.default_rng(1).permutation(5)
    moved_a, moved_b = torch.empty_like(A), torch.empty_like(B)
    moved_a[order], moved_b[order] = A, B
    renamed = relabelled(CIRCLE, order)
    value = run(EXTRA(lambda x: moved_a * (x - moved_b), 0.05), START, renamed, rounds=9).value
    assert torch.allclose(value[order], run(EXTRA(gradient, 0.05), START, CIRCLE, rounds=9).value)


def test_tracking_works_on_a_graph_that_changes():
    halves = [Topology([[0, 1, 2, 3], [1, 0, 3, 2]], 5), Topology([[1, 2, 3, 4, 4, 0], [2, 1, 4, 3, 0, 4]], 5)]
    value = run(DIGing(gradient, 0.02), START, halves, rounds=4000).value
    assert torch.allclose(value, torch.tensor(OPTIMUM).double(), atol=1e-8)


def test_conditions_are_named():
    with pytest.raises(ValueError, match="EXTRA: its step must be positive, got 0"):
        EXTRA(gradient, 0.0)
    with pytest.raises(ValueError, match="'mean' weights are not symmetric"):
        DIGing(gradient, 0.1, "mean")
    with pytest.raises(ValueError, match="ADMM: needs an undirected graph in which every agent has a neighbour"):
        run(ADMM(prox), START, Topology([[0, 1], [1, 0]], 5), rounds=1)
    with pytest.raises(ValueError, match="EXTRA: the graph is not connected"):
        run(EXTRA(gradient, 0.1), START, Topology([[0, 1], [1, 0]], 5), tol=1e-3)
    up = torch.ones(10, dtype=torch.bool)
    with pytest.raises(ValueError, match="EXTRA: lost messages would break it"):
        EXTRA(gradient, 0.1).step(EXTRA(gradient, 0.1).init(B, CIRCLE), CIRCLE, up)
