"""The searches behind neighbour lists, each against sorting all distances: spreads, crowds, ties, dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import KDTree

from coordination.proximity import lists, nearest, ranking, within
from coordination.proximity.cells import Cells
from coordination.proximity.pairs import all_pairs
from coordination.proximity.trees import nearest_by_tree

Search = Callable[[torch.Tensor, int, float, torch.Tensor], torch.Tensor]
SEARCHES: dict[str, Search] = {
    "pairs": all_pairs,
    "cells": lambda points, k, radius, edges: Cells(points, radius).search(k, edges),
    "tree": nearest_by_tree,
}


def by_sorting(points: torch.Tensor, k: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """``[N, k]`` senders of ``points [N, D]``, padded with N, and how many are in reach ``[N]``."""
    n, where = len(points), points.double().numpy()
    with np.errstate(invalid="ignore"):
        squared = ((where[None] - where[:, None]) ** 2).sum(-1)
    squared[np.isnan(squared) | np.eye(n, dtype=bool) | (squared > radius * radius)] = np.inf
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    senders = np.full((n, k), n)
    senders[:, : order.shape[1]] = np.where(np.isfinite(np.take_along_axis(squared, order, 1)), order, n)
    return senders, np.isfinite(squared).sum(1)


def assert_exact(search: Search, points: torch.Tensor, k: int, radius: float) -> None:
    """A search of samples ``[b, N, D]`` finds what sorting does."""
    b, n, _ = points.shape
    edges = torch.full((b, 2, n, k), -1)
    found = search(points.double().movedim(-1, 0).contiguous(), k, radius, edges)
    expected = [by_sorting(p, k, radius) for p in points]
    np.testing.assert_array_equal(edges[:, 0].numpy(), np.stack([senders for senders, _ in expected]))
    assert found.sum(-1).tolist() == [int(count.sum()) for _, count in expected]
    assert (edges[:, 1] == -1).all()


@st.composite
def worlds(draw: st.DrawFn) -> tuple[torch.Tensor, float]:
    """Two samples in 1 to 4 dimensions, evenly, in clusters, along lines, on lattices or far from the origin."""
    n, dim = draw(st.integers(33, 160)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    points = torch.rand(2, n, dim, generator=generator, dtype=draw(st.sampled_from([torch.float32, torch.float64])))
    kind = draw(st.sampled_from(["even", "clusters", "line", "lattice", "far", "outlier", "dead"]))
    points = points * draw(st.sampled_from([1, 10, 300]))
    if kind == "clusters":
        points = points * 0.02 + (points[:, :1] * torch.randint(0, 4, (2, n, 1), generator=generator))
    elif kind == "line":
        points[..., draw(st.integers(0, dim - 1))] *= 1_000
    elif kind == "lattice":
        points = points.round()
    elif kind == "far":
        points = points - 1e7
    elif kind == "outlier":
        first = draw(st.integers(0, n - 1))
        points[:, first : first + 2] = draw(st.sampled_from([1e30, -1e6, math.inf, math.nan, -math.nan]))
    elif kind == "dead":
        points[torch.rand(2, n, generator=generator) < 0.7] = torch.nan
    return points, draw(st.sampled_from([0.05, 0.5, 1.0, 2.5, 30.0]))


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
@given(worlds(), st.integers(1, 20))
def test_every_search_equals_sorting(search, world, k):
    assert_exact(search, world[0], k, world[1])


@pytest.mark.parametrize("search", [all_pairs, nearest_by_tree], ids=["pairs", "tree"])
@given(worlds(), st.integers(1, 20))
def test_without_a_radius_too(search, world, k):
    assert_exact(search, world[0], k, math.inf)


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
@pytest.mark.parametrize("radius", [0.1, 100.0])
def test_crowds(search, radius):
    """All in one place; in two; and most in one among others, which is also rarer than what a row holds."""
    generator = torch.Generator().manual_seed(0)
    one, two = torch.zeros(700, 2), torch.arange(700).remainder(2).reshape(-1, 1).expand(-1, 2).float()
    some = torch.rand(700, 2, generator=generator) * 20
    some[100:600] = torch.tensor([3.7, -1.2])
    assert_exact(search, torch.stack([one, two, some]), 5, radius)


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
def test_distances_that_differ_in_the_last_bit(search):
    """Agent 1 is farther from agent 0 than agent 2, by one unit in the last place, and beyond a radius of 1."""
    points = torch.full((1, 40, 1), math.nan, dtype=torch.float64)
    points[0, :3, 0] = torch.tensor([0.0, math.nextafter(1, 2), 1.0], dtype=torch.float64)
    assert_exact(search, points, 2, 2.0)
    edges = torch.empty(1, 2, 40, 2, dtype=torch.int64)
    found = search(points.movedim(-1, 0).contiguous(), 2, 1.0, edges)
    assert edges[0, 0, 0].tolist() == [2, 40]
    assert found.sum() == 4  # 0 and 2 hear each other, and so do 1 and 2


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
def test_nobody_hears_who_is_nowhere(search):
    points = torch.rand(1, 40, 2, generator=torch.Generator().manual_seed(0))
    for i, nowhere in enumerate([math.nan, -math.nan, math.inf, -math.inf] * 2):
        points[0, i, i % 2 :] = nowhere
    assert_exact(search, points, 12, 0.7)


def test_the_border_is_in_reach_wherever_it_lies():
    """Pairs exactly a radius apart along one axis, in sixteenths, which are exact."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randint(0, 2**14, (1, 1_500, 2), generator=generator) / 16.0
    points[0, 500:1000] = points[0, :500] + torch.tensor([1.0, 0.0])
    points[0, 1000:] = points[0, :500] + torch.tensor([0.0, 1.0])
    assert_exact(SEARCHES["cells"], points, 4, 1.0)


@given(worlds(), st.integers(1, 20))
def test_sorting_without_packing_is_the_same(world, k):
    """What other devices do."""
    points, radius = world
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_packed", lambda squared, names, k, *_: ranking._sorted(squared, names, k))
        assert_exact(SEARCHES["cells"], points, k, radius)
        assert_exact(all_pairs, points, k, radius)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e9], ids=["dense", "usual", "sparse"])
def test_many_agents_equal_a_tree(scale):
    """5,000 of them with one far away: links, and those dropped, as by scipy."""
    points = torch.rand(5_000, 2, generator=torch.Generator().manual_seed(0)).double() * 70 * scale
    points[17] = 1e18
    graph, dropped = within(points, 1.5, 16)
    tree = KDTree(points.numpy())
    reach = tree.query_ball_point(points.numpy(), 1.5, return_length=True) - 1
    assert dropped.item() == np.clip(reach - 16, 0, None).sum()
    distance, sender = tree.query(points.numpy(), k=17, distance_upper_bound=1.5)
    heard = graph.edges[0].reshape(5_000, 16)
    if scale == 1:
        order = np.take_along_axis(sender, np.argsort(distance, 1, kind="stable"), 1)
        np.testing.assert_array_equal(heard[reach > 0], order[reach > 0, 1:])
    assert (heard < 5_000).sum(-1).tolist() == np.minimum(reach, 16).tolist()


@pytest.mark.parametrize("n", [40, 200])
def test_large_batches_equal_samples_one_by_one(n):
    """More agents than are held at once."""
    samples = 3 * lists.AGENTS_AT_ONCE // (2 * n)
    points = torch.rand(samples, n, 2, generator=torch.Generator().manual_seed(0)) * n**0.5
    alive = torch.rand(samples, n, generator=torch.Generator().manual_seed(1)) < 0.9
    graph, dropped = within(points, 1.5, 6, alive)
    for i in (0, lists.AGENTS_AT_ONCE // n - 1, lists.AGENTS_AT_ONCE // n, samples - 1):
        alone, lost = within(points[i], 1.5, 6, alive[i])
        assert torch.equal(graph.edges[i], alone.edges)
        assert torch.equal(graph.row_start[i], alone.row_start)
        assert dropped[i] == lost


def test_positions_may_be_whole_numbers():
    """Of any size: those of predators on a grid, or past what float32 tells apart."""
    points = torch.tensor([[0, 0], [2**24 + 1, 0], [2**24, 0]])
    alive = torch.ones(3, dtype=torch.bool)
    assert nearest(points, 1, alive).edges[0].tolist() == [2, 2, 1]


@pytest.mark.parametrize("n", [20, 120, 800])
def test_a_radius_beyond_everything_links_all(n):
    points = torch.rand(n, 2, generator=torch.Generator().manual_seed(0))
    graph, dropped = within(points, 1e200, 4)
    assert torch.equal(graph.edges, nearest(points, 4).edges)
    assert dropped.item() == n * (n - 1 - 4)
