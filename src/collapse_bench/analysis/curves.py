"""One metric over the generations of an arm, as a few numbers with intervals over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collapse_bench.analysis.comparing import Comparison, curves_of
from collapse_bench.analysis.runs import Run, better, mean_floor
from collapse_bench.analysis.statistics import SeedInterval, summarize

ONSET = 0.1
"""Share of the control's generation 0 by which a curve must be worse than the control's from the onset on.

Ours, and the same as the shortfall that counts as early collapse.
"""


@dataclass(frozen=True)
class Waiting:
    """A number of generations until something happens, which the end of the chain can cut short.

    Args:
        interval: over seeds, where a seed to which it never happens counts with the last generation; so the centre is
            the mean time within the length of the chain (the restricted mean), and no more than the mean time.
        num_censored: seeds to which it never happens.
    """

    interval: SeedInterval
    num_censored: int


@dataclass(frozen=True)
class CurveSummary:
    """What became of one metric over the generations 0 to G of one arm, over its seeds.

    A seed that lacks a number which a summary needs is left out of it, and ``n`` says so. "Worse" is higher where
    lower is better, lower where higher is better, and farther from 1 or from the floor where these are best.

    Args:
        metric: its name.
        last_generation: G, the last generation that some seed of the arm and of the control have reached.
        area: area under the relative degradation, by the trapezoid rule over 0 to G, in generations. The relative
            degradation of a seed at t is how much worse its value is than that of its control C0 at generation 0, over
            the mean of these over seeds: one scale for all, so that one small value blows up no ratio. Lower is
            better; it grows with G, so only chains of one length compare.
        final: the value at G.
        half_life: generations until half of the quality of the seed's own generation 0 has gone, by linear
            interpolation between generations: the value is half of it (higher is better), twice it (lower is better),
            or half as near to 1 as it was, where 0 and 2 are not near at all (1 is best). Not defined for a metric
            that is best at its floor, or where generation 0 has no quality to lose. Higher is better.
        slope: least-squares slope over the last half of the chain, from generation G / 2 (rounded down) to G, per
            generation.
        onset: the first generation at which, and at the next one too, the seed's value is worse than its control's at
            the same generation by more than ``ONSET`` of the control's generation 0 (the mean over seeds). Higher is
            better.
    """

    metric: str
    last_generation: int
    area: SeedInterval
    final: SeedInterval
    half_life: Waiting
    slope: SeedInterval
    onset: Waiting


def summarize_curves(members: Sequence[Run], comparison: Comparison, metric: str) -> CurveSummary:
    """The summary of one metric of one arm.

    Args:
        members: the runs of the arm; they give the final value, the half-life and the slope.
        comparison: those of them that have a control, beside it; they give the area and the onset.
        metric: what was measured of fresh samples.
    """
    direction, floor = better(members, metric), mean_floor(members, metric)
    last = comparison.last_generation if comparison.num_pairs else max(len(run.records) for run in members) - 1
    values = curves_of(members, metric, last + 1)
    arm, control = (badness(curves, direction, floor) for curves in comparison.curves(metric))
    start = _start(comparison, metric)
    return CurveSummary(
        metric=metric,
        last_generation=last,
        area=summarize(np.asarray(np.trapezoid((arm - control[:, :1]) / start, axis=1))),
        final=summarize(values[:, -1]),
        half_life=_waiting(half_lives(values, direction), last),
        slope=summarize(last_half_slope(values)),
        onset=_waiting(onsets((arm - control) / start), last),
    )


def badness(curves: np.ndarray, direction: str, floor: float = math.nan) -> np.ndarray:
    """Values turned so that higher is worse, on their own scale.

    Args:
        curves: values of one metric.
        direction: which way is good, as ``better`` gives it.
        floor: the real-vs-real floor, for a metric that is best there.
    """
    match direction:
        case "lower":
            return curves
        case "higher":
            return -curves
        case "one":
            return np.abs(curves - 1.0)
        case _:
            return np.abs(curves - floor)


def last_half_slope(curves: np.ndarray) -> np.ndarray:
    """Least-squares slope of each row of [runs, generations] over generations G / 2 (rounded down) to G.

    NaN where there is no generation but 0.
    """
    last = curves.shape[1] - 1
    if last < 1:
        return np.full(len(curves), np.nan)
    t = np.arange(last // 2, last + 1)
    centred = t - t.mean()
    return curves[:, t] @ centred / (centred @ centred)


def half_lives(curves: np.ndarray, direction: str) -> np.ndarray:
    """Generations until half of each row's quality has gone, see ``CurveSummary``; inf where it never has, else NaN."""
    start = curves[:, :1]
    gone = {"lower": 2.0 * start, "higher": -start / 2, "one": (1.0 + np.abs(start - 1.0)) / 2}.get(direction)
    if gone is None:
        return np.full(len(curves), np.nan)
    # How much badness is left until half has gone: it crosses 0 there.
    left = gone - badness(curves, direction)
    waits = np.full(len(curves), np.inf)
    for i, row in enumerate(left):
        crossed = np.flatnonzero(row <= 0)
        if len(crossed) and crossed[0] > 0:
            after = crossed[0]
            waits[i] = after - 1 + row[after - 1] / (row[after - 1] - row[after])
    defined = np.isfinite(curves).all(axis=1) & (left[:, 0] > 0)
    return np.where(defined, waits, np.nan)


def onsets(excess: np.ndarray) -> np.ndarray:
    """First generation at which each row of [runs, generations] exceeds ``ONSET`` twice in a row; inf for never.

    A row with a missing number has none (NaN).
    """
    twice = (excess[:, :-1] > ONSET) & (excess[:, 1:] > ONSET)
    first = np.where(twice.any(axis=1), twice.argmax(axis=1) if twice.size else 0, np.inf)
    return np.where(np.isfinite(excess).all(axis=1), first, np.nan)


def _start(comparison: Comparison, metric: str) -> float:
    """Mean of the control's generation 0; NaN where nothing can be relative to it."""
    start = comparison.curves(metric)[1][:, 0] if comparison.num_pairs else np.array([])
    known = start[np.isfinite(start)]
    return float(known.mean()) if len(known) and known.mean() > 0 else math.nan


def _waiting(waits: np.ndarray, last_generation: int) -> Waiting:
    known = waits[~np.isnan(waits)]
    return Waiting(summarize(np.minimum(known, last_generation)), int(np.isinf(known).sum()))
