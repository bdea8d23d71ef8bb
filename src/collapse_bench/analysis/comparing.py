"""An arm beside its controls: which arms and which runs compare with which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from collapse_bench.analysis.runs import Run

_CONTROL = {"regime": "real", "mitigation": "control"}
_NOTHING = {"regime": "replace", "mitigation": "control"}  # what lets a collapse happen


@dataclass(frozen=True)
class Comparison:
    """The runs of an arm and those of its control C0, pair by pair.

    C0 is the chain that is refitted on the real pool every generation and is the same in all else: start of the fits,
    budget, seed. What it loses over the generations is not collapse but the drift of training itself.

    Args:
        arm: runs of the arm that have a control, seeds in order.
        control: their controls, in the same order.
        sizes: the same comparison at each size of the real pool that was run, by its number of images; the
            comparisons in it have no sizes of their own.
    """

    arm: tuple[Run, ...]
    control: tuple[Run, ...]
    sizes: Mapping[int, "Comparison"] = field(default_factory=dict)

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
    pairs = _pairs(members, runs)
    sizes: dict[int, list[Run]] = {}
    law = _law(members[0]) if members else None
    for run in runs:
        if run.records and _law(run) == law:
            sizes.setdefault(sum(run.records[0].train_pool.values()), []).append(run)
    return Comparison(*pairs, sizes={size: Comparison(*_pairs(sizes[size], runs)) for size in sorted(sizes)})


def is_control(run: Run) -> bool:
    """Whether the run is a control C0: refitted on the real pool every generation, nothing done against collapse."""
    return all(run.choices.get(group) == choice for group, choice in _CONTROL.items())


def arm_controls(arms: Mapping[str, Sequence[Run]]) -> dict[str, str]:
    """The control of each arm, by name: the arm that is the same but for what is done against collapse.

    For a mitigation that is the same regime with ``mitigation=control``; for another regime than ``replace`` without a
    mitigation it is ``replace``. Arms whose control is not among them are left out, and so is that control itself.

    Args:
        arms: runs by arm.
    """
    return {
        arm: control
        for arm, members in arms.items()
        for control, others in arms.items()
        if _does_nothing_instead(others[0], members[0])
    }


def curves_of(runs: Sequence[Run], metric: str, num_generations: int) -> np.ndarray:
    """One metric of fresh samples, [runs, generations]; NaN where missing."""
    values = [[run.value(t, metric) for t in range(num_generations)] for run in runs]
    return np.array(values, dtype=np.float64).reshape(len(runs), num_generations)


def _does_nothing_instead(control: Run, run: Run) -> bool:
    group = "regime" if run.choices.get("mitigation") == "control" else "mitigation"
    return (
        run.choices.get(group) != _NOTHING[group]
        and all(control.choices.get(name) == _NOTHING[name] for name in {group, "mitigation"})
        and _settings_but(control, group) == _settings_but(run, group)
    )


def _settings_but(run: Run, group: str) -> dict[str, Any]:
    return {key: value for key, value in run.settings.items() if not key.startswith(f"{group}.")}


def _pairs(members: Sequence[Run], runs: Sequence[Run]) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    controls = [run for run in runs if is_control(run) and run.records]
    pairs = [
        (run, control)
        for run in sorted(members, key=lambda run: run.seed)
        for control in controls
        if run.records and control.seed == run.seed and _surroundings(control) == _surroundings(run)
    ]
    return tuple(run for run, _ in pairs), tuple(control for _, control in pairs)


def _surroundings(run: Run) -> dict[str, Any]:
    # The control never trains on samples, so it is the same one however many are handed on.
    return {
        key: value
        for key, value in run.settings.items()
        if key.split(".")[0] not in _CONTROL and key != "budget.num_synthetic"
    }


def _law(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.settings.items() if key != "dataset.num_real"}
