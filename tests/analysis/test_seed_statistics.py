import math

import numpy as np
import pytest
from scipy import stats

from collapse_bench.analysis.statistics import interquartile_mean, paired_difference, summarize, t_interval


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_below_ten_seeds_it_is_scipys_t_interval(n):
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    interval = summarize(values.tolist())
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (interval.kind, interval.n) == ("t", n)
    assert interval.centre == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_from_ten_seeds_it_is_scipys_bootstrap_of_the_interquartile_mean():
    values = np.random.default_rng(0).normal(3.0, 2.0, 16)
    interval = summarize(values.tolist())
    assert (interval.kind, interval.n) == ("bootstrap", 16)
    assert interval.centre == pytest.approx(np.sort(values)[4:12].mean())
    expected = stats.bootstrap(
        (values,), interquartile_mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1)
    )
    # An end of a percentile interval from R resamples has the error sqrt(p (1 - p) / R) / density; 4 of those, twice.
    error = math.sqrt(0.025 * 0.975 / 5000) / (stats.norm.pdf(1.96) / expected.standard_error)
    assert interval.low == pytest.approx(expected.confidence_interval.low, abs=4 * math.sqrt(2) * error)
    assert interval.high == pytest.approx(expected.confidence_interval.high, abs=4 * math.sqrt(2) * error)


def test_the_bootstrap_depends_on_its_seed_alone():
    values = np.random.default_rng(0).normal(size=12).tolist()
    np.random.seed(1)  # noqa: NPY002
    first = summarize(values, bootstrap_seed=7)
    np.random.seed(2)  # noqa: NPY002
    assert summarize(values, bootstrap_seed=7) == first
    assert summarize(values, bootstrap_seed=8) != first


def test_one_outlier_hardly_moves_the_interquartile_mean():
    values = [1.0] * 11 + [1e6]
    assert summarize(values).centre == 1.0


def test_one_seed_has_no_interval():
    interval = summarize([4.2])
    assert (interval.centre, interval.low, interval.high, interval.n, interval.kind) == (4.2, None, None, 1, "none")


def test_no_seed_has_no_number():
    interval = summarize([])
    assert math.isnan(interval.centre)
    assert (interval.n, interval.kind) == (0, "none")


def test_undefined_values_are_left_out_and_n_says_so():
    assert summarize([1.0, math.nan, 3.0]) == summarize([1.0, 3.0])
    assert summarize([1.0, math.nan]).kind == "none"
    assert summarize([*range(9), math.nan]).kind == "t"


@pytest.mark.parametrize("n", [3, 5])
def test_the_t_interval_covers_95_percent(n):
    num_trials = 4000
    rng = np.random.default_rng(n)
    covered = 0
    for values in rng.normal(1.0, 3.0, (num_trials, n)):
        interval = t_interval(values.tolist())
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= 1.0 <= interval.high
    standard_error = math.sqrt(0.95 * 0.05 / num_trials)
    assert covered / num_trials == pytest.approx(0.95, abs=4 * standard_error)


def test_the_paired_difference_is_scipys_paired_t_interval():
    rng = np.random.default_rng(0)
    shared = rng.normal(0.0, 10.0, 5)
    arm, baseline = shared + rng.normal(1.0, 0.1, 5), shared
    interval = paired_difference(dict(enumerate(arm)), dict(enumerate(baseline)))
    expected = stats.ttest_rel(arm, baseline).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.n == 5


def test_pairs_are_the_seeds_that_both_arms_have():
    interval = paired_difference({0: 1.0, 1: 2.0, 2: 5.0}, {1: 1.0, 2: 1.0, 3: 100.0})
    assert (interval.n, interval.centre) == (2, 2.5)
    assert paired_difference({0: 1.0}, {1: 1.0}).n == 0
