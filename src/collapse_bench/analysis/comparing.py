"""An arm beside its controls: which arms and which runs compare with which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from collapse_bench.analysis.runs import Run

NO_MITIGATION = "no mitigation"
"""Name of the arms that differ in their regime and do nothing against collapse."""

# The four slots of ``conf/run.yaml``. A run may lack the keys of slots that came after it.
_EMPTY_SLOTS = {
    "mitigation._target_": "collapse_bench.mitigations.base.Mitigation",
    "mitigation.steering._target_": "collapse_bench.mitigations.control.NoSteering",
    "mitigation.weigher._target_": "collapse_bench.mitigations.control.EqualWeights",
    "mitigation.refiner._target_": "collapse_bench.mitigations.control.NoRefinement",
    "mitigation.curator._target_": "collapse_bench.mitigations.control.KeepAll",
}
# A control C0 never trains on samples, so it is the same one however many are handed on.
_NUM_SYNTHETIC = "budget.num_synthetic"


@dataclass(frozen=True)
class Comparison:
    """The runs of an arm and those of its control C0, pair by pair.

    C0 is the chain that is refitted on the real pool every generation and is the same in all else: start of the fits,
    budget, seed, and steering of fits and sampler. What it loses over the generations is not collapse but the drift of
    training itself, and what a steered sampler does to the samples that are measured.

    Args:
        arm: runs of the arm that have a control, seeds in order.
        control: their controls, in the same order.
        sizes: the same comparison at each size of the real pool that was run, by its number of images; the
            comparisons in it have no sizes of their own.

    Raises:
        ValueError: if a seed is there twice, which would count its chains as independent ones.
    """

    arm: tuple[Run, ...]
    control: tuple[Run, ...]
    sizes: Mapping[int, "Comparison"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < len(self.arm) or self.seeds != tuple(run.seed for run in self.control):
            raise ValueError(
                f"a comparison has each seed once, the same ones on both sides; got {self.seeds} and "
                f"{tuple(run.seed for run in self.control)}"
            )

    @property
    def num_pairs(self) -> int:
        """Seeds that the arm and the control share."""
        return len(self.arm)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those seeds."""
        return tuple(run.seed for run in self.arm)

    @property
    def last_generation(self) -> int:
        """The last generation that some seed of the arm and some seed of the control have reached; -1 for none."""
        return min((max(len(run.records) for run in runs) - 1 for runs in (self.arm, self.control) if runs), default=-1)

    def measured(self, metric: str) -> bool:
        """Whether some run of the arm and some of the control have the metric."""
        return all(any(metric in run.metrics for run in runs) for runs in (self.arm, self.control))

    def curves(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """One metric of fresh samples, of the arm and of the control, each [pairs, generations]; NaN where missing."""
        num_generations = self.last_generation + 1
        return curves_of(self.arm, metric, num_generations), curves_of(self.control, metric, num_generations)


def compare(members: Sequence[Run], runs: Sequence[Run]) -> Comparison:
    """The runs of one arm beside their controls.

    Args:
        members: the runs of the arm.
        runs: all runs, among which the controls and the other sizes of the real pool are looked for.
    """
    law = members[0].settings_without("dataset.num_real") if members else None
    # By size and seed: a size that is given as a number and as null, which is all, is one size.
    sizes: dict[int, dict[int, Run]] = {}
    for run in [*members, *runs]:
        if run.records and run.settings_without("dataset.num_real") == law:
            # Not of generation 0's pool alone: under regime=fresh that is a part of the real pool.
            size = run.settings.get("dataset.num_real") or sum(run.records[0].train_pool.values())
            sizes.setdefault(size, {}).setdefault(run.seed, run)
    by_size = {size: Comparison(*_pairs([*sizes[size].values()], runs)) for size in sorted(sizes)}
    return Comparison(*_pairs(members, runs), sizes=by_size)


def does_nothing(run: Run) -> bool:
    """Whether nothing is done against collapse: ``mitigation=control``, and no slot of it edited."""
    return run.choices.get("mitigation") == "control" and _are_plain(_of_mitigation(run))


def is_control(run: Run) -> bool:
    """Whether the run is a control C0: refitted on the real pool every generation, with no mitigation but steering."""
    steering = _steering(run)
    others = {key: value for key, value in _of_mitigation(run).items() if key not in steering}
    return run.choices.get("regime") == "real" and (does_nothing(run) or (bool(steering) and _are_plain(others)))


def arm_controls(arms: Mapping[str, Sequence[Run]]) -> dict[str, str]:
    """The control of each arm, by name: the arm that is the same but for what is done against collapse.

    For a mitigation that is the same regime with ``mitigation=control``; if it draws more candidates than it keeps, it
    is ``mitigation=random_subset`` with as many of them instead, where that was run. For another regime than
    ``replace`` without a mitigation it is ``replace``. Arms that have no such control among them, or more than one,
    are left out, and so is ``replace`` without a mitigation.

    Args:
        arms: runs by arm.
    """
    found = {}
    for arm, members in arms.items():
        others = {name: runs for name, runs in arms.items() if name != arm}
        controls = _random_selections(members, others) or _undone(members[0], others)
        if len(controls) == 1:
            found[arm] = controls[0]
    return found


def curves_of(runs: Sequence[Run], metric: str, num_generations: int) -> np.ndarray:
    """One metric of fresh samples, [runs, generations]; NaN where missing."""
    values = [[run.value(t, metric) for t in range(num_generations)] for run in runs]
    return np.array(values, dtype=np.float64).reshape(len(runs), num_generations)


def _undone(run: Run, others: Mapping[str, Sequence[Run]]) -> list[str]:
    """The arms in which nothing is done instead of what the run does: its mitigation, or else its regime."""
    group = "regime" if does_nothing(run) else "mitigation"
    if group == "regime" and run.choices.get("regime") == "replace":
        return []
    same = run.settings_without(group)
    return [
        arm
        for arm, (other, *_) in others.items()
        if does_nothing(other)
        and (group == "mitigation" or other.choices.get("regime") == "replace")
        and other.settings_without(group) == same
    ]


def _random_selections(members: Sequence[Run], others: Mapping[str, Sequence[Run]]) -> list[str]:
    """The arms that select at random from as many candidates as the arm draws; none if it draws what it keeps."""
    drawn = _candidates_per_kept(members)
    if drawn <= 1 or does_nothing(members[0]) or _selects_at_random(members[0]):
        return []
    same = members[0].settings_without("mitigation")
    return [
        arm
        for arm, runs in others.items()
        if _selects_at_random(runs[0])
        and _candidates_per_kept(runs) == drawn
        and runs[0].settings_without("mitigation") == same
    ]


def _selects_at_random(run: Run) -> bool:
    settings = _of_mitigation(run)
    elsewhere = {key: value for key, value in settings.items() if not key.startswith("mitigation.curator.")}
    return run.choices.get("mitigation") == "random_subset" and _are_plain(elsewhere)


def _candidates_per_kept(members: Sequence[Run]) -> float:
    """As counted over all runs, to three digits, because chance can decide it; 0 where nothing was kept yet."""
    spent = [record.spent for run in members for record in run.records]
    kept = sum(s.kept for s in spent)
    return float(f"{sum(s.candidates for s in spent) / kept:.3g}") if kept else 0.0


def _of_mitigation(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.settings.items() if key.startswith("mitigation.")}


def _steering(run: Run) -> dict[str, Any]:
    """What fills the slot that steers fits and samplers; empty where nothing does."""
    filling = {key: value for key, value in _of_mitigation(run).items() if key.startswith("mitigation.steering.")}
    return {} if _are_plain(filling) else filling


def _are_plain(settings: Mapping[str, Any]) -> bool:
    return all(_EMPTY_SLOTS.get(key) == value for key, value in settings.items())


def _pairs(members: Sequence[Run], runs: Sequence[Run]) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """Each run that has a control, and that control: one per run, whatever number of them would do."""
    controls = [run for run in sorted(runs, key=lambda run: str(run.path)) if is_control(run) and run.records]
    pairs = []
    for run in sorted((run for run in members if run.records), key=lambda run: run.seed):
        same, num_synthetic = _surroundings(run), run.settings.get(_NUM_SYNTHETIC)
        own = [control for control in controls if control.seed == run.seed and _surroundings(control) == same]
        if own:
            pairs.append((run, min(own, key=lambda control: control.settings.get(_NUM_SYNTHETIC) != num_synthetic)))
    return tuple(run for run, _ in pairs), tuple(control for _, control in pairs)


def _surroundings(run: Run) -> dict[str, Any]:
    """What an arm and its C0 have in common."""
    return run.settings_without("regime", "mitigation", _NUM_SYNTHETIC) | _steering(run)
