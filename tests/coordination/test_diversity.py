import math

import pytest
import torch
from scipy.linalg import sqrtm

from coordination.metrics import categorical_diversity, gaussian_diversity
from coordination.metrics.diversity import sampled_categorical_diversity, sampled_gaussian_diversity, wasserstein


def random_covariance(seed, d=3):
    x = torch.randn(4, d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x @ x.mT


def test_wasserstein_equals_the_formula_in_scipy():
    a, b = random_covariance(0), random_covariance(1)
    shift = torch.tensor([1.0, 0.0, -2.0])
    found = wasserstein(torch.zeros(4, 3), a, shift.expand(4, 3), b)
    for i in range(4):
        root = sqrtm(a[i].numpy())
        expected = 5 + (a[i] + b[i]).trace().item() - 2 * sqrtm(root @ b[i].numpy() @ root).real.trace()
        assert found[i].item() == pytest.approx(math.sqrt(expected), rel=1e-6)
    torch.testing.assert_close(wasserstein(shift, b[0], torch.zeros(3), a[0]), found[0])
    torch.testing.assert_close(wasserstein(shift, a[0], shift, a[0]).item(), 0.0, atol=1e-6, rtol=0)


def test_the_distance_of_cholesky_factors_is_another_number():
    a, b = random_covariance(2)[0], random_covariance(3)[0]
    zero = torch.zeros(3)
    cholesky = (torch.linalg.cholesky(a) - torch.linalg.cholesky(b)).norm().item()
    assert wasserstein(zero, a, zero, b).item() < cholesky - 0.05
    diagonal = [torch.diag(torch.tensor(x, dtype=torch.float64)) for x in ([1.0, 4.0, 9.0], [4.0, 1.0, 16.0])]
    assert wasserstein(zero, diagonal[0], zero, diagonal[1]).item() == pytest.approx(math.sqrt(3))


def test_sampled_diversity_covers_the_exact_one_as_often_as_its_error_says():
    draw = torch.Generator().manual_seed(0)
    mean, std = torch.randn(30, 2, generator=draw), torch.rand(30, 2, generator=draw)
    probability = torch.randn(30, 4, generator=draw).softmax(-1)
    exact = torch.tensor([gaussian_diversity(mean, std), categorical_diversity(probability)])
    runs = [
        (sampled_gaussian_diversity(mean, std, 400, draw), sampled_categorical_diversity(probability, 400, draw))
        for _ in range(300)
    ]
    estimate = torch.tensor([[r.mean for r in pair] for pair in runs])
    error = torch.tensor([[r.standard_error for r in pair] for pair in runs])
    score = (estimate - exact) / error
    assert (score.abs() < 1.96).double().mean(0).tolist() == pytest.approx([0.95, 0.95], abs=0.04)
    assert score.mean(0).abs().max() < 4 / math.sqrt(300)


def test_more_pairs_shrink_the_error_as_one_over_the_root():
    draw = torch.Generator().manual_seed(1)
    mean = torch.randn(1000, 3, generator=draw)
    few, many = (sampled_gaussian_diversity(mean, mean.abs(), p, draw).standard_error.item() for p in (1000, 100_000))
    assert few / many == pytest.approx(10, rel=0.1)


def test_dead_agents_change_nothing_and_clones_have_no_diversity():
    draw = torch.Generator().manual_seed(2)
    mean = torch.randn(3, 8, 2, generator=draw)
    alive = torch.rand(3, 8, generator=draw) < 0.7
    torn = torch.where(alive.unsqueeze(-1), mean, torch.nan)
    a, b = (
        sampled_gaussian_diversity(x, torch.ones_like(x), 5000, torch.Generator().manual_seed(3), alive)
        for x in (mean, torn)
    )
    assert torch.equal(a.mean, b.mean)
    exact = gaussian_diversity(torn, torch.ones_like(torn), alive)
    assert ((a.mean - exact).abs() < 5 * a.standard_error).all()
    assert sampled_gaussian_diversity(torch.ones(5, 2), torch.ones(5, 2), 50, draw).mean.item() == 0
    with pytest.raises(ValueError, match=r"alive: expected \(3, 8\), got \(8,\)"):
        sampled_categorical_diversity(mean, 5, draw, alive[0])
