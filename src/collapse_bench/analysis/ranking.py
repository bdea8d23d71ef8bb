"""Rankings: arms in order of one metric, among those that were given the same to work with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from collapse_bench.analysis.comparing import arm_controls
from collapse_bench.analysis.runs import Run, better, group_by_arm, last_generation, mean_floor, total_spent
from collapse_bench.analysis.statistics import (
    SeedInterval,
    centre_over_seeds,
    probability_of_improvement,
    rank_intervals,
    summarize,
)
from collapse_bench.analysis.verdicts import QualityGate

Budget = Mapping[str, float]
"""What a fair comparison holds equal, by its name in words."""

_SEED = 0
_GATE = QualityGate()


@dataclass(frozen=True)
class BudgetClass:
    """Arms that were given the same, so that their scores compare.

    Args:
        budget: what each of them was given.
        arms: by name, the runs that reached the arm's last generation.
    """

    budget: Budget
    arms: Mapping[str, Sequence[Run]]


@dataclass(frozen=True)
class Place:
    """Where one arm stands.

    Args:
        arm: its name.
        rank: 1 is best, equal arms have equal ranks; ``None`` where a run has no number.
        low: lower end of the 95 % interval of the rank; ``None`` where there is no interval.
        high: upper end; likewise.
        value: the metric at the last generation, over the seeds that the rank stands on.
        control: the arm that is the same but for what is done against collapse, see ``arm_controls``, if it is ranked
            with this one; else ``None``.
        improvement: chance that a run of the arm is better than one of that control; ``None`` without one.
        undertrained: by ``QualityGate``; ``None`` where that was not measured.
    """

    arm: str
    rank: int | None
    low: int | None
    high: int | None
    value: SeedInterval
    control: str | None
    improvement: SeedInterval | None
    undertrained: bool | None


@dataclass(frozen=True)
class Ranking:
    """Arms in order of one metric.

    Args:
        metric: its name.
        places: the best first; arms without a rank last.
    """

    metric: str
    places: tuple[Place, ...]

    @property
    def num_ranked(self) -> int:
        """Arms that have a rank."""
        return sum(place.rank is not None for place in self.places)


def budget_of(run: Run) -> Budget:
    """What a run was given that a fair comparison holds equal; not what time and machine make of it.

    Returns:
        The generations with generation 0; the gradient steps of all fits; images drawn for another end than the next
        pool; evaluations of networks that judge images; and the distinct real images that all trained parts together
        have seen, each over the whole chain. Per image: network evaluations, and candidates drawn for one kept.
    """
    spent = total_spent(run)
    return {
        "generations": len(run.records),
        "gradient steps": spent.gradient_steps,
        "network evaluations per sample": spent.network_evaluations_per_sample,
        "candidates per kept image": spent.candidates / spent.kept if spent.kept else 0.0,
        "other samples": spent.other_samples,
        "judging evaluations": spent.judging_evaluations,
        "real images seen": spent.num_real_images,
    }


def budget_classes(runs: Sequence[Run]) -> list[BudgetClass]:
    """Arms by what they were given, in the order of ``group_by_arm``; arms without a generation are left out.

    An arm's budget is the mean over its runs that reached its last generation, rounded: counts to whole numbers, and
    candidates per kept image, which chance can decide, to three digits. Arms with equal numbers are in one class.

    Raises:
        RunDirError: if the runs do not compare.
    """
    classes: dict[tuple[float, ...], BudgetClass] = {}
    for arm, members in group_by_arm(runs).items():
        last = last_generation(members)
        if last < 0:
            continue
        reached = [run for run in members if len(run.records) == last + 1]
        budget = _mean_budget([budget_of(run) for run in reached])
        of_class = classes.get(tuple(budget.values()), BudgetClass(budget, {}))
        classes[tuple(budget.values())] = BudgetClass(budget, {**of_class.arms, arm: reached})
    return list(classes.values())


def differing_entries(classes: Sequence[BudgetClass]) -> dict[str, list[float]]:
    """The entries in which budgets differ, each with its distinct values in order."""
    values = {name: sorted({c.budget[name] for c in classes}) for name in (classes[0].budget if classes else ())}
    return {name: distinct for name, distinct in values.items() if len(distinct) > 1}


def rank(runs: Sequence[Run], metric: str, *, across_budgets: bool = False) -> list[Ranking]:
    """Arms in order of a metric of fresh samples at their last generation.

    Arms of two seeds or more are ranked on the seeds that all of these arms have; the interval of a rank is a bootstrap
    over those seeds, the same ones drawn for all arms. An arm of one seed stands on it, without an interval. Where
    arms of two seeds or more share fewer than two, each stands on its own, and none has an interval.

    Args:
        runs: runs that compare.
        metric: where 1 or the floor is best, the distance from it decides, seed by seed.
        across_budgets: rank all arms against each other, whatever they were given.

    Returns:
        A ranking per class of ``budget_classes``, in their order; one over all arms with ``across_budgets``.

    Raises:
        RunDirError: if the runs do not compare.
        KeyError: if no run has the metric.
    """
    classes = [of_class.arms for of_class in budget_classes(runs)]
    if across_budgets:
        classes = [{arm: members for arms in classes for arm, members in arms.items()}]
    direction = better(runs, metric)
    return [_rank(arms, metric, direction) for arms in classes]


def distance_from_best(runs: Sequence[Run], metric: str, direction: str) -> dict[int, float]:
    """How far each seed of an arm is from the best at its last generation, up to a constant: lower is better.

    Args:
        runs: of one arm, all at the same generation.
        metric: its name.
        direction: of the metric, see ``better``: the number itself, or its distance from 1 or from the arm's floor.
    """
    values = {run.seed: run.value(len(run.records) - 1, metric) for run in runs}
    if direction in ("lower", "higher"):
        sign = 1.0 if direction == "lower" else -1.0
        return {seed: sign * value for seed, value in values.items()}
    best = 1.0 if direction == "one" else mean_floor(runs, metric)
    return {seed: abs(value - best) for seed, value in values.items()}


def _rank(arms: Mapping[str, Sequence[Run]], metric: str, direction: str) -> Ranking:
    values = {arm: {run.seed: run.value(len(run.records) - 1, metric) for run in runs} for arm, runs in arms.items()}
    distances = {arm: distance_from_best(runs, metric, direction) for arm, runs in arms.items()}
    ranked = {arm: d for arm, d in distances.items() if all(map(math.isfinite, d.values()))}
    several = [arm for arm, of_arm in ranked.items() if len(of_arm) > 1]
    shared = sorted(set.intersection(*(set(ranked[arm]) for arm in several))) if several else []
    paired = len(shared) > 1
    seeds = {arm: shared if paired and arm in several else sorted(of_arm) for arm, of_arm in distances.items()}

    centres = {arm: float(centre_over_seeds(np.array([ranked[arm][seed] for seed in seeds[arm]]))) for arm in ranked}
    ranks = {arm: 1 + sum(other < c for other in centres.values()) for arm, c in centres.items()}
    ends = {}
    if paired:
        rows = [[ranked[arm][s] for s in shared] if arm in several else [c] * len(shared) for arm, c in centres.items()]
        both = zip(ranked, rank_intervals(np.array(rows), np.random.default_rng(_SEED)), strict=True)
        ends = {arm: interval for arm, interval in both if arm in several}

    controls = {arm: control for arm, control in arm_controls(arms).items() if {arm, control} <= {*ranked}}
    places = [
        Place(
            arm,
            ranks.get(arm),
            *ends.get(arm, (None, None)),
            summarize([values[arm][seed] for seed in seeds[arm]]),
            controls.get(arm),
            _improvement(ranked, seeds, arm, controls[arm]) if arm in controls else None,
            _GATE.undertrained(members),
        )
        for arm, members in arms.items()
    ]
    return Ranking(metric, tuple(sorted(places, key=lambda place: place.rank or math.inf)))


def _improvement(
    ranked: Mapping[str, Mapping[int, float]], seeds: Mapping[str, Sequence[int]], arm: str, control: str
) -> SeedInterval:
    first, second = (-np.array([[ranked[name][seed]] for seed in seeds[name]]) for name in (arm, control))
    return probability_of_improvement(first, second, np.random.default_rng(_SEED))


def _mean_budget(budgets: Sequence[Budget]) -> Budget:
    means = {name: sum(budget[name] for budget in budgets) / len(budgets) for name in budgets[0]}
    return {
        name: float(f"{mean:.3g}") if name == "candidates per kept image" else round(mean)
        for name, mean in means.items()
    }
