"""Intervals over seeds. The unit is the chain: one number per seed, never the generations or images of one chain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Nominal coverage of every interval."""

MIN_BOOTSTRAP = 10
"""Seeds from which the bootstrap is used. Below, it covers far less than it says (about 73 % with 3 seeds)."""

NUM_RESAMPLES = 5_000
"""Bootstrap resamples."""


@dataclass(frozen=True)
class SeedInterval:
    """A number over seeds with its 95 % interval.

    Args:
        centre: the mean; the interquartile mean for ``kind="bootstrap"``; NaN for ``n = 0``.
        low: lower end; ``None`` where there is no interval.
        high: upper end; likewise.
        n: seeds that the number stands on.
        kind: ``"t"`` (Student's interval of the mean), ``"bootstrap"`` (percentile bootstrap of the interquartile
            mean) or ``"none"`` (fewer than two seeds).
    """

    centre: float
    low: float | None
    high: float | None
    n: int
    kind: str


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """The mean of what is left after a quarter of the values (rounded down) is cut off at each end."""
    return stats.trim_mean(values, 0.25, axis=axis)


def t_interval(values: Sequence[float]) -> SeedInterval:
    """Mean and Student's 95 % interval; no interval for fewer than two values.

    Args:
        values: one number per seed; NaN stands for a seed without one and is left out of ``n``.
    """
    sample = _finite(values)
    n = len(sample)
    if n < 2:
        return SeedInterval(float(sample[0]) if n else float("nan"), None, None, n, "none")
    centre = float(sample.mean())
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * sample.std(ddof=1) / np.sqrt(n))
    return SeedInterval(centre, centre - half, centre + half, n, "t")


def summarize(values: Sequence[float], *, bootstrap_seed: int = 0) -> SeedInterval:
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


def _finite(values: Sequence[float]) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64)
    return sample[np.isfinite(sample)]
