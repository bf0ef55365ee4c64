import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination import tree
from coordination.metrics.streaming import Running, interval, pair_sample

numbers = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8)


@given(st.lists(numbers, min_size=1, max_size=5))
def test_any_split_of_a_stream_gives_the_same_moments(parts):
    running = Running.empty()
    for part in parts:
        running = running.add(torch.tensor(part, dtype=torch.float64))
    whole = torch.tensor([x for part in parts for x in part], dtype=torch.float64)
    assert running.count.item() == len(whole)
    assert running.mean.item() == pytest.approx(whole.mean().item(), abs=1e-9)
    if len(whole) > 1:
        assert running.variance.item() == pytest.approx(whole.var().item(), abs=1e-6, rel=1e-9)


def test_masked_numbers_never_happened():
    x = torch.tensor([[1.0, torch.nan], [3.0, 5.0], [torch.nan, 7.0]])
    running = Running.empty((2,)).add(x, x.isfinite())
    assert running.count.tolist() == [2, 2]
    assert running.mean.tolist() == [2, 6]
    rows = Running.empty((2,)).add(x, torch.tensor([False, True, False]))
    assert rows.mean.tolist() == [3, 5]
    nothing = running.add(x, torch.zeros(3, dtype=torch.bool))
    for (name, a), (_, b) in zip(tree.named(running), tree.named(nothing), strict=True):
        assert torch.equal(a, b), name
    assert Running.empty().variance.isnan()
    assert Running.empty().add(torch.tensor(torch.nan), torch.tensor(False)).count == 0


def test_large_offsets_lose_no_variance():
    x = torch.tensor([1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16], dtype=torch.float64)
    running = Running.empty()
    for one in x:
        running = running.add(one)
    assert running.variance.item() == pytest.approx(30)


def test_intervals_cover_the_mean_as_often_as_they_say():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4000, generator=draw) + 2
    low, high = interval(Running.empty((4000,)).add(x))
    covered = ((low < 2) & (high > 2)).double().mean().item()
    assert covered == pytest.approx(0.95, abs=0.02)


def test_pairs_are_even_over_all_pairs():
    first, second = pair_sample(5, 60_000, torch.Generator().manual_seed(0))
    assert (first < second).all()
    counts = torch.bincount(first * 5 + second, minlength=25)
    counts = counts[counts > 0]
    assert len(counts) == 10
    assert (counts - 6000).abs().max() < 4.5 * math.sqrt(60_000 * 0.1 * 0.9)
    with pytest.raises(ValueError, match="needs at least 2 agents and 1 pair, got 1 and 5"):
        pair_sample(1, 5, torch.Generator())


def test_streams_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected any leading axes and then \(3,\), got \(3, 2\)"):
        Running.empty((3,)).add(torch.ones(3, 2))
    with pytest.raises(ValueError, match="mask: expected leading axes"):
        Running.empty((3,)).add(torch.ones(2, 3), torch.ones(3, dtype=torch.bool))
