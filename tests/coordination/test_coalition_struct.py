from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination import tree
from coordination.coalition import Coalitions, Exact, canonical, form_batch, members, structure_value
from coordination.games import PairwiseGame, TabularGame

labels = st.lists(st.integers(-1, 5), min_size=6, max_size=6)


@given(labels)
def test_canonical_names_follow_first_appearance(label):
    seen: dict[int, int] = {}
    expected = [-1 if c < 0 else seen.setdefault(c, len(seen)) for c in label]
    assert canonical(torch.tensor(label)).tolist() == expected


def test_canonical_of_a_batch_equals_the_loop_and_takes_any_names():
    label = torch.from_numpy(np.random.default_rng(0).integers(-5, 10**9, (3, 2, 7)))
    rows = [canonical(row) for row in label.reshape(-1, 7)]
    assert torch.equal(canonical(label), torch.stack(rows).reshape(label.shape))


@given(labels, st.sampled_from(["mean", "sum", "max", "min"]))
def test_pool_against_a_loop(label, reduce):
    label = torch.tensor(label)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 6, 3)))
    pooled = Coalitions(label).pool(x, reduce, feature_dims=1)
    for b in range(2):
        for i in range(6):
            group = x[b, label == label[i]]
            expected = {"mean": group.mean(0), "sum": group.sum(0), "max": group.amax(0), "min": group.amin(0)}[reduce]
            assert torch.allclose(pooled[b, i], expected if label[i] >= 0 else torch.zeros(3, dtype=x.dtype))


def test_pool_keeps_nan_of_unassigned_agents_to_themselves_and_conserves_the_sum():
    formed = Coalitions(torch.tensor([[0, 0, -1, 1], [1, -1, 1, 1]]))
    x = torch.tensor([[1.0, 3.0, torch.nan, 5.0], [1.0, torch.nan, 2.0, 3.0]])
    pooled = formed.pool(x)
    assert pooled.tolist() == [[2.0, 2.0, 0.0, 5.0], [2.0, 0.0, 2.0, 2.0]]
    assert torch.equal(pooled.sum(-1), x.nansum(-1))


def test_pool_gradient():
    formed = Coalitions(torch.tensor([0, 1, 0, -1]))
    x = torch.rand(2, 4, 2, dtype=torch.float64, requires_grad=True)
    for reduce in ("mean", "sum", "max"):
        assert torch.autograd.gradcheck(lambda y, r=reduce: formed.pool(y, r, feature_dims=1), x)


def test_numpy_arrays_are_taken():
    table = np.array([0.0, 1, 1, 3])
    formed = Exact().form(TabularGame(table))
    assert formed.pool(np.array([1.0, 3.0])).tolist() == [2.0, 2.0]
    assert canonical(np.array([5, 2])).tolist() == [0, 1]


def test_same_marks_inner_edges():
    formed = Coalitions(torch.tensor([[0, 0, 1], [0, -1, -1]]))
    edges = torch.tensor([[0, 1, 0], [1, 2, 2]])
    assert formed.same(edges).tolist() == [[True, False, False], [False, False, False]]


def test_coalitions_are_structs():
    formed = Coalitions(torch.tensor([[0, 0, 1], [0, 1, 2]]), torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.0]))
    assert tree.index(formed, 1).label.tolist() == [0, 1, 2]
    assert formed.gap.tolist() == [0.5, 0.0]
    assert formed.num_coalitions.tolist() == [2, 3]


def test_members_and_structure_value():
    label = torch.tensor([4, 1, 4, -1])
    assert members(label).tolist() == [[True, False, True, False], [False, True, False, False]]
    table = torch.arange(16.0)
    assert structure_value(TabularGame(table), label).item() == 5.0 + 2.0


def test_form_batch_equals_one_by_one():
    pair = torch.tensor([[2.0, -1.0], [-1.0, 2.0]])
    game = PairwiseGame(torch.zeros(2, 3), [[0, 1], [1, 2]], pair)
    formed = form_batch(Exact(), game)
    assert formed.label.tolist() == [[0, 0, 1], [0, 1, 1]]
    assert formed.value.tolist() == [2.0, 2.0]
    again = form_batch(Exact(), game, previous=formed)
    assert torch.equal(again.label, formed.label)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Coalitions(torch.tensor([0, 7])).pool(torch.zeros(2)), r"expected -1\.\.1, got 0\.\.7"),
        (lambda: Coalitions(torch.tensor([0, 1])).pool(torch.zeros(3)), "expected 2 agents on axis -1"),
        (lambda: Coalitions(torch.tensor([0, 1])).pool(torch.zeros(2), "median"), "reduce: one of"),  # type: ignore[arg-type]
        (lambda: Exact().form(None), "needs a game"),
        (lambda: Exact().form(TabularGame(torch.zeros(2, 4))), "use form_batch"),
        (lambda: Exact().form(TabularGame(torch.ones(4))), "empty coalition must be worth 0"),
        (lambda: structure_value(TabularGame(torch.zeros(4)), torch.tensor([0])), "expected"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
