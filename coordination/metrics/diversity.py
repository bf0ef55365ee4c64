"""How differently agents behave, where all pairs are too many: sampled diversity with its standard error.

The exact means over all pairs, O(N^2), are ``gaussian_diversity`` and ``categorical_diversity`` of the metrics.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coordination.arrays import Array
from coordination.metrics.streaming import Running, pair_sample


def wasserstein(mean_a: Array, covariance_a: Array, mean_b: Array, covariance_b: Array) -> Tensor:
    """2-Wasserstein distance of two Gaussians with full covariances (Dowson and Landau 1982; the Bures metric).

    ``W2^2 = ||m_a - m_b||^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)``. The distance between Cholesky factors, used in its
    place elsewhere, is equal to it only for covariances that are diagonal.

    Args:
        mean_a, mean_b: ``[*, D]``.
        covariance_a, covariance_b: ``[*, D, D]`` symmetric, positive semi-definite.

    Returns:
        ``[*]``, at least 0, in units of the mean. O(D^3), in float64.

    >>> eye = torch.eye(2)
    >>> wasserstein(torch.zeros(2), eye, torch.tensor([3.0, 0.0]), 25 * eye).item() ** 2
    41.0
    """
    mean = torch.as_tensor(mean_a).double()
    a, b, other = (torch.as_tensor(x).to(mean) for x in (covariance_a, covariance_b, mean_b))
    shift = mean - other
    root = _root(a)
    trace = (a + b - 2 * _root(root @ b @ root)).diagonal(dim1=-2, dim2=-1).sum(-1)
    return (shift.square().sum(-1) + trace.clamp(min=0)).sqrt()


def sampled_gaussian_diversity(
    mean: Array, std: Array, pairs: int, generator: torch.Generator, alive: Array | None = None
) -> Running:
    """System neural diversity of Gaussian policies from random pairs of agents.

    Unbiased for the mean over all pairs of ``W2 = sqrt(||mu_i - mu_j||^2 + ||sigma_i - sigma_j||^2)`` (Bettini, Shankar
    and Prorok 2025, arXiv:2305.02128); the standard error falls as ``1 / sqrt(pairs)`` whatever N.

    Args:
        mean, std: ``[*, N, A]`` of every agent's action for the same observation.
        pairs: Pairs drawn, the same for all samples.
        generator: Source of the pairs, on the device of ``mean``.
        alive: ``[*, N]`` bool; pairs with a dead agent do not count.

    Returns:
        ``[*]`` :class:`Running`: ``mean`` is the diversity (0 if no pair counted), ``standard_error`` its error.
        O(pairs A) time and memory a sample.

    >>> behaviour = torch.arange(4.0).reshape(4, 1)
    >>> draws = torch.Generator().manual_seed(0)
    >>> round(sampled_gaussian_diversity(behaviour, torch.ones(4, 1), 100_000, draws).mean.item(), 1)
    1.7
    """
    point = torch.cat([torch.as_tensor(mean), torch.as_tensor(std)], -1)
    return _sampled(point, 2.0, 1.0, pairs, generator, alive)


def sampled_categorical_diversity(
    probability: Array, pairs: int, generator: torch.Generator, alive: Array | None = None
) -> Running:
    """Diversity of categorical policies, the mean total variation ``1/2 sum_k |p_ik - p_jk|``, from random pairs.

    After Bettini, Shankar and Prorok 2025 (arXiv:2305.02128), as :func:`sampled_gaussian_diversity`.

    Args:
        probability: ``[*, N, K]`` of every agent's choice for the same observation.
        pairs, generator, alive: As in :func:`sampled_gaussian_diversity`.

    Returns:
        ``[*]`` :class:`Running` with ``mean`` in [0, 1]. O(pairs K) a sample.

    >>> sampled_categorical_diversity(torch.eye(3), 10, torch.Generator()).mean.item()
    1.0
    """
    return _sampled(torch.as_tensor(probability), 1.0, 0.5, pairs, generator, alive)


def _sampled(
    point: Tensor, p: float, scale: float, pairs: int, generator: torch.Generator, alive: Array | None
) -> Running:
    """Moments over random pairs of ``scale`` times the p-norm of differences of ``point [*, N, D]``."""
    first, second = pair_sample(point.shape[-2], pairs, generator)
    counts = None
    if alive is not None:
        living = torch.as_tensor(alive)
        if living.shape != point.shape[:-1]:
            raise ValueError(f"alive: expected {tuple(point.shape[:-1])}, got {tuple(living.shape)}")
        counts = (living[..., first] & living[..., second]).movedim(-1, 0)
    apart = scale * torch.linalg.vector_norm(point[..., first, :] - point[..., second, :], p, dim=-1)
    return Running.empty(tuple(point.shape[:-2]), point.device).add(apart.movedim(-1, 0), counts)


def _root(x: Tensor) -> Tensor:
    """The positive semi-definite square root."""
    values, vectors = torch.linalg.eigh(x)
    return (vectors * values.clamp(min=0).sqrt().unsqueeze(-2)) @ vectors.mT
