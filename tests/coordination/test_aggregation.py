"""Robust aggregation against worked vectors, and laws: order does not matter, lies do not move it far."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from coordination.aggregation import (
    centred_clipping,
    geometric_median,
    krum,
    median,
    trimmed_around,
    trimmed_mean,
)

# the vectors on which the library byzfl 0.0.11 and Blanchard et al. (2017) part
X = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9], [4.5, 5.5, 5.5], [100, -100, 100]], dtype=torch.float64)
RULES = {
    "trimmed": lambda x, mask: trimmed_mean(x, 1, mask),
    "median": median,
    "geometric": geometric_median,
    "krum": lambda x, mask: krum(x, 1, mask),
    "byzfl": lambda x, mask: krum(x, 1, mask, "byzfl", average=2),
    "clipped": lambda x, mask: centred_clipping(x, 2.0, iterations=3, mask=mask),
    "around": lambda x, mask: trimmed_around(torch.zeros_like(x[..., 0, :]), x, 1, mask),
}


def test_worked_vectors():
    assert krum(X, 1).tolist() == [4.5, 5.5, 5.5]
    assert krum(X, 1, convention="byzfl").tolist() == [4, 5, 6]
    assert torch.allclose(trimmed_mean(X, 1), torch.tensor([5.16667, 4.16667, 6.83333]).double(), atol=1e-5)
    assert torch.allclose(centred_clipping(X, 10.0), torch.tensor([4.05984, 2.49403, 5.34703]).double(), atol=1e-5)
    assert median(X).tolist() == [4.5, 5, 6]
    assert median(X[:4]).tolist() == [4.25, 5.25, 5.75]
    assert torch.allclose(krum(X, 1, average=2), (X[3] + X[1]) / 2)


def test_krum_scores_by_hand():
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0], [15.0]])  # two closest: 1+9, 1+4, 4+9, 16+36, 64+144
    assert krum(x, 1).tolist() == [1.0]
    assert krum(x, 1, convention="byzfl").tolist() == [3.0]  # three closest: 59, 41, 29, 101, 352; 9+4+16 = 29


def test_trimmed_around_by_hand():
    own = torch.tensor([5.0])
    heard = torch.tensor([[9.0], [8.0], [7.0], [5.0], [4.0]])
    assert trimmed_around(own, heard, 0).item() == pytest.approx(38 / 6)
    assert trimmed_around(own, heard, 1).item() == pytest.approx((5 + 8 + 7 + 5) / 4)  # without 9 and 4
    assert trimmed_around(own, heard, 2).item() == pytest.approx((5 + 7 + 5) / 3)  # without 9, 8 and 4
    assert trimmed_around(own, heard, 5).item() == pytest.approx(5)  # equal values stay


@settings(max_examples=10)
@given(st.integers(3, 8), st.integers(1, 3), st.integers(0, 2**31))
def test_geometric_median_minimises_the_sum_of_distances(size, dim, seed):
    x = np.random.default_rng(seed).normal(size=(size, dim))

    def cost(v: np.ndarray) -> float:
        return float(np.linalg.norm(x - v, axis=1).sum())

    ours = geometric_median(torch.from_numpy(x), iterations=1000).numpy()
    best = min(
        minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).fun
        for start in (ours, x[0])
    )
    assert cost(ours) <= best * (1 + 1e-4)


@given(st.sampled_from(sorted(RULES)), st.integers(0, 2**31))
def test_order_batch_and_places_that_do_not_count_are_irrelevant(name, seed):
    rule, rng = RULES[name], np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(2, 3, 7, 2)))
    all_count = torch.ones(2, 3, 7, dtype=torch.bool)
    value = rule(x, all_count)
    order = torch.from_numpy(rng.permutation(7))
    assert torch.allclose(rule(x[..., order, :], all_count), value)
    assert torch.allclose(rule(x[1, 2], None), value[1, 2])
    if name != "around":  # its own values are made of a tensor
        assert torch.allclose(rule(x.numpy(), all_count.numpy()), value)
    junk = torch.full((2, 3, 2, 2), torch.nan, dtype=torch.float64)
    wider, mask = torch.cat([junk, x], -2), torch.cat([torch.zeros(2, 3, 2).bool(), all_count], -1)
    assert torch.allclose(rule(wider, mask), value)


@given(
    st.sampled_from(sorted(RULES)),
    st.sampled_from([1e9, -1e9, torch.inf, -torch.inf, torch.nan]),
    st.integers(0, 2**31),
)
def test_one_lie_cannot_carry_the_result_away(name, lie, seed):
    honest = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, size=(6, 2)))
    result = RULES[name](torch.cat([honest, torch.full((1, 2), lie, dtype=torch.float64)]), None)
    assert (result.abs() <= 1 + 1e-6).all()


def test_gradients_flow_to_the_values_that_are_used():
    x = X[:, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: trimmed_mean(v, 1), (x,))
    assert torch.autograd.gradcheck(lambda v: centred_clipping(v, 10.0), (x,))
    assert torch.autograd.gradcheck(lambda v: trimmed_around(v[0], v[1:], 1), (x,))


def test_too_many_liars_are_refused():
    with pytest.raises(ValueError, match="trimmed_mean: needs at least 5 values for f = 2, got 4"):
        trimmed_mean(X[:4], 2)
    with pytest.raises(ValueError, match=r"krum \(published\): needs at least 7 values for f = 2, got 5"):
        krum(X, 2)
    with pytest.raises(ValueError, match="needs at least 3 values for f = 1, got 2"):
        trimmed_mean(X.expand(2, 5, 3), 1, torch.tensor([[True] * 5, [True, True, False, False, False]]))
    with pytest.raises(ValueError, match="'published' or 'byzfl'"):
        krum(X, 1, convention="blanchard")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="radius > 0"):
        centred_clipping(X, 0.0)
    with pytest.raises(ValueError, match=r"mask: expected \[\*, K\] with K = 5"):
        median(X, torch.ones(4).bool())
    with pytest.raises(ValueError, match="f: must not be negative"):
        trimmed_mean(X, -1)
