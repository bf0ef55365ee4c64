from __future__ import annotations

import pytest
import torch

from coordination.coalition import (
    Coalitions,
    EmbeddingClusters,
    canonical,
    harden,
    k_means,
    soft_assignment,
    soft_pool,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_k_means_finds_planted_blocks_in_every_sample():
    block = torch.arange(60) % 4
    centre = 10 * torch.randn(2, 4, 3, generator=generator(1))
    x = centre[:, block] + 0.1 * torch.randn(2, 60, 3, generator=generator(2))
    label, found = k_means(x, 4, generator())
    assert torch.equal(canonical(label), block.expand(2, -1))
    for b in range(2):
        assert torch.cdist(found[b], centre[b]).amin(0).max() < 0.2
    order = torch.randperm(60, generator=generator(3))
    moved = EmbeddingClusters(4).form(None, features=x[0, order], generator=generator())
    assert torch.equal(moved.label, canonical(block[order]))


def test_k_means_with_more_centres_than_places():
    x = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    label, _ = k_means(x, 3, generator())
    assert label[0] == label[1] == label[2] != label[3]


def test_soft_assignments_carry_gradients():
    x = torch.randn(2, 5, 3, generator=generator(), dtype=torch.float64, requires_grad=True)
    centre = torch.randn(2, 2, 3, generator=generator(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, c: soft_assignment(a, c, 0.7), (x, centre))
    assert torch.autograd.gradcheck(lambda a, c: soft_pool(a, soft_assignment(a, c, 0.7)), (x, centre))
    hard = harden(soft_assignment(x, centre))
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    soft_gradient = torch.autograd.grad(soft_assignment(x, centre)[..., 0].sum(), x)[0]
    assert torch.equal(torch.autograd.grad(hard[..., 0].sum(), x)[0], soft_gradient)


def test_cold_soft_pooling_is_hard_pooling():
    x = torch.tensor([[0.0], [0.2], [9.0], [9.4]])
    pooled = soft_pool(x, soft_assignment(x, torch.tensor([[0.0], [9.0]]), temperature=0.01))
    assert torch.allclose(pooled, Coalitions(torch.tensor([0, 0, 1, 1])).pool(x, feature_dims=1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EmbeddingClusters(2).form(None), "needs features"),
        (lambda: k_means(torch.zeros(3, 1), 4, generator()), r"1\.\.N clusters"),
        (lambda: k_means(torch.full((3, 1), torch.nan), 2, generator()), "finite"),
        (lambda: soft_assignment(torch.zeros(2, 1), torch.zeros(1, 1), 0.0), "temperature: must be above 0"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
