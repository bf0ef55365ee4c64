"""Statistics of a few seeds: interquartile means, bootstrap intervals, curves over seeds, probability of improvement.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv:2108.13264.
Every bootstrap draws from an explicit generator; where none is given it starts from a fixed seed, so that a report made
twice says the same twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import trim_mean

RESAMPLES = 2000  # an end of a 95% interval then has a standard error of 1.5% of its width (normal approximation)
LEVEL = 0.95
CURVE_POINTS = 200
_CHUNK = 4_000_000  # resampled values held at once (32 MB)

Values = NDArray[np.float64]
Statistic = Callable[..., Values]


@dataclass(frozen=True)
class Summary:
    """What a set of scores amounts to.

    Attributes:
        iqm: Interquartile mean: the mean of the middle half.
        low, high: 95% bootstrap interval of the interquartile mean; nan for fewer than two scores.
        mean: Arithmetic mean.
        std: Standard deviation with n - 1; nan for one score.
        standard_error: ``std / sqrt(n)``.
        n: Number of scores.
    """

    iqm: float
    low: float
    high: float
    mean: float
    std: float
    standard_error: float
    n: int


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One learning curve for several seeds: interquartile mean and 95% interval at each point, all ``[P]``."""

    env_steps: Values
    iqm: Values
    low: Values
    high: Values


def interquartile_mean(values: ArrayLike, axis: int | None = None) -> Values:
    """Mean of the values without the lowest and the highest quarter (``floor(n / 4)`` of them on each side).

    Robust to an outlying seed, yet uses half of the data; below four values it is the plain mean (Agarwal et al. 2021,
    section 4.3).

    >>> float(interquartile_mean([0, 1, 2, 3, 100]))
    2.0
    """
    x = np.asarray(values, dtype=np.float64)
    return trim_mean(x.reshape(-1) if axis is None else x, 0.25, axis=axis or 0)


def summary(values: ArrayLike, generator: np.random.Generator | None = None) -> Summary:
    """Summarise scores of independent runs, or of independent episodes of one run.

    Args:
        values: ``[n]`` scores, or ``[n, tasks]`` scores of n runs on several tasks (on comparable scales). The
            bootstrap is stratified: runs are drawn anew within each task, never across tasks.
        generator: Source of the resamples.

    Raises:
        ValueError: If there are no values, or one is not finite.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim not in (1, 2) or scores.size == 0:
        raise ValueError(f"values: expected [n] or [n, tasks] with at least one score, got shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"values: {int((~np.isfinite(scores)).sum())} of {scores.size} scores are not finite")
    low, high = _stratified_interval(scores.reshape(len(scores), -1), _generator(generator))
    std = float(scores.std(ddof=1)) if scores.size > 1 else np.nan
    return Summary(
        iqm=float(interquartile_mean(scores)),
        low=low,
        high=high,
        mean=float(scores.mean()),
        std=std,
        standard_error=std / float(np.sqrt(scores.size)),
        n=scores.size,
    )


def bootstrap(
    values: Values, statistic: Statistic = interquartile_mean, generator: np.random.Generator | None = None
) -> tuple[Values, Values]:
    """95% percentile bootstrap interval of a statistic over the first axis (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: ``[n, *]`` independent rows; whole rows are drawn.
        statistic: ``statistic(x, axis=axis)`` reduces one axis.
        generator: Source of the resamples.

    Returns:
        Lower and upper end, ``[*]`` each; nan for fewer than two rows.
    """
    n = len(values)
    if n < 2:
        missing = np.full(values.shape[1:], np.nan)
        return missing, missing
    rng = _generator(generator)
    return _interval(lambda size: statistic(values[rng.integers(n, size=(size, n))], axis=1), values.size)


def _stratified_interval(scores: Values, rng: np.random.Generator) -> tuple[float, float]:
    """Interval of the interquartile mean of ``scores [n, tasks]``, with rows drawn separately for each task."""
    n = len(scores)
    if n < 2:
        return np.nan, np.nan

    def draw(size: int) -> Values:
        rows = rng.integers(n, size=(size, *scores.shape))
        return interquartile_mean(np.take_along_axis(scores[None], rows, axis=1).reshape(size, -1), axis=1)

    low, high = _interval(draw, scores.size)
    return float(low), float(high)


def _interval(draw: Callable[[int], Values], width: int) -> tuple[Values, Values]:
    """Percentiles of RESAMPLES statistics, drawn in chunks that hold at most _CHUNK values of ``width`` each."""
    chunk = max(1, _CHUNK // max(width, 1))
    drawn = [draw(min(chunk, RESAMPLES - start)) for start in range(0, RESAMPLES, chunk)]
    low, high = np.quantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def probability_of_improvement(x: ArrayLike, y: ArrayLike, generator: np.random.Generator | None = None) -> Estimate:
    """How likely a random run of X beats a random run of Y: ``P(X > Y) + P(X = Y) / 2``.

    The Mann-Whitney U statistic divided by ``n_x n_y`` (Agarwal et al. 2021, section 4.3).

    Args:
        x: ``[n_x]`` scores of independent runs; larger is better.
        y: ``[n_y]`` scores of the runs to compare with.
        generator: Source of the resamples; both sides are drawn anew.

    >>> probability_of_improvement([2, 3], [1, 2]).value
    0.875
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    wins = (np.sign(a[:, None] - b[None, :]) + 1) / 2  # [n_x, n_y]
    value = float(wins.mean())
    if min(a.size, b.size) < 2:
        return Estimate(value, np.nan, np.nan)
    rng = _generator(generator)

    def draw(size: int) -> Values:
        rows, columns = rng.integers(a.size, size=(size, a.size, 1)), rng.integers(b.size, size=(size, 1, b.size))
        return wins[rows, columns].mean(axis=(1, 2))

    low, high = _interval(draw, wins.size)
    return Estimate(value, float(low), float(high))


def align(curves: Sequence[tuple[ArrayLike, ArrayLike]], points: int = CURVE_POINTS) -> tuple[Values, Values]:
    """Curves of several seeds on one axis, by linear interpolation.

    Args:
        curves: ``(env_steps, value)`` of each seed, with steps increasing; values that are not finite are left out.
        points: Most points kept.

    Returns:
        ``env_steps [P]`` where all seeds have data, from the last start to the first end, and ``values [seeds, P]``;
        P is 0 where they share no step.
    """
    pairs = [_finite(steps, value) for steps, value in curves]
    if not pairs or any(steps.size == 0 for steps, _ in pairs):
        return np.empty(0), np.empty((len(pairs), 0))
    start, stop = max(s[0] for s, _ in pairs), min(s[-1] for s, _ in pairs)
    grid = np.unique(np.concatenate([s for s, _ in pairs]))
    grid = grid[(grid >= start) & (grid <= stop)]
    if grid.size > points:
        grid = np.linspace(start, stop, points)
    return grid, np.stack([np.interp(grid, steps, value) for steps, value in pairs])


def aggregate(curves: Sequence[tuple[ArrayLike, ArrayLike]], generator: np.random.Generator | None = None) -> Curve:
    """Interquartile mean and 95% interval over seeds at each step of :func:`align`; nan intervals for one seed."""
    grid, values = align(curves)
    if grid.size == 0:
        return Curve(grid, grid, grid, grid)
    low, high = bootstrap(values, generator=generator)
    return Curve(grid, interquartile_mean(values, axis=0), low, high)


def smooth(values: ArrayLike, window: int) -> Values:
    """Mean over the last ``window`` values (fewer at the start), skipping those that are not finite."""
    x = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(x)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, x, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    stop = np.arange(1, x.size + 1)
    start = np.maximum(stop - window, 0)
    with np.errstate(invalid="ignore"):
        return (total[stop] - total[start]) / (count[stop] - count[start])


def _finite(steps: ArrayLike, value: ArrayLike) -> tuple[Values, Values]:
    s, v = np.asarray(steps, dtype=np.float64), np.asarray(value, dtype=np.float64)
    keep = np.isfinite(v)
    return s[keep], v[keep]


def _generator(generator: np.random.Generator | None) -> np.random.Generator:
    return np.random.default_rng(0) if generator is None else generator
