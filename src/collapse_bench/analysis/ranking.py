"""Rankings: arms in order of one metric, among those that were given the same to work with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from collapse_bench.analysis.comparing import NO_MITIGATION, arm_controls, does_nothing
from collapse_bench.analysis.curves import badness
from collapse_bench.analysis.runs import (
    Run,
    better,
    group_by_arm,
    group_by_family,
    last_generation,
    mean_floor,
    total_spent,
)
from collapse_bench.analysis.statistics import (
    SeedInterval,
    centre_over_seeds,
    paired_difference,
    probability_of_improvement,
    rank_intervals,
    summarize,
)
from collapse_bench.analysis.verdicts import QualityGate

Budget = Mapping[str, float]
"""What a fair comparison holds equal, by its name in words."""

_SEED = 0
# Two seeds drawn with replacement are one of three things, and of two against two a chance of 1 is luck too often.
_MIN_SEEDS = 3
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
        gain: how much nearer to the best the arm is than that control, seed by seed over the seeds that both have;
            positive is better. ``None`` without a control.
        improvement: chance that a run of the arm is better than one of that control; likewise, and below three seeds.
        undertrained: by ``QualityGate``; ``None`` where that was not measured.
    """

    arm: str
    rank: int | None
    low: int | None
    high: int | None
    value: SeedInterval
    control: str | None
    gain: SeedInterval | None
    improvement: SeedInterval | None
    undertrained: bool | None


@dataclass(frozen=True)
class Ranking:
    """Arms in order of one metric.

    Args:
        metric: its name.
        among: which arms: those of a family, by its name, or ``NO_MITIGATION``.
        budget: number of the class of ``budget_classes`` that all of them are in, from 1; ``None`` across budgets.
        places: the best first; arms without a rank last.
    """

    metric: str
    among: str
    budget: int | None
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

    Mitigations are ranked within their family, which is the same in all else: against each other and against the arm of
    it in which nothing is done. These arms are ranked against each other as well, which is the ranking of the regimes.
    So a family of few seeds takes none from another one.

    Arms of two seeds or more are ranked on the seeds that all of these arms have; the interval of a rank is a bootstrap
    over those seeds, the same ones drawn for all arms, where there are three or more. An arm of one seed stands on it,
    without an interval. Where arms of two seeds or more share fewer than two, each stands on its own, and none has an
    interval.

    Args:
        runs: runs that compare.
        metric: where 1 or the floor is best, the distance from it decides, seed by seed.
        across_budgets: rank all arms of a kind against each other, whatever they were given.

    Returns:
        For each class of ``budget_classes``, in their order (once for all of them with ``across_budgets``), the ranking
        without a mitigation, if it is more than one arm that is ranked in its family, and those of the families.

    Raises:
        RunDirError: if the runs do not compare.
        KeyError: if no run has the metric.
    """
    by_budget: dict[int | None, Mapping[str, Sequence[Run]]] = {
        number: of_class.arms for number, of_class in enumerate(budget_classes(runs), start=1)
    }
    if across_budgets:
        by_budget = {None: {arm: members for arms in by_budget.values() for arm, members in arms.items()}}
    families = {arm: family for family, arms in group_by_family(runs).items() for arm in arms}
    direction = better(runs, metric)
    return [
        Ranking(metric, among, budget, _places(of_group, metric, direction))
        for budget, arms in by_budget.items()
        for among, of_group in _ranked_together(arms, families).items()
    ]


def distance_from_best(runs: Sequence[Run], metric: str, direction: str) -> dict[int, float]:
    """How far each seed of an arm is from the best at its last generation, up to a constant: lower is better.

    Args:
        runs: of one arm, all at the same generation.
        metric: its name.
        direction: of the metric, see ``better``: the number itself, or its distance from 1 or from the arm's floor.
    """
    last = last_generation(runs)
    values = {run.seed: run.value(last, metric) for run in runs}
    distances = badness(np.array([*values.values()]), direction, mean_floor(runs, metric, last))
    return dict(zip(values, distances.tolist(), strict=True))


def _ranked_together(
    arms: Mapping[str, Sequence[Run]], families: Mapping[str, str]
) -> dict[str, dict[str, Sequence[Run]]]:
    """The arms of one budget by what they are ranked among."""
    undone = {arm: members for arm, members in arms.items() if does_nothing(members[0])}
    mitigated = dict.fromkeys(families[arm] for arm in arms if arm not in undone)
    groups = {name: {arm: arms[arm] for arm in arms if families[arm] == name} for name in mitigated}
    if len(undone) > 1 or any(families[arm] not in groups for arm in undone):
        groups = {NO_MITIGATION: undone, **groups}
    return groups


def _places(arms: Mapping[str, Sequence[Run]], metric: str, direction: str) -> tuple[Place, ...]:
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
    if len(shared) >= _MIN_SEEDS:
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
            paired_difference(ranked[controls[arm]], ranked[arm]) if arm in controls else None,
            _improvement(ranked, seeds, arm, controls[arm]) if arm in controls else None,
            _GATE.undertrained(members),
        )
        for arm, members in arms.items()
    ]
    return tuple(sorted(places, key=lambda place: place.rank or math.inf))


def _improvement(
    ranked: Mapping[str, Mapping[int, float]], seeds: Mapping[str, Sequence[int]], arm: str, control: str
) -> SeedInterval | None:
    if min(len(seeds[arm]), len(seeds[control])) < _MIN_SEEDS:
        return None
    first, second = (-np.array([[ranked[name][seed]] for seed in seeds[name]]) for name in (arm, control))
    return probability_of_improvement(first, second, np.random.default_rng(_SEED))


def _mean_budget(budgets: Sequence[Budget]) -> Budget:
    means = {name: sum(budget[name] for budget in budgets) / len(budgets) for name in budgets[0]}
    return {
        name: float(f"{mean:.3g}") if name == "candidates per kept image" else round(mean)
        for name, mean in means.items()
    }
