"""Optimal weights: the published values where cvxpy is installed, and what is refused where it is not."""

from __future__ import annotations

import builtins

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from small_graphs import connected, cut_grid, eight, fifty, topology

from coordination.consensus import Averaging, convergence_factor, run
from coordination.topology import Topology
from coordination.topology.weights import optimal_weights


@pytest.mark.parametrize(
    ("graph", "kind", "expected"),
    [
        (eight(), "fdla", 0.6433),
        (eight(), "fmmc", 0.6810),
        (fifty(), "fdla", 0.9021),
        (fifty(), "fmmc", 0.9152),
        (cut_grid(), "fdla", 0.9883),
        (cut_grid(), "fmmc", 0.9888),
    ],
)
def test_the_published_table(graph, kind, expected):
    """CVX, examples/graph_laplacian."""
    pytest.importorskip("cvxpy")
    assert convergence_factor(graph, kind) == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("kind", ["fdla", "fmmc"])
def test_optimal_weights_average(kind):
    pytest.importorskip("cvxpy")
    graph = eight()
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
