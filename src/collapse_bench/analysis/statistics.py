"""Intervals and tests over seeds. The unit is the chain: one number per seed, never its generations or images.

Where scipy does exactly what is meant and honours its seed, it does the work here. ``summarize`` resamples by itself,
so that the published tables keep their random numbers from one version of scipy to the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special, stats

LEVEL = 0.95
"""Nominal coverage of every interval."""

MIN_BOOTSTRAP = 10
"""Seeds from which the bootstrap is used. Below, it covers far less than it says (about 73 % with 3 seeds)."""

NUM_RESAMPLES = 5_000
"""Bootstrap resamples."""

# Equal differences differ by this much of their size after a few operations in float64.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SeedInterval:
    """A number over seeds with its 95 % interval.

    Args:
        centre: the mean; the interquartile mean for ``kind="bootstrap"``; the statistic that was asked for, for
            ``kind="stratified bootstrap"``; NaN for ``n = 0``.
        low: lower end; ``None`` where there is no interval.
        high: upper end; likewise.
        n: seeds that the number stands on; over several tasks, those of the task with the fewest.
        kind: ``"t"`` (Student's interval of the mean), ``"bootstrap"`` (percentile bootstrap of the interquartile
            mean), ``"stratified bootstrap"`` (percentile bootstrap, runs resampled within each task) or ``"none"``
            (too few seeds for an interval).
    """

    centre: float
    low: float | None
    high: float | None
    n: int
    kind: str


@dataclass(frozen=True)
class PairedTest:
    """A one-sided test over pairs of chains of the null hypothesis that their mean difference is at most 0.

    Args:
        p: probability of differences as large as these or larger under the null; NaN for fewer than two pairs.
        n: pairs.
        kind: ``"paired t"``, ``"exact sign flip"`` or ``"none"`` (fewer than two pairs).
    """

    p: float
    n: int
    kind: str


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """The mean of what is left after a quarter of the values (rounded down) is cut off at each end."""
    return stats.trim_mean(values, 0.25, axis=axis)


def centre_over_seeds(values: np.ndarray) -> np.ndarray:
    """The number that stands for all seeds, over the last axis: the mean, from 10 seeds on the interquartile mean."""
    return interquartile_mean(values) if values.shape[-1] >= MIN_BOOTSTRAP else values.mean(axis=-1)


def t_interval(values: Sequence[float] | np.ndarray) -> SeedInterval:
    """Mean and Student's 95 % interval; no interval for fewer than two values.

    Args:
        values: one number per seed; NaN stands for a seed without one and is left out of ``n``.
    """
    sample = _finite(values)
    n = len(sample)
    if n < 2:
        return SeedInterval(float(sample[0]) if n else float("nan"), None, None, n, "none")
    centre = float(sample.mean())
    half = float(_t_quantile(n) * sample.std(ddof=1) / np.sqrt(n))
    return SeedInterval(centre, centre - half, centre + half, n, "t")


def summarize(values: Sequence[float] | np.ndarray, *, bootstrap_seed: int = 0) -> SeedInterval:
    """A number over seeds: below 10 the t interval of the mean, from 10 on the bootstrap of the interquartile mean.

    Args:
        values: one number per seed; NaN stands for a seed without one and is left out of ``n``.
        bootstrap_seed: seed of the resampling.
    """
    sample = _finite(values)
    n = len(sample)
    if n < MIN_BOOTSTRAP:
        return t_interval(values)
    rows = np.random.default_rng(bootstrap_seed).integers(n, size=(NUM_RESAMPLES, n))
    low, high = np.quantile(interquartile_mean(sample[rows]), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return SeedInterval(float(interquartile_mean(sample)), float(low), float(high), n, "bootstrap")


def paired_difference(arm: Mapping[int, float], baseline: Mapping[int, float]) -> SeedInterval:
    """The mean of (arm - baseline) over the seeds that both have, with Student's 95 % interval.

    Arms share their random numbers seed by seed, so pairing takes out what a seed does to both of them.

    Args:
        arm: a number by seed.
        baseline: likewise.
    """
    return t_interval([arm[seed] - baseline[seed] for seed in sorted(arm.keys() & baseline.keys())])


def rank_intervals(scores: np.ndarray, rng: np.random.Generator) -> list[tuple[int, int]]:
    """The 95 % interval of the rank of each arm, by a paired bootstrap: the same seeds are drawn for all arms.

    Rank 1 has the lowest centre over seeds, and equal centres have equal ranks. With few seeds the interval covers
    less than it says; it never leaves what can be had by leaving seeds out and repeating others.

    Args:
        scores: [arms, seeds], lower is better, finite.
        rng: draws the resamples.

    Returns:
        Lower and upper end per arm, in their order.
    """
    num_seeds = scores.shape[1]
    drawn = rng.integers(num_seeds, size=(NUM_RESAMPLES, num_seeds))
    ranks = stats.rankdata(centre_over_seeds(scores[:, drawn]), method="min", axis=0)
    ends = np.quantile(ranks, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1, method="inverted_cdf")
    return [(int(low), int(high)) for low, high in ends.T]


def probability_of_improvement(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> SeedInterval:
    """P(X > Y): how likely a run of one arm scores above a run of another, with its stratified bootstrap interval.

    The mean over tasks of the share of all pairs of runs (x, y) with x > y, where a tie counts one half, i.e. of the
    Mann-Whitney U over its largest value (Agarwal et al. 2021, arXiv:2108.13264, section 4). Higher means that X
    scores higher; 0.5 means no difference. The two arms are resampled independently, within each task: the definition
    is about unpaired runs, and common random numbers do not enter it. Below 10 runs there is no interval, because the
    bootstrap would cover far less than it says: of equal arms, 14 % would lie above 0.5 with 2 runs each.

    Args:
        first: scores of X, [runs, tasks]; NaN stands for a run that is missing and is left out.
        second: scores of Y, likewise, with the same tasks.
        rng: draws the resamples.

    Raises:
        ValueError: if the arms differ in the number of tasks.
    """
    xs, ys = _tasks(first), _tasks(second)
    if len(xs) != len(ys):
        raise ValueError(f"the arms have {len(xs)} and {len(ys)} tasks")

    def mean_over_tasks(*tasks: np.ndarray) -> np.ndarray:
        pairs = zip(tasks[: len(xs)], tasks[len(xs) :], strict=True)
        differences = [x[..., :, None] - y[..., None, :] for x, y in pairs]
        return np.mean([((1 + np.sign(d)) / 2).mean(axis=(-2, -1)) for d in differences], axis=0)

    tasks = (*xs, *ys)
    n = min(map(len, tasks), default=0)
    centre = float(mean_over_tasks(*tasks)) if n else float("nan")
    if n < MIN_BOOTSTRAP:
        return SeedInterval(centre, None, None, n, "none")
    # Several samples are resampled independently of each other: tasks are the strata.
    interval = stats.bootstrap(
        tasks,
        lambda *resampled, axis: mean_over_tasks(*resampled),
        n_resamples=NUM_RESAMPLES,
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        rng=rng,
    ).confidence_interval
    return SeedInterval(centre, float(interval.low), float(interval.high), n, "stratified bootstrap")


def paired_test(differences: Sequence[float] | np.ndarray) -> PairedTest:
    """The one-sided paired t test of a mean difference; of equal differences, the exact sign-flip test.

    Without any spread t is infinite, which would make two equal differences a proof; such pairs come from coarse
    numbers, for example counts of classes.

    Args:
        differences: one per pair; NaN stands for a pair without one and is left out.
    """
    sample = _finite(differences)
    n = len(sample)
    if n < 2:
        return PairedTest(float("nan"), n, "none")
    if np.ptp(sample) <= _ROUNDING * np.abs(sample).max():
        # Among the sign flips of equal positive differences, only the one that flips none is as large.
        return PairedTest(0.5**n if sample[0] > 0 else 1.0, n, "exact sign flip")
    # The closed form of scipy's ttest_1samp, which takes twenty times as long and is called thousands of times.
    t = sample.mean() / (sample.std(ddof=1) / np.sqrt(n))
    return PairedTest(float(special.stdtr(n - 1, -t)), n, "paired t")


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """P values adjusted for their number, so that all errors together stay at the level (Holm 1979).

    p_(i) becomes the largest of (m - j + 1) p_(j) over j <= i, at most 1. Valid under any dependence of the tests.
    """
    # Not scipy's: false_discovery_control holds the share of false discoveries, not the chance of any.
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


@lru_cache
def _t_quantile(n: int) -> float:
    # A tidy table of a suite has tens of thousands of intervals, of a few sizes.
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1))


def _tasks(scores: np.ndarray) -> list[np.ndarray]:
    return [column[np.isfinite(column)] for column in np.asarray(scores, dtype=np.float64).T]


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64)
    return sample[np.isfinite(sample)]
