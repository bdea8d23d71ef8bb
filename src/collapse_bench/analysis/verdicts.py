"""Verdicts: for each definition of collapse a stated test of an arm against its control C0, seed by seed.

The eight definitions are those of Schaeffer et al. 2025, "Position: Model Collapse Does Not Mean What You Think",
arXiv:2503.03150; the measures, thresholds and tests are ours. So are early and late collapse, after the two stages of
Shumailov et al. 2024. Thresholds are arguments, and ``threshold_sensitivity`` shows what hangs on them.

All tests are one-sided paired t tests over seeds (``paired_test``) at level 0.05. The null hypothesis is that the arm
has changed, from the control's generation 0 on, by no more than the threshold beyond what its control changed. "yes"
means that the null is rejected. "no" means *not shown at this level*: with few seeds a real collapse can go unshown, so
the effect and its interval stand beside every decision. "not decidable" means that the test cannot be made, and says
why.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Self, final

import numpy as np

from collapse_bench.analysis.comparing import Comparison, compare, is_control
from collapse_bench.analysis.curves import last_half_slope
from collapse_bench.analysis.runs import Run, better, group_by_arm, mean_floor
from collapse_bench.analysis.statistics import SeedInterval, holm, paired_test, t_interval

ALPHA = 0.05
"""Level of every verdict, after the correction for the number of tests."""

FACTORS = (0.5, 1.0, 1.5)
"""Multiples of the thresholds in the sensitivity table; twice the threshold of late collapse could never be reached."""

Decision = Literal["yes", "no", "not decidable"]

_NOTHING = SeedInterval(math.nan, None, None, 0, "none")


@dataclass(frozen=True)
class Verdict:
    """The decision of one definition about one arm.

    Args:
        definition: its name.
        decision: ``"yes"``; ``"no"``, not shown at this level; or ``"not decidable"``.
        metric: the number with the smallest p, which effect and n are of; empty where nothing was tested.
        effect: the arm's change minus its control's, positive for worse, over seeds with Student's 95 % interval; a
            multiple of the control's mean value at generation 0 (early and late: at that generation) where the
            definition is relative.
        p: one-sided, corrected for the numbers of this definition; NaN where nothing was tested.
        p_holm: ``p`` corrected for the definitions that are judged together, too; this one decides.
        n: pairs of chains.
        says: what was tested and found, in words.
        gaps: what could not be tested and why, in words; a "yes" can stand without it, a "no" cannot.
    """

    definition: str
    decision: Decision
    metric: str
    effect: SeedInterval
    p: float
    p_holm: float
    n: int
    says: tuple[str, ...]
    gaps: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Why the decision is what it is, in words."""
        return "; ".join(self.says if self.decision == "yes" else (*self.gaps, *self.says))


@dataclass(frozen=True)
class Finding:
    """What the test of one definition found in one arm, before the correction for the other definitions.

    Args:
        p: one-sided; NaN where nothing could be tested.
        metric: the number with the smallest p.
        effect: as in ``Verdict``.
        says: what was tested, in words.
        gaps: what could not be tested and why; with gaps, what is not shown is not decidable either.
    """

    p: float = math.nan
    metric: str = ""
    effect: SeedInterval = _NOTHING
    says: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measure:
    """One number whose change counts for a definition.

    Args:
        metric: its name in the records, of fresh samples.
        worse: the direction that counts.
        threshold: the change beyond the control's that must be exceeded.
        relative: whether changes are multiples of the control's mean value; else they are in units of the metric.
    """

    metric: str
    worse: Literal["up", "down"]
    threshold: float = 0.0
    relative: bool = True

    @property
    def better(self) -> str:
        """The direction that does not."""
        return "down" if self.worse == "up" else "up"

    @property
    def sign(self) -> float:
        """Turns changes so that positive is worse."""
        return 1.0 if self.worse == "up" else -1.0

    @property
    def rule(self) -> str:
        """The change that counts, in words."""
        if self.threshold == 0:
            return f"{self.metric} {self.worse}"
        unit = " times the control at generation 0" if self.relative else ""
        return f"{self.metric} {self.worse} by more than {self.threshold:g}{unit}"


class Definition(ABC):
    """A definition of collapse: a question to an arm and its control."""

    name: str

    @property
    @abstractmethod
    def rule(self) -> str:
        """What is shown where the verdict is "yes", in words."""

    @abstractmethod
    def test(self, comparison: Comparison) -> Finding:
        """The test on at least two pairs of chains."""

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """The same definition with thresholds ``factor`` times as large."""


def last_value(curves: np.ndarray) -> np.ndarray:
    """The last generation of each row of [runs, generations]."""
    return curves[:, -1]


@final
@dataclass(frozen=True)
class Worsening(Definition):
    """Any of some numbers has become worse, since the control's generation 0, by more than the control's has.

    Per seed the change is [s(arm) - s(control)], where s is a linear summary of a curve: by default its last value,
    because what both are measured from, the control's generation 0, cancels. It is not the arm's own: a mitigation that
    spoils generation 0 too would be forgiven for it. The p values of several numbers are corrected by Holm.

    Args:
        name: name of the definition.
        measures: the numbers, their directions and thresholds.
        of_curve: s, from [runs, generations] to [runs].
        of_curve_words: s in words.
        beyond_zero: count a control whose s has become better as one that has not changed, so that an arm that only
            improves more slowly is not called worse; for numbers that become worse upwards.
    """

    name: str
    measures: tuple[Measure, ...]
    of_curve: Callable[[np.ndarray], np.ndarray] = last_value
    of_curve_words: str = "change since the control's generation 0"
    beyond_zero: bool = False

    @property
    def rule(self) -> str:
        """What is shown where the verdict is "yes", in words."""
        return f"{self.of_curve_words}: {', or '.join(measure.rule for measure in self.measures)}"

    def test(self, comparison: Comparison) -> Finding:
        """The test on at least two pairs of chains."""
        findings = []
        for measure in self.measures:
            arm, control = comparison.curves(measure.metric)
            of_control = self.of_curve(control)
            change = self.of_curve(arm) - (np.maximum(of_control, 0) if self.beyond_zero else of_control)
            findings.append(_test_measure(comparison, measure, change, control[:, 0]))
        return _any_of(findings)

    def scaled(self, factor: float) -> Self:
        """The same definition with thresholds ``factor`` times as large."""
        return replace(self, measures=tuple(replace(m, threshold=factor * m.threshold) for m in self.measures))


@final
@dataclass(frozen=True)
class ChangedScalingLaw(Definition):
    """The error falls more slowly with the size n of the real pool than the control's does.

    Per seed, the exponent b of the power law error = c n^-b is fitted by least squares to log error over log n at the
    last generation, for the arm and for the control. What the arm's is smaller by is tested. The error is the FID
    extrapolated to infinite samples alone: a loss has an irreducible part, which no power of n describes.

    Args:
        name: name of the definition.
        metric: the error; all of its values must be above 0.
        threshold: loss of exponent that must be exceeded.
        min_sizes: fewest sizes; two points lie on every power law, three can show that it is none.
    """

    name: str = "changed scaling law"
    metric: str = "fid_infinity"
    threshold: float = 0.0
    min_sizes: int = 3

    @property
    def rule(self) -> str:
        """What is shown where the verdict is "yes", in words."""
        return (
            f"at the last generation: over at least {self.min_sizes} sizes of the real pool, exponent of "
            f"{self.metric} down by more than {self.threshold:g}, from the control's"
        )

    def test(self, comparison: Comparison) -> Finding:
        """The test on at least two pairs of chains, each at several sizes of the real pool."""
        sizes = {size: inner for size, inner in comparison.sizes.items() if inner.num_pairs}
        if len(sizes) < self.min_sizes:
            gap = f"needs runs and controls at {self.min_sizes} sizes of the real pool or more, found {len(sizes)}"
            return Finding(gaps=(gap,))
        if gap := next((gap for inner in sizes.values() if (gap := _unmeasured(inner, self.metric))), None):
            return Finding(gaps=(gap,))
        seeds = sorted(set.intersection(*(set(inner.seeds) for inner in sizes.values())))
        last = min(inner.last_generation for inner in sizes.values())
        if len(seeds) < 2 or last < 1:
            return Finding(gaps=("fewer than 2 seeds have a later generation at every size",))
        # [arm or control, size, seed]
        errors = np.stack(
            [
                [curves[[inner.seeds.index(seed) for seed in seeds], last] for curves in of_size]
                for inner in sizes.values()
                for of_size in [inner.curves(self.metric)]
            ],
            axis=1,
        )
        if not (errors > 0).all():
            return Finding(gaps=(f"{self.metric} is missing or not above 0 somewhere, so it has no logarithm",))
        log_n = np.log(list(sizes))
        centred = log_n - log_n.mean()
        of_arm, of_control = -np.einsum("asg,s->ag", np.log(errors), centred) / (centred @ centred)
        measure = Measure(self.metric, "up", self.threshold, relative=False)
        finding = _test_measure(comparison, measure, of_control - of_arm, np.ones(len(seeds)))
        return replace(finding, says=tuple(f"exponent over {len(sizes)} sizes: {words}" for words in finding.says))

    def scaled(self, factor: float) -> Self:
        """The same definition with a threshold ``factor`` times as large."""
        return replace(self, threshold=factor * self.threshold)


@final
@dataclass(frozen=True)
class EarlyCollapse(Definition):
    """The tails or the rarest class are going while variance and classes are still there.

    At a generation g >= 1: tail coverage or lowest class share lies at least ``shortfall`` below the control's, at g
    and at g + 1, while the within-class variance ratio exceeds ``min_variance`` and the number of classes covered
    reaches ``min_classes`` of the control's. The signs are tested: their p at g is the larger of those at g and g + 1
    (both must hold), corrected by Holm over all g and both numbers. That variance and classes are still there is no
    claim but sets early apart from late, and is read off the means over seeds.

    Args:
        name: name of the definition.
        signs: the numbers that fall early.
        shortfall: part of the control's value by which they must be lower.
        min_variance: part of the control's variance ratio that must be left.
        min_classes: part of the control's classes that must be left; 0.9 is one missing of ten.
    """

    name: str = "early collapse"
    signs: tuple[str, ...] = ("tail_coverage", "lowest_class_share")
    shortfall: float = 0.1
    min_variance: float = 0.8
    min_classes: float = 0.9

    @property
    def rule(self) -> str:
        """What is shown where the verdict is "yes", in words."""
        return (
            f"at two generations in a row: {' or '.join(self.signs)} down by more than {self.shortfall:g} times the "
            f"control at the same generation, while {self.min_variance:g} of its within-class variance ratio and "
            f"{self.min_classes:g} of its classes are left (means over seeds)"
        )

    def test(self, comparison: Comparison) -> Finding:
        """The test on at least two pairs of chains."""
        kept = (("within_class_variance_ratio", self.min_variance), ("num_classes_covered", self.min_classes))
        if missing := tuple(gap for metric, _ in kept if (gap := _unmeasured(comparison, metric))):
            return Finding(gaps=missing)
        if comparison.last_generation < 2:
            return Finding(gaps=("needs two generations after generation 0",))
        variance, classes = (self._left(comparison, metric) for metric, _ in kept)
        still_there = (variance > self.min_variance) & (classes >= self.min_classes)
        still_there = still_there[:-1] & still_there[1:]
        found, gaps = self._signs(comparison)
        if not found:
            return Finding(gaps=gaps)
        adjusted = holm([finding.p for _, finding in found])
        early = [(p, g, f) for p, (g, f) in zip(adjusted, found, strict=True) if still_there[g]]
        if not early:
            best = min((finding for _, finding in found), key=_p_or_infinite)
            says = "at no generation are variance and classes still there: if this is collapse, it is late"
            return replace(best, p=1.0, says=(says,), gaps=gaps)
        shown = [item for item in early if item[0] < ALPHA]
        p, g, best = min(shown, key=lambda item: item[1]) if shown else min(early, key=lambda item: item[0])
        says = tuple(f"at generations {g} and {g + 1}, {words}" for words in best.says)
        return replace(best, p=float(p), says=says, gaps=(*gaps, *best.gaps))

    def scaled(self, factor: float) -> Self:
        """The same definition with a shortfall ``factor`` times as large; what must be left stays."""
        return replace(self, shortfall=factor * self.shortfall)

    def _signs(self, comparison: Comparison) -> tuple[list[tuple[int, Finding]], tuple[str, ...]]:
        """What was found of each sign at each generation and the next, and which sign could not be tested at all."""
        found: list[tuple[int, Finding]] = []
        gaps: tuple[str, ...] = ()
        for metric in self.signs:
            measure = Measure(metric, "down", self.shortfall)
            arm, control = comparison.curves(metric)
            at = [_test_measure(comparison, measure, a - c, c) for a, c in zip(arm.T, control.T, strict=True)]
            both = [max(pair, key=_p_or_infinite) for pair in pairwise(at[1:])]
            tested = [(g, finding) for g, finding in enumerate(both, start=1) if math.isfinite(finding.p)]
            found += tested
            untested = [(g, finding) for g, finding in enumerate(both, start=1) if not math.isfinite(finding.p)]
            gaps += tuple(f"at generation {g}: {gap}" for g, finding in untested[:1] for gap in finding.gaps)
        return found, gaps

    def _left(self, comparison: Comparison, metric: str) -> np.ndarray:
        """Mean of the arm over mean of the control, by generation; a seed counts where both have a number."""
        arm, control = comparison.curves(metric)
        both = np.isfinite(arm) & np.isfinite(control)
        arm_sum, control_sum = (np.where(both, values, 0.0).sum(axis=0) for values in (arm, control))
        return np.divide(arm_sum, control_sum, out=np.zeros_like(arm_sum), where=control_sum > 0)


@final
@dataclass(frozen=True)
class LateCollapse(Definition):
    """Most is gone: at the last generation, variance, classes or coverage are less than half of the control's.

    Tested for each number, corrected by Holm over the three.

    Args:
        name: name of the definition.
        metrics: the numbers.
        lost: part of the control's value that must be missing.
    """

    name: str = "late collapse"
    metrics: tuple[str, ...] = ("within_class_variance_ratio", "num_classes_covered", "coverage")
    lost: float = 0.5

    @property
    def rule(self) -> str:
        """What is shown where the verdict is "yes", in words."""
        return (
            f"at the last generation: {' or '.join(self.metrics)} down by more than {self.lost:g} times the control "
            "at that generation"
        )

    def test(self, comparison: Comparison) -> Finding:
        """The test on at least two pairs of chains."""
        findings = []
        for metric in self.metrics:
            arm, control = comparison.curves(metric)
            measure = Measure(metric, "down", self.lost)
            findings.append(_test_measure(comparison, measure, arm[:, -1] - control[:, -1], control[:, -1]))
        return _any_of(findings)

    def scaled(self, factor: float) -> Self:
        """The same definition with a loss ``factor`` times as large."""
        return replace(self, lost=factor * self.lost)


CATASTROPHIC = Worsening(
    "catastrophic rise of risk",
    # FID is a squared distance: five times the control's generation 0 is a bit more than twice as far away. A loss
    # holds the irreducible noise of the data, so that doubling it is already extreme.
    (Measure("fid_infinity", "up", 4.0), Measure("held_out_loss", "up", 1.0)),
)
ANY_RISE = Worsening("any rise of risk", (Measure("fid_infinity", "up"), Measure("held_out_loss", "up")))
DIVERGING = Worsening(
    "diverging risk",
    # No finite chain shows divergence; what can be shown is that the rise has not come to an end.
    (Measure("fid_infinity", "up"), Measure("held_out_loss", "up")),
    last_half_slope,
    "slope over the last half of the chain, per generation, beyond the control's and beyond 0",
    beyond_zero=True,
)
SCALING_LAW = ChangedScalingLaw()
# The variance counts as kept as long as early collapse does not call it gone (0.8 of the control's).
VARIANCE = Worsening("collapsing variance", (Measure("within_class_variance_ratio", "down", 0.2),))
# Shares of samples, near 0 in a good model, so nothing can be relative to them: one sample in twenty.
ENTANGLEMENT = Worsening("entangled modes", (Measure("entanglement", "up", 0.05, relative=False),))
# The shortfall of early collapse.
TAILS = Worsening(
    "vanishing tails", (Measure("tail_coverage", "down", 0.1), Measure("lowest_class_share", "down", 0.1))
)
HALLUCINATION = Worsening("hallucinated data", (Measure("precision", "down", 0.05, relative=False),))

EIGHT: tuple[Definition, ...] = (
    CATASTROPHIC,
    ANY_RISE,
    DIVERGING,
    SCALING_LAW,
    VARIANCE,
    ENTANGLEMENT,
    TAILS,
    HALLUCINATION,
)
"""The definitions of Schaeffer et al. 2025 with our thresholds; judged together, so corrected together."""

STAGES: tuple[Definition, ...] = (EarlyCollapse(), LateCollapse())
"""Early and late collapse; each is a question of its own and corrected for its own tests only."""


@dataclass(frozen=True)
class QualityGate:
    """Tells arms whose generation 0 is so bad that they are undertrained, whatever their verdicts say.

    An arm is undertrained where the mean of a metric at generation 0 is worse than a stated part of the real-vs-real
    floor. Recall, because a model that has not yet learnt most of the data has nothing to lose, while its samples can
    look right (precision). Half, because the models that make sense in our own results reach 0.9 of it.

    Args:
        metric: higher is better, or lower is better.
        frac: least part of the floor (for a metric where lower is better, least part that the floor is of the value).
    """

    metric: str = "recall"
    frac: float = 0.5

    def undertrained(self, members: Sequence[Run]) -> bool | None:
        """Whether the arm is undertrained; ``None`` where metric or floor were not measured."""
        starts = [value for run in members if math.isfinite(value := run.value(0, self.metric))]
        floor = mean_floor(members, self.metric)
        if not starts or not math.isfinite(floor):
            return None
        start = sum(starts) / len(starts)
        if better(members, self.metric) == "lower":
            return self.frac * start > floor
        return start < self.frac * floor


def judge(
    runs: Sequence[Run], definitions: Sequence[Definition] = EIGHT, stages: Sequence[Definition] = STAGES
) -> dict[str, list[Verdict]]:
    """The verdicts about every arm but the controls, by the name of the arm.

    Args:
        runs: runs that compare, the controls among them.
        definitions: corrected by Holm over those of them that could be tested in an arm.
        stages: each corrected for its own tests only.

    Raises:
        RunDirError: if the runs do not compare.
    """
    return {
        arm: _judge_arm(compare(members, runs), definitions, stages)
        for arm, members in group_by_arm(runs).items()
        if not is_control(members[0])
    }


def threshold_sensitivity(
    runs: Sequence[Run],
    factors: Sequence[float] = FACTORS,
    definitions: Sequence[Definition] = EIGHT,
    stages: Sequence[Definition] = STAGES,
) -> dict[tuple[str, str], dict[float, Decision]]:
    """The decision by (arm, definition) and by the factor that all thresholds are multiplied by.

    Raises:
        RunDirError: if the runs do not compare.
    """
    table: dict[tuple[str, str], dict[float, Decision]] = {}
    for factor in factors:
        scaled = [[definition.scaled(factor) for definition in family] for family in (definitions, stages)]
        for arm, verdicts in judge(runs, *scaled).items():
            for verdict in verdicts:
                table.setdefault((arm, verdict.definition), {})[factor] = verdict.decision
    return table


def _judge_arm(
    comparison: Comparison, definitions: Sequence[Definition], stages: Sequence[Definition]
) -> list[Verdict]:
    gap = None
    if comparison.num_pairs == 0:
        gap = "no control C0 among the runs (regime=real mitigation=control, or the arm's steering; all else equal)"
    elif comparison.num_pairs == 1:
        gap = "only one seed has a control C0, which says nothing about the spread over seeds"
    elif comparison.last_generation < 1:
        gap = "arm and control C0 have no generation after generation 0 in common"
    if gap:
        return [_decide(definition, Finding(gaps=(gap,)), math.nan) for definition in (*definitions, *stages)]
    findings = [definition.test(comparison) for definition in definitions]
    tested = [i for i, finding in enumerate(findings) if math.isfinite(finding.p)]
    adjusted = dict(zip(tested, holm([findings[i].p for i in tested]), strict=True))
    verdicts = [
        _decide(definition, finding, float(adjusted.get(i, math.nan)))
        for i, (definition, finding) in enumerate(zip(definitions, findings, strict=True))
    ]
    for stage in stages:
        finding = stage.test(comparison)
        verdicts.append(_decide(stage, finding, finding.p))
    return verdicts


def _decide(definition: Definition, finding: Finding, p_holm: float) -> Verdict:
    decision: Decision = "no"
    if p_holm < ALPHA:
        decision = "yes"
    elif finding.gaps or math.isnan(p_holm):
        decision = "not decidable"
    return Verdict(
        definition=definition.name,
        decision=decision,
        metric=finding.metric,
        effect=finding.effect,
        p=finding.p,
        p_holm=p_holm,
        n=finding.effect.n,
        says=finding.says,
        gaps=finding.gaps,
    )


def _test_measure(comparison: Comparison, measure: Measure, change: np.ndarray, scale: np.ndarray) -> Finding:
    """The test that the mean change exceeds the threshold.

    A relative threshold is tested as mean(change - threshold * scale) > 0, which is linear in the numbers and so needs
    no ratio of two noisy ones. Without a threshold there is nothing to be relative to: where the scale is not above 0,
    the effect is in units of the metric.

    Args:
        comparison: where the numbers are from.
        measure: direction and threshold.
        change: arm minus control, one per seed.
        scale: what a relative change is a multiple of, one per seed.
    """
    if gap := _unmeasured(comparison, measure.metric):
        return Finding(gaps=(gap,))
    scale = scale if measure.relative else np.ones_like(change)
    known = np.isfinite(change) & np.isfinite(scale)
    n = int(known.sum())
    if n < 2:
        return Finding(gaps=(f"{measure.metric} has numbers in {n} of {len(known)} pairs, needs 2",))
    if measure.threshold == 0 and scale[known].mean() <= 0:  # a FID at infinity is about 0 at best; only a unit is lost
        scale = np.ones_like(change)
    if scale[known].mean() <= 0:
        return Finding(gaps=(f"the control's {measure.metric} is not above 0, so nothing is relative to it",))
    worse = measure.sign * change[known]
    effect = t_interval(worse / scale[known].mean())
    result = paired_test(worse - measure.threshold * scale[known])
    left_out = f", {len(known) - n} of {len(known)} pairs without a number" if n < len(known) else ""
    moved = measure.worse if effect.centre >= 0 else measure.better
    threshold = f"threshold {measure.threshold:g}" if moved == measure.worse else f"counts {measure.worse}"
    says = (
        f"{measure.metric} {moved} by {abs(effect.centre):.3g} ({threshold}, "
        f"p = {result.p:.2g}, {result.kind}, n = {n}{left_out})"
    )
    gaps = ()
    if result.kind == "exact sign flip" and result.p < 1:
        gaps = (f"{measure.metric}: all {n} pairs are equal, and p cannot go below {result.p:.2g} without spread",)
    return Finding(result.p, measure.metric, effect, (says,), gaps)


def _any_of(findings: Sequence[Finding]) -> Finding:
    """Whether any of several numbers shows it: the smallest p, corrected by Holm."""
    gaps = tuple(gap for finding in findings for gap in finding.gaps)
    tested = [finding for finding in findings if math.isfinite(finding.p)]
    if not tested:
        return Finding(gaps=gaps)
    p = float(holm([finding.p for finding in tested]).min())
    best = min(tested, key=lambda finding: finding.p)
    return replace(best, p=p, says=tuple(words for finding in tested for words in finding.says), gaps=gaps)


def _p_or_infinite(finding: Finding) -> float:
    return finding.p if math.isfinite(finding.p) else math.inf


def _unmeasured(comparison: Comparison, metric: str) -> str | None:
    if comparison.measured(metric):
        return None
    elsewhere = [name for run in comparison.arm[:1] for name in run.metrics if name.startswith(f"{metric}@")]
    other = f"; {elsewhere[0]} was, of another encoder than the first, which verdicts do not read" if elsewhere else ""
    return f"{metric} was not measured in both the arm and the control{other}"
