"""What VDN and QMIX can represent of the classical matrix games: closed-form fits and what is chosen by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.credit import additive_fit, monotone_fit

GAMES = {
    "qplex1": [[10.4, 0, 10], [0, 10, 10], [10, 10, 10]],
    "qplex2": [[8, -12, -12], [-12, 0, 0], [-12, 0, 0]],
    "qplex3": [[8, -12, -12], [-12, 6, 0], [-12, 0, 6]],
    "climbing": [[11, -30, 0], [-30, 7, 6], [0, 0, 5]],
    "penalty": [[-100, 0, 10], [0, 2, 0], [10, 0, -100]],
    "two-step": [[0, 1], [1, 8]],
}


def greedy(payoff: torch.Tensor, fit: torch.Tensor) -> set[float]:
    """Payoffs of the joint actions that the fit values highest."""
    return {round(x, 3) for x in payoff[fit >= fit.max() - 1e-6].tolist()}


@pytest.mark.parametrize(
    ("name", "error", "chosen"),
    [
        ("qplex2", 50.57, {0}),
        ("qplex3", 64.49, {6, 0}),
        ("qplex1", 12.75, {10}),
        ("climbing", 175.1, {5}),
        ("penalty", 1435.8, {2}),
        ("two-step", 2.25, {8}),
    ],
)
def test_additive_fits(name, error, chosen):
    payoff = torch.tensor(GAMES[name], dtype=torch.float64)
    fit, loss = additive_fit(payoff)
    assert loss == pytest.approx(error, rel=5e-4)
    assert greedy(payoff, fit) == chosen
    assert loss == pytest.approx((fit - payoff).square().mean().item())


@pytest.mark.parametrize(
    ("name", "error", "chosen"),
    [
        ("qplex2", 32.0, {8}),
        ("qplex3", 38.22, {6, 0}),
        ("qplex1", 7.42, {10.4, 10}),
        ("climbing", 110.8, {5}),
        ("penalty", 896.3, {2}),
        ("two-step", 0.0, {8}),
    ],
)
def test_monotone_fits(name, error, chosen):
    payoff = torch.tensor(GAMES[name], dtype=torch.float64)
    fit, loss = monotone_fit(payoff)
    assert loss == pytest.approx(error, rel=5e-4, abs=1e-9)
    assert greedy(payoff, fit) <= chosen
    assert loss == pytest.approx((fit - payoff).square().mean().item(), abs=1e-9)


def test_known_fits():
    fit, _ = additive_fit(torch.tensor(GAMES["two-step"]))
    assert fit.tolist() == [[-1.5, 2.5], [2.5, 6.5]]
    fit, _ = additive_fit(torch.tensor(GAMES["qplex2"]))
    assert fit[0, 0].item() == pytest.approx(-6.22, abs=0.005)
    assert fit[0, 1].item() == pytest.approx(-4.89, abs=0.005)
    assert fit[1, 1].item() == pytest.approx(-3.56, abs=0.005)
    fit, _ = monotone_fit(torch.tensor(GAMES["qplex2"]))
    assert fit.flatten().tolist() == pytest.approx([8.0] + [-6.0] * 8)


@given(st.integers(0, 10_000))
def test_fits_are_projections(seed):
    rng = np.random.default_rng(seed)
    payoff = torch.from_numpy(rng.normal(size=(3, 3)))
    additive, additive_loss = additive_fit(payoff)
    monotone, monotone_loss = monotone_fit(payoff)
    assert monotone_loss <= additive_loss + 1e-9  # every additive function is monotone in its parts
    left = payoff - additive
    assert left.sum(0).abs().max() < 1e-9
    assert left.sum(1).abs().max() < 1e-9
    increasing = torch.from_numpy(rng.normal(size=3)).sort().values.unsqueeze(1).exp() * torch.tensor([0.5, 1.0, 3.0])
    order = torch.from_numpy(rng.permutation(3))
    assert monotone_fit(increasing[order][:, order])[1] < 1e-12
    assert monotone_fit(monotone)[1] < 1e-12


def test_additive_fit_of_three_agents():
    q = [torch.randn(k, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in (2, 3, 4)]
    payoff = q[0].reshape(-1, 1, 1) + q[1].reshape(-1, 1) + q[2]
    fit, loss = additive_fit(payoff)
    assert torch.allclose(fit, payoff)
    assert loss < 1e-24


def test_large_games_are_refused():
    with pytest.raises(ValueError, match="at most 4 actions each"):
        monotone_fit(torch.zeros(5, 5))
