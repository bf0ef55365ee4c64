from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from marl.report import statistics
from marl.report.statistics import aggregate, align, bootstrap, interquartile_mean, probability_of_improvement, summary

SCORES = st.lists(st.floats(-100, 100), min_size=2, max_size=12)


def test_summary_by_hand():
    s = summary([1.0, 2.0, 3.0, 4.0, 100.0])  # one value is cut on each side
    assert s.iqm == 3.0
    assert s.mean == 22.0
    assert s.std == pytest.approx(np.sqrt((21**2 + 20**2 + 19**2 + 18**2 + 78**2) / 4))
    assert s.standard_error == pytest.approx(s.std / np.sqrt(5))
    assert s.n == 5


def test_interquartile_mean_cuts_a_quarter_of_a_hundred():
    values = np.random.default_rng(0).permutation(np.arange(100.0))
    assert interquartile_mean(values) == np.arange(25, 75).mean()


def test_one_score_has_no_interval():
    s = summary([4.0])
    assert (s.iqm, s.mean, s.n) == (4.0, 4.0, 1)
    assert np.isnan([s.low, s.high, s.std, s.standard_error]).all()


@pytest.mark.parametrize(
    ("values", "match"),
    [([], "at least one score"), ([1.0, np.nan], "1 of 2 scores are not finite"), (3.0, r"shape \(\)")],
)
def test_bad_scores_are_refused(values: object, match: str):
    with pytest.raises(ValueError, match=match):
        summary(values)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [5, 100])
def test_interval_agrees_with_scipy(n: int):
    scores = np.random.default_rng(n).gamma(2.0, 5.0, n)
    ours = summary(scores, np.random.default_rng(1))
    theirs = scipy.stats.bootstrap(
        (scores,),
        lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis=axis),
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.08 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.08 * width)


def test_intervals_are_the_same_every_time_and_follow_the_generator():
    scores = np.random.default_rng(0).normal(size=30)
    assert summary(scores) == summary(scores)
    assert summary(scores, np.random.default_rng(5)).low != summary(scores, np.random.default_rng(6)).low


def test_chunks_change_the_draws_but_not_the_interval(monkeypatch: pytest.MonkeyPatch):
    scores = np.random.default_rng(0).normal(size=50)
    whole = summary(scores)
    monkeypatch.setattr(statistics, "_CHUNK", 1000)
    parts = summary(scores)
    assert parts.low == pytest.approx(whole.low, abs=0.08 * (whole.high - whole.low))


def test_stratified_interval_never_mixes_tasks():
    # two tasks on far apart levels, no spread within either: resampling within tasks changes nothing
    scores = np.tile([0.0, 100.0], (6, 1))
    s = summary(scores)
    assert (s.low, s.iqm, s.high, s.n) == (50.0, 50.0, 50.0, 12)
    mixed = summary(scores.reshape(-1))
    assert mixed.high - mixed.low > 50


@given(SCORES)
def test_interval_lies_within_the_scores_and_shifts_with_them(values: list[float]):
    scores = np.array(values)
    s, shifted = summary(scores), summary(scores + 10)
    assert scores.min() - 1e-9 <= s.low <= s.high <= scores.max() + 1e-9
    assert shifted.low == pytest.approx(s.low + 10)
    assert shifted.iqm == pytest.approx(s.iqm + 10)


@given(SCORES, SCORES)
def test_probability_of_improvement_is_the_mann_whitney_statistic(x: list[float], y: list[float]):
    p = probability_of_improvement(x, y)
    u = scipy.stats.mannwhitneyu(x, y).statistic
    assert p.value == pytest.approx(u / (len(x) * len(y)))
    assert 0 <= p.low <= p.high <= 1
    assert probability_of_improvement(y, x).value == pytest.approx(1 - p.value)


def test_probability_of_improvement_of_separate_sets():
    p = probability_of_improvement([3, 4, 5], [0, 1, 2])
    assert (p.value, p.low, p.high) == (1.0, 1.0, 1.0)
    assert np.isnan(probability_of_improvement([3], [0, 1]).low)


def test_curves_are_aligned_where_all_seeds_have_data():
    first = ([0, 10, 20, 30], [0.0, 10.0, 20.0, 30.0])
    second = ([5, 15, 25], [1.0, 1.0, 3.0])
    grid, values = align([first, second])
    np.testing.assert_array_equal(grid, [5, 10, 15, 20, 25])
    np.testing.assert_allclose(values, [[5, 10, 15, 20, 25], [1, 1, 1, 2, 3]])


def test_missing_points_are_bridged_and_long_curves_thinned():
    grid, values = align([([0, 1, 2], [0.0, np.nan, 4.0])])
    np.testing.assert_array_equal(grid, [0, 2])
    grid, values = align([(np.arange(1000), np.arange(1000.0))], points=50)
    assert grid.size == 50
    assert (grid[0], grid[-1]) == (0, 999)
    np.testing.assert_allclose(values[0], grid)


def test_seeds_without_common_steps_have_no_curve():
    curve = aggregate([([0, 1], [0.0, 1.0]), ([5, 6], [0.0, 1.0])])
    assert curve.env_steps.size == 0
    assert aggregate([([0], [np.nan])]).iqm.size == 0


def test_aggregate_is_the_interquartile_mean_at_each_step():
    values = np.array([[0.0, 1.0], [2.0, 2.0], [4.0, 3.0], [6.0, 9.0]])  # lowest and highest are cut
    curve = aggregate([([0, 100], v) for v in values])
    np.testing.assert_allclose(curve.iqm, [3.0, 2.5])
    assert (curve.low <= curve.iqm).all()
    assert (curve.iqm <= curve.high).all()
    assert np.isnan(aggregate([([0, 100], values[0])]).low).all()


def test_bootstrap_draws_whole_rows():
    # the second column is the first plus 7 in every row, so it is in every resample
    values = np.random.default_rng(0).normal(size=(9, 1)) + np.array([0.0, 7.0])
    low, high = bootstrap(values, np.mean)
    np.testing.assert_allclose(np.diff(low), 7.0)
    np.testing.assert_allclose(np.diff(high), 7.0)


def test_bootstrap_of_the_mean_has_the_width_theory_says():
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap(values, np.mean)
    assert high - low == pytest.approx(2 * 1.96 * values.std(ddof=1) / 20, rel=0.08)


def test_smooth_is_a_trailing_mean_that_skips_gaps():
    np.testing.assert_allclose(statistics.smooth([2.0, 4.0, np.nan, 6.0, 8.0], 3), [2, 3, 3, 5, 7])
    assert np.isnan(statistics.smooth([np.nan, 1.0], 1)[0])
