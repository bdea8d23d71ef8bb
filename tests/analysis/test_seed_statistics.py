import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from collapse_bench.analysis import statistics
from collapse_bench.analysis.statistics import (
    holm,
    interquartile_mean,
    paired_difference,
    paired_test,
    probability_of_improvement,
    summarize,
    t_interval,
)


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


def test_the_bootstrap_of_three_seeds_covers_far_less_than_95_percent(monkeypatch):
    # What MIN_BOOTSTRAP stands on: about 75 % with 3 runs. Fewer resamples cost a fraction of a per cent.
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", 500)
    monkeypatch.setattr(statistics, "MIN_BOOTSTRAP", 3)
    num_trials = 800
    covered = 0
    for values in np.random.default_rng(0).normal(1.0, 3.0, (num_trials, 3)):
        interval = summarize(values)
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= 1.0 <= interval.high
    assert covered / num_trials == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / num_trials))


def test_the_probability_of_improvement_is_the_mean_over_tasks_of_mann_whitneys_u():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 4, (10, 3)).astype(float), rng.integers(0, 4, (11, 3)).astype(float)
    interval = probability_of_improvement(first, second, rng)
    expected = np.mean([stats.mannwhitneyu(x, y).statistic / 110 for x, y in zip(first.T, second.T, strict=True)])
    assert interval.centre == pytest.approx(expected)
    assert (interval.n, interval.kind) == (10, "stratified bootstrap")
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low <= interval.centre <= interval.high


def test_runs_are_resampled_within_their_task():
    # Runs of one task are alike, so a bootstrap that keeps to the tasks has no spread, and one across them has.
    first, second = np.array([[1.0, 10.0]] * 10), np.array([[0.0, 20.0]] * 10)
    interval = probability_of_improvement(first, second, np.random.default_rng(0))
    assert (interval.low, interval.centre, interval.high) == (0.5, 0.5, 0.5)


def test_the_probability_of_improvement_depends_on_the_given_generator_alone():
    first, second = np.random.default_rng(0).normal(size=(2, 12, 1))
    np.random.seed(1)  # noqa: NPY002
    interval = probability_of_improvement(first, second, np.random.default_rng(7))
    np.random.seed(2)  # noqa: NPY002
    assert probability_of_improvement(first, second, np.random.default_rng(7)) == interval
    assert probability_of_improvement(first, second, np.random.default_rng(8)) != interval


@pytest.mark.parametrize("num_runs", [1, 3, 9])
def test_few_runs_have_a_probability_of_improvement_without_an_interval(num_runs):
    first, second = np.ones((num_runs, 1)), np.zeros((12, 1))
    interval = probability_of_improvement(first, second, np.random.default_rng(0))
    assert (interval.centre, interval.low, interval.high) == (1.0, None, None)
    assert (interval.n, interval.kind) == (num_runs, "none")


def test_ties_count_one_half_and_certainty_counts_one():
    rng = np.random.default_rng(0)
    assert probability_of_improvement(np.ones((3, 2)), np.ones((3, 2)), rng).centre == 0.5
    better = probability_of_improvement(np.ones((10, 2)) + 1, np.ones((10, 2)), rng)
    assert (better.low, better.centre, better.high) == (1.0, 1.0, 1.0)
    missing = probability_of_improvement(np.array([[1.0, np.nan], [1.0, 0.0]]), np.zeros((2, 2)), rng)
    assert (missing.centre, missing.n) == (0.75, 1)
    assert math.isnan(probability_of_improvement(np.empty((0, 1)), np.ones((3, 1)), rng).centre)
    with pytest.raises(ValueError, match="3 and 2 tasks"):
        probability_of_improvement(np.ones((3, 3)), np.ones((3, 2)), rng)


@pytest.mark.parametrize("n", [2, 3, 6, 30])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 0.5, 20.0])
def test_the_paired_test_is_scipys_one_sided_paired_t_test(n, shift):
    rng = np.random.default_rng(n)
    arm, control = rng.normal(shift, 1.0, n), rng.normal(0.0, 1.0, n)
    result = paired_test(arm - control)
    expected = stats.ttest_rel(arm, control, alternative="greater").pvalue
    assert (result.n, result.kind) == (n, "paired t")
    assert result.p == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("differences", "p"), [([0.1 + 0.2, 0.3, 0.3], 0.125), ([0.0, 0.0], 1.0), ([-1.0] * 9, 1.0)])
def test_equal_differences_are_tested_by_sign_flips(differences, p):
    result = paired_test(differences)
    assert (result.p, result.kind) == (p, "exact sign flip")
    means = [np.mean(np.multiply(signs, differences)) for signs in product((1, -1), repeat=len(differences))]
    assert p == np.mean([mean >= np.mean(differences) - 1e-12 for mean in means])


def test_one_pair_is_no_test():
    result = paired_test([1.0, math.nan])
    assert math.isnan(result.p)
    assert (result.n, result.kind) == (1, "none")


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1.0, 1.0])
    assert len(holm([])) == 0
