from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.graph import Graph
from coordination.proximity import nearest, within

INFINITE = float("inf")


def expected(points: torch.Tensor, slots: int, radius: float, alive: torch.Tensor) -> tuple[list[list[int]], int]:
    """Senders of every receiver and the number left out, by sorting (distance, index) pairs in plain Python."""
    n, lists, dropped = len(points), [], 0
    where = points.double().tolist()
    for i in range(n):
        near = [
            (sum((a - b) ** 2 for a, b in zip(where[j], where[i], strict=True)), j)
            for j in range(n)
            if j != i and alive[i] and alive[j]
        ]
        near = sorted(pair for pair in near if pair[0] <= radius**2)
        dropped += max(len(near) - slots, 0)
        lists.append([j for _, j in near[:slots]] + [n] * (slots - len(near[:slots])))
    return lists, dropped


def lists(graph: Graph, slots: int) -> list:
    return graph.edges[..., 0, :].unflatten(-1, (-1, slots)).tolist()


@st.composite
def scenes(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of two samples, often on a lattice (many ties), and who lives; few and many agents."""
    n = draw(st.sampled_from([1, 2, 5, 12, 70, 110]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    points = torch.rand(2, n, 2, generator=generator) * draw(st.sampled_from([2, 10]))
    if draw(st.booleans()):
        points = points.round()  # many at one place, and more at one distance
    alive = torch.rand(2, n, generator=generator) < draw(st.sampled_from([0.2, 0.8, 2.0]))
    return points, alive


def hidden(points: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
    """The first sample's dead stand where they fell, the second's nowhere."""
    nowhere = ~alive & torch.tensor([[False], [True]])
    return torch.where(nowhere.unsqueeze(-1), torch.nan, points)


@given(scenes(), st.integers(1, 7))
def test_nearest_equals_sorting(scene, k):
    points, alive = scene
    found = lists(nearest(hidden(points, alive), k, alive), k)
    assert found == [expected(p, k, INFINITE, a)[0] for p, a in zip(points, alive, strict=True)]


@given(scenes(), st.integers(1, 7), st.sampled_from([0.5, 1.0, 2.5, 5.0]))
def test_within_equals_sorting(scene, capacity, radius):
    points, alive = scene
    graph, dropped = within(hidden(points, alive), radius, capacity, alive)
    by_hand = [expected(p, capacity, radius, a) for p, a in zip(points, alive, strict=True)]
    assert lists(graph, capacity) == [found for found, _ in by_hand]
    assert dropped.tolist() == [count for _, count in by_hand]


def test_a_line_by_hand():
    line = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    assert lists(nearest(line, 2), 2) == [[1, 2], [0, 2], [3, 1], [2, 1]]
    graph, dropped = within(line, radius=2.0, capacity=1)  # the border of the circle counts
    assert lists(graph, 1) == [[1], [0], [3], [2]]
    assert dropped.item() == 2  # 1 also reaches 2, 2 also reaches 1


@pytest.mark.parametrize("n", [50, 110])
def test_coinciding_agents_are_ordered_by_index(n):
    graph = nearest(torch.zeros(n, 2), 3)
    assert lists(graph, 3)[0] == [1, 2, 3]
    assert lists(graph, 3)[-1] == [0, 1, 2]


@pytest.mark.parametrize("n", [6, 100])
def test_leading_axes_and_permutations(n):
    points = torch.rand(2, 3, n, 3, generator=torch.Generator().manual_seed(0))
    graph, dropped = within(points, 0.4, 5)
    assert graph.edges.shape == (2, 3, 2, n * 5)
    assert dropped.shape == (2, 3)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    moved, dropped_moved = within(points[:, :, order], 0.4, 5)
    names = torch.cat([order, torch.tensor([n])])
    back = names[torch.tensor(lists(moved, 5))]
    original = torch.tensor(lists(graph, 5))[:, :, order]
    assert torch.equal(back, original)
    assert torch.equal(dropped, dropped_moved)


@pytest.mark.parametrize("n", [5, 110])
def test_agents_that_are_nowhere_hear_nobody(n):
    points = torch.rand(n, 2)
    points[2, 1] = torch.nan
    graph = nearest(points, n)
    assert lists(graph, n)[2] == [n] * n
    assert all(2 not in row for row in lists(graph, n))
    assert (torch.tensor(lists(graph, n)[0]) < n).sum() == n - 2


def test_bad_arguments_are_refused():
    points = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="k: must be at least 1, got 0"):
        nearest(points, 0)
    with pytest.raises(ValueError, match=r"radius: must be positive, got -1\.0"):
        within(points, -1.0, 3)
    with pytest.raises(ValueError, match="capacity: must be at least 1, got 0"):
        within(points, 1.0, 0)
