"""Optimal weights: the published values where cvxpy is installed, and what is refused where it is not."""

from __future__ import annotations

import builtins

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from small_graphs import connected, topology

from coordination.consensus import Averaging, convergence_factor, run
from coordination.topology import Topology
from coordination.topology.weights import optimal_weights

EIGHT = ((0, 1), (0, 4), (1, 2), (1, 3), (1, 6), (1, 7), (2, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 6), (6, 7))


@pytest.mark.parametrize(("kind", "expected"), [("fdla", 0.6433), ("fmmc", 0.6810)])
def test_cvx_table_of_the_small_graph(kind, expected):
    pytest.importorskip("cvxpy")
    graph = Topology(np.array([*EIGHT, *((j, i) for i, j in EIGHT)]).T, 8)
    assert convergence_factor(graph, kind) == pytest.approx(expected, abs=5e-5)
    assert graph.mixing(kind).is_doubly_stochastic()
    weights = graph.mixing(kind).dense()
    assert (weights.min() < -0.03) == (kind == "fdla")
    x = torch.arange(8.0, dtype=torch.float64)
    assert torch.allclose(run(Averaging(kind), x, graph, tol=1e-9).value, x.mean())


@settings(max_examples=5)
@given(graph=connected(3, 7))
def test_no_other_weights_are_faster(graph):
    pytest.importorskip("cvxpy")
    best = convergence_factor(graph, "fdla")
    chain = convergence_factor(graph, "fmmc")
    assert best <= chain + 1e-6
    assert all(chain <= convergence_factor(graph, kind) + 1e-6 for kind in ("metropolis", "mh", "max_degree"))
    assert best <= convergence_factor(graph, "best_constant") + 1e-6


def test_without_cvxpy_the_error_names_the_extra(monkeypatch):
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "cvxpy":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"mixing 'fdla' needs cvxpy: pip install 'concert-marl\[optimal\]'"):
        topology(nx.path_graph(3)).mixing("fdla")


def test_graphs_that_have_no_optimal_weights_are_refused():
    with pytest.raises(ValueError, match="solved for up to 200 agents, got 201"):
        topology(nx.cycle_graph(201)).mixing("fmmc")
    with pytest.raises(ValueError, match="needs a connected undirected graph"):
        topology(nx.Graph([(0, 1), (2, 3)])).mixing("fdla")
    assert optimal_weights(Topology(np.zeros((2, 0)), 1), "fdla").toarray().tolist() == [[1.0]]
