"""Arms in families, so that figures of many arms compare what belongs together."""

import re
from collections.abc import Mapping, Sequence

from collapse_bench.analysis.comparing import NO_MITIGATION, does_nothing
from collapse_bench.analysis.runs import Run


def arm_families(arms: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, Sequence[Run]]]:
    """Arms by what they have in common: first those without a mitigation, then the others by their regime.

    Args:
        arms: as ``group_by_arm`` gives them.

    Returns:
        By name of the family its arms, in the order given; one family, without a name, where there is nothing to tell
        apart.
    """
    families: dict[str, dict[str, Sequence[Run]]] = {}
    for arm, members in arms.items():
        families.setdefault(_family(members[0]), {})[arm] = members
    return families if len(families) > 1 else {"": dict(arms)}


def name_in_family(arm: str, run: Run, family: str) -> str:
    """An arm's name without what the name of its family says already, and without the path to a setting."""
    arm = short_name(arm)
    if not family:
        return arm
    said = run.choices["mitigation" if family == NO_MITIGATION else "regime"]
    parts = arm.split(", ")
    others = [part for part in parts if part != said]
    return ", ".join(others or parts)


def short_name(arm: str) -> str:
    """An arm's name with the last part of each key only: ``"replace, num_steps=100"``."""
    return re.sub(r"[\w.]+\.(\w+=)", r"\1", arm)


def undone(arms: Mapping[str, Sequence[Run]], run: Run) -> str | None:
    """The arm that is the same but does nothing against collapse; ``None`` if there is none or it is it."""
    if does_nothing(run):
        return None
    same = run.settings_without("mitigation")
    others = {arm: members[0] for arm, members in arms.items() if does_nothing(members[0])}
    return next((arm for arm, other in others.items() if other.settings_without("mitigation") == same), None)


def _family(run: Run) -> str:
    if run.choices.get("mitigation", "control") == "control":
        return NO_MITIGATION
    return f"{run.choices.get('regime', 'any regime')} with a mitigation"
