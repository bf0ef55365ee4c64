"""Credit: what each agent is given of a common outcome, how that was found and how exact it is."""

from __future__ import annotations

import torch
from scipy.stats import t as student
from torch import Tensor

from coordination import tree

CONFIDENCE = 0.95


@tree.struct
class Credit:
    """Credit of every agent with its error.

    Attributes:
        value: ``[*, N]`` credit.
        error: ``[*, N]`` half-width of a 95% confidence interval around ``value`` (Student's t, asymptotic); 0 where
            the value is exact up to rounding, infinity where nothing is known.
        method: How it was found.
        evaluations: How many coalitions were evaluated.
        reason: Why this method, where it was chosen automatically.
    """

    value: Tensor = tree.axes("N")
    error: Tensor = tree.axes("N")
    method: str = tree.shared(default="")
    evaluations: int = tree.shared(default=0)
    reason: str = tree.shared(default="")


def exact(value: Tensor, method: str, evaluations: int) -> Credit:
    """Credit without error."""
    return Credit(value, torch.zeros_like(value), method, evaluations)


def from_samples(total: Tensor, square: Tensor, count: int, method: str, evaluations: int) -> Credit:
    """Credit as the mean of ``count`` independent samples, from their sum and the sum of their squares ``[*, N]``."""
    mean = total / count
    if count < 2:
        return Credit(mean, torch.full_like(mean, torch.inf), method, evaluations)
    variance = (square / count - mean.square()).clamp(min=0) * count / (count - 1)
    return Credit(mean, half_width((variance / count).sqrt(), count - 1), method, evaluations)


def half_width(standard_error: Tensor, freedom: int) -> Tensor:
    """Half-width of the 95% interval for a mean with this standard error and degrees of freedom."""
    return standard_error.detach() * float(student.ppf((1 + CONFIDENCE) / 2, max(freedom, 1)))
