"""Log-linear pooling: known answers, least divergence, Bayes before or after, consensus on natural parameters."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import connected, topology

from coordination.consensus import Averaging, LogLinearPool, gaussian_pool, log_linear_pool, run

TWO = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], dtype=torch.float64).log()


def test_known_pools():
    pooled, log_z = log_linear_pool(TWO)
    assert torch.allclose(pooled.exp(), torch.tensor([0.33739, 0.44174, 0.22087]).double(), atol=1e-5)
    assert log_z.exp().item() == pytest.approx(0.07**0.5 + 0.12**0.5 + 0.03**0.5)
    mean, variance = gaussian_pool(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [4.0]]))
    assert (mean.item(), variance.item()) == (pytest.approx(0.8), pytest.approx(1.6))


@given(st.integers(2, 5), st.integers(2, 4), st.integers(0, 2**31))
def test_the_pool_minimises_weighted_divergence(agents, outcomes, seed):
    rng = np.random.default_rng(seed)
    p = torch.from_numpy(rng.dirichlet(np.ones(outcomes), size=agents)).log()
    w = torch.from_numpy(rng.dirichlet(np.ones(agents)))
    pooled, log_z = log_linear_pool(p, 3 * w)  # scale does not matter

    def divergence(log_q: torch.Tensor) -> float:
        return float((w * (log_q.exp() * (log_q - p)).sum(-1)).sum())

    assert divergence(pooled) == pytest.approx(-float(log_z), abs=1e-9)
    for other in torch.from_numpy(rng.dirichlet(np.ones(outcomes), size=20)).log():
        assert divergence(other) >= divergence(pooled) - 1e-12


@given(st.integers(0, 2**31))
def test_pooling_and_updating_on_shared_evidence_commute(seed):
    rng = np.random.default_rng(seed)
    p = torch.from_numpy(rng.dirichlet(np.ones(4), size=(2, 3))).log()
    evidence = torch.from_numpy(rng.normal(size=4))
    before = log_linear_pool((p + evidence).log_softmax(-1))[0]
    after = (log_linear_pool(p)[0] + evidence).log_softmax(-1)
    assert torch.allclose(before, after)


def test_agents_without_trust_change_nothing_and_vetoes_hold():
    p = torch.cat([TWO, torch.tensor([[-torch.inf, 0.0, -torch.inf]]).double()])
    trusted = log_linear_pool(p, torch.tensor([1.0, 1.0, 0.0]))[0]
    assert torch.allclose(trusted, log_linear_pool(TWO)[0])
    assert log_linear_pool(p)[0].exp().tolist() == [0.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="together the agents rule out every outcome"):
        log_linear_pool(torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]]))
    with pytest.raises(ValueError, match="weights: must not be negative"):
        log_linear_pool(TWO, torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="variance: must be positive"):
        gaussian_pool(torch.zeros(2, 1), torch.zeros(2, 1))


@given(connected(), st.integers(0, 2**31))
def test_consensus_reaches_the_central_pool(graph, seed):
    p = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(3), size=(2, graph.num_agents))).log()
    value = run(LogLinearPool(), p, graph, tol=1e-9, feature_dims=1).value
    assert torch.allclose(value, log_linear_pool(p)[0].unsqueeze(-2).expand_as(value), atol=1e-7)
    assert torch.allclose(value.exp().sum(-1), torch.ones(2, graph.num_agents).double())


def test_averaging_natural_parameters_pools_gaussians():
    ring = topology(nx.cycle_graph(5))
    mean, variance = torch.randn(5, 1).double(), torch.rand(5, 1).double() + 0.5
    natural = torch.cat([mean / variance, 1 / variance], -1)
    value = run(Averaging(), natural, ring, tol=1e-12, feature_dims=1).value[0]
    expected_mean, expected_variance = gaussian_pool(mean, variance)
    assert torch.allclose(value[:1] / value[1:], expected_mean)
    assert torch.allclose(1 / value[1:], expected_variance)
    with pytest.raises(ValueError, match="log-probabilities must be finite"):
        run(LogLinearPool(), torch.full((5, 2), -torch.inf), ring, rounds=1, feature_dims=1)
