"""Robust aggregation: one vector out of many when up to f of them may be anything.

Rules take values ``[*, K, D]`` and an optional ``mask [*, K]`` of those that count, and return ``[*, D]``; K may be
the neighbours of an agent, the agents of a team or the workers that sent gradients. All commute with permutations of
K (Krum up to ties), and a value that is not a finite number counts as false: largest of all, or infinitely far away.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from coordination.arrays import Array

Convention = Literal["published", "byzfl"]


def trimmed_mean(values: Array, f: int, mask: Array | None = None) -> Tensor:
    """Coordinate-wise mean without the f largest and the f smallest values (Yin et al. 2018, arXiv 1803.01498).

    O(K log K D).

    Args:
        values: ``[*, K, D]``.
        f: How many may be false.
        mask: ``[*, K]`` bool: which count; None if all do.

    Returns:
        ``[*, D]``.

    Raises:
        ValueError: If a row has at most 2 f values.

    >>> trimmed_mean(torch.tensor([[1.0], [2.0], [3.0], [100.0]]), 1)
    tensor([2.5000])
    """
    values, mask = _checked(values, mask, f, 2 * f + 1, "trimmed_mean")
    count = mask.sum(-1)
    ordered = _ordered(values, mask)
    rank = torch.arange(values.shape[-2], device=values.device)
    kept = (rank >= f) & (rank < (count - f).unsqueeze(-1))
    return torch.where(kept.unsqueeze(-1), ordered, 0.0).sum(-2) / (count - 2 * f).unsqueeze(-1)


def median(values: Array, mask: Array | None = None) -> Tensor:
    """Coordinate-wise median, the mean of the two middle values where their number is even; O(K log K D).

    Args:
        values: ``[*, K, D]``.
        mask: ``[*, K]`` bool: which count; None if all do.

    Returns:
        ``[*, D]``.

    >>> median(torch.tensor([[1.0, 5.0], [2.0, 7.0], [90.0, 6.0]]))
    tensor([2., 6.])
    """
    values, mask = _checked(values, mask, 0, 1, "median")
    count = mask.sum(-1)
    ordered = _ordered(values, mask)
    low, high = ((count - 1) // 2)[..., None, None], (count // 2)[..., None, None]
    return (ordered.take_along_dim(low, -2) + ordered.take_along_dim(high, -2)).squeeze(-2) / 2


def geometric_median(values: Array, mask: Array | None = None, iterations: int = 100, smooth: float = 1e-6) -> Tensor:
    """The point with the least sum of distances, by smoothed Weiszfeld steps (Weiszfeld 1937; Pillutla et al. 2022).

    ``v <- sum_k b_k x_k / sum_k b_k``, ``b_k = 1 / max(smooth, |x_k - v|)``, starting at the coordinate-wise median;
    O(iterations K D).

    Args:
        values: ``[*, K, D]``.
        mask: ``[*, K]`` bool: which count; None if all do.
        iterations: Steps; more are more exact, and needed most where the median is one of the values.
        smooth: Smallest distance, in the units of the values.

    Returns:
        ``[*, D]``.

    >>> geometric_median(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    tensor([0.5000, 0.5000])
    """
    values, mask = _checked(values, mask, 0, 1, "geometric_median")
    mask = mask & values.isfinite().all(-1)
    kept = torch.where(mask.unsqueeze(-1), values, 0.0)
    point = median(kept, mask | ~mask.any(-1, keepdim=True))
    for _ in range(iterations):
        distance = torch.linalg.vector_norm(kept - point.unsqueeze(-2), dim=-1)
        weight = torch.where(mask, 1 / distance.clamp(min=smooth), 0.0)
        weight = weight / weight.sum(-1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        point = (weight.unsqueeze(-1) * kept).sum(-2)
    return point


def krum(
    values: Array, f: int, mask: Array | None = None, convention: Convention = "published", average: int = 1
) -> Tensor:
    """Krum: the value whose nearest others are nearest (Blanchard et al. 2017, arXiv 1703.02757).

    The score of a value is the sum of squared distances to its closest others, the lowest score wins, the first in
    place among equals. ``published`` counts the K - f - 2 closest; ``byzfl``, the library of that name, the K - f - 1
    closest, which can choose another value. O(K^2 D) time, O(K^2) memory.

    Args:
        values: ``[*, K, D]``.
        f: How many may be false.
        mask: ``[*, K]`` bool: which count; None if all do.
        convention: ``published`` needs 2 f + 3 values, as its theorem does; ``byzfl`` runs from f + 2.
        average: Mean of so many best values instead of the best one (Multi-Krum).

    Returns:
        ``[*, D]``.

    Raises:
        ValueError: If a row has too few values, or fewer than ``average``.

    >>> krum(torch.tensor([[1.0], [1.1], [1.3], [0.8], [99.0]]), 1)
    tensor([1.1000])
    """
    if convention not in ("published", "byzfl"):
        raise ValueError(f"convention: 'published' or 'byzfl', got {convention!r}")
    if average < 1:
        raise ValueError(f"average: must be at least 1, got {average}")
    needed = krum_needs(f, convention)
    values, mask = _checked(values, mask, f, max(needed, average), f"krum ({convention})")
    closest = mask.sum(-1) - f - (2 if convention == "published" else 1)
    distance = torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist").square()
    distance = distance.nan_to_num(nan=torch.inf, posinf=torch.inf)
    size = values.shape[-2]
    others = mask.unsqueeze(-2) & ~torch.eye(size, dtype=torch.bool, device=values.device)
    ordered = torch.where(others, distance, torch.inf).sort(-1).values
    counted = torch.arange(size, device=values.device) < closest[..., None, None]
    score = torch.where(counted, ordered, 0.0).sum(-1)
    best = torch.where(mask, score, torch.inf).argsort(dim=-1, stable=True)[..., :average]
    return values.take_along_dim(best.unsqueeze(-1), -2).mean(-2)


def krum_needs(f: int, convention: Convention = "published") -> int:
    """Fewest values that Krum is defined for.

    ``n >= 2 f + 3`` (Blanchard et al. 2017), ``n >= f + 2`` in byzfl; O(1).

    >>> krum_needs(1), krum_needs(1, "byzfl")
    (5, 3)
    """
    return 2 * f + 3 if convention == "published" else f + 2


def centred_clipping(
    values: Array,
    radius: float,
    start: Array | None = None,
    iterations: int = 1,
    mask: Array | None = None,
) -> Tensor:
    """``v <- v + mean_k (x_k - v) min(1, radius / |x_k - v|)`` (Karimireddy, He and Jaggi 2021, arXiv 2012.10333).

    No value moves the result by more than ``radius / K``; O(iterations K D).

    Args:
        values: ``[*, K, D]``.
        radius: Clipping radius tau, in the units of the values; raising it trusts outliers more.
        start: ``[*, D]`` a good guess, such as the last result; zero if None.
        iterations: Steps.
        mask: ``[*, K]`` bool: which count; None if all do.

    Returns:
        ``[*, D]``.

    >>> centred_clipping(torch.tensor([[1.0], [2.0], [300.0]]), radius=3.0)
    tensor([2.])
    """
    if not radius > 0 or iterations < 1:
        raise ValueError(f"centred_clipping: needs radius > 0 and iterations >= 1, got {radius} and {iterations}")
    values, mask = _checked(values, mask, 0, 1, "centred_clipping")
    count = mask.sum(-1).unsqueeze(-1)
    finite = mask & values.isfinite().all(-1)
    kept = torch.where(finite.unsqueeze(-1), values, 0.0)
    point = torch.zeros_like(kept[..., 0, :]) if start is None else torch.as_tensor(start)
    for _ in range(iterations):
        away = torch.where(finite.unsqueeze(-1), kept - point.unsqueeze(-2), 0.0)
        distance = torch.linalg.vector_norm(away, dim=-1, keepdim=True)
        shrink = radius / distance.clamp(min=radius)
        point = point + (away * shrink).sum(-2) / count
    return point


def trimmed_around(own: Array, values: Array, f: int, mask: Array | None = None) -> Tensor:
    """The W-MSR update: mean of one's own value and the neighbours' without the most extreme ones around it.

    Coordinate by coordinate, up to f values strictly above one's own and up to f strictly below it are dropped, the
    most extreme first (LeBlanc, Zhang, Koutsoukos and Sundaram 2013). Defined for any number of values; O(K log K D).

    Args:
        own: ``[*, D]``.
        values: ``[*, K, D]`` what the neighbours say.
        f: How many of them may be false.
        mask: ``[*, K]`` bool: which were heard; None if all were.

    Returns:
        ``[*, D]``.

    >>> trimmed_around(torch.tensor([0.0]), torch.tensor([[9.0], [1.0], [-1.0]]), 1)
    tensor([0.5000])
    """
    values, mask = _checked(values, mask, f, 0, "trimmed_around")
    believed = values.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    ordered = _ordered(believed, mask)
    own = torch.as_tensor(own)
    centre = own.unsqueeze(-2)
    above = (mask.unsqueeze(-1) & (believed > centre)).sum(-2, keepdim=True).clamp(max=f)
    below = (mask.unsqueeze(-1) & (believed < centre)).sum(-2, keepdim=True).clamp(max=f)
    rank = torch.arange(values.shape[-2], device=values.device).unsqueeze(-1)
    kept = (rank >= below) & (rank < mask.sum(-1)[..., None, None] - above)
    return (own + torch.where(kept, ordered, 0.0).sum(-2)) / (1 + kept.sum(-2))


def _checked(values: Array, mask: Array | None, f: int, needed: int, rule: str) -> tuple[Tensor, Tensor]:
    """Values, and the mask ``[*, K]``, after refusing wrong shapes and rows with fewer than ``needed`` values."""
    values = torch.as_tensor(values)
    mask = None if mask is None else torch.as_tensor(mask, device=values.device)
    if values.ndim < 2 or not values.is_floating_point():
        raise ValueError(f"values: expected floating point [*, K, D], got {values.dtype} {tuple(values.shape)}")
    if f < 0:
        raise ValueError(f"f: must not be negative, got {f}")
    if mask is None:
        fewest = values.shape[-2]
        mask = torch.ones(values.shape[:-1], dtype=torch.bool, device=values.device)
    elif mask.shape[-1] != values.shape[-2]:
        raise ValueError(f"mask: expected [*, K] with K = {values.shape[-2]}, got {tuple(mask.shape)}")
    else:
        mask = mask.bool().expand(values.shape[:-1])
        look = needed and mask.numel() and mask.device.type == "cpu"  # elsewhere looking would wait for the device
        fewest = int(mask.sum(-1).min()) if look else needed
    if fewest < needed:
        raise ValueError(f"{rule}: needs at least {needed} values for f = {f}, got {fewest}")
    return values, mask


def _ordered(values: Tensor, mask: Tensor) -> Tensor:
    """Values sorted along K, those that do not count last."""
    return torch.where(mask.unsqueeze(-1), values, torch.inf).sort(-2).values
