"""What a report says of its numbers: one sentence per section, computed from the runs.

``scores`` is what ``arm_table`` gives of them, ``verdicts`` what ``verdict_table`` gives.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from collapse_bench.analysis.comparing import NO_MITIGATION
from collapse_bench.analysis.curves import badness
from collapse_bench.analysis.figures.class_shares import has_class_shares
from collapse_bench.analysis.figures.pools import arms_by_pools
from collapse_bench.analysis.ranking import budget_classes, rank
from collapse_bench.analysis.runs import Run, better, group_by_arm, headline, total_spent
from collapse_bench.analysis.statistics import SeedInterval
from collapse_bench.analysis.tables import format_floor, format_interval, label

_Row = Mapping[str, Any]

LEADS = ("recall", "coverage", "fid")
"""The number that sentences are about: the first of these that was measured; recall sees a collapse first."""

_FEW_SEEDS = 5
"""Below so many seeds a verdict of "no" says little, and the finding says so."""


def lead_metric(runs: Sequence[Run]) -> str:
    """The metric that the sentences are about; without any of ``LEADS`` the first headline metric."""
    names = headline(runs)
    return next((name for name in LEADS if name in names), names[0])


def score_finding(runs: Sequence[Run], scores: pd.DataFrame) -> str:
    """Where the arms stand at their last generation, and how many are within the band of the floor."""
    metric = lead_metric(runs)
    rows = _last(runs, scores, metric)
    if not rows:
        return f"No arm has a {label(metric)}."
    best, worst = rows[0], rows[-1]
    floor, spread = best["floor"], best["floor_spread"]
    beside = f"real images score {format_floor(metric, floor, spread)}" if math.isfinite(floor) else "there is no floor"
    if len(rows) == 1:
        return f"{_cap(label(metric))} is {_value(metric, best)} at generation {best['generation']}; {beside}."
    text = (
        f"{_cap(label(metric))} at the last generation goes from {_value(metric, best)} in {_quoted(best['arm'])} to "
        f"{_value(metric, worst)} in {_quoted(worst['arm'])}; {beside}"
    )
    if not math.isfinite(spread):
        return f"{text}."
    direction = better(runs, metric)
    edge = _bad(floor, direction, floor) + 2 * spread
    within = [row["arm"] for row in rows if _bad(row["value"].centre, direction, floor) <= edge]
    return f"{text}. {_count(len(within), len(rows), 'arm')} within two standard deviations of that, or better."


def standing_finding(runs: Sequence[Run], *, across_budgets: bool = False) -> str:
    """Which arm is first and which is last among the largest group of arms that were ranked together.

    And how many of them are better than their controls: a decision, so it stands on the paired t interval of the gain
    and not on the rank or on P, whose bootstraps cover too little with few seeds.
    """
    metric = lead_metric(runs)
    rankings = rank(runs, metric, across_budgets=across_budgets)
    largest = max(rankings, key=lambda ranking: ranking.num_ranked)
    num_arms = len({place.arm for ranking in rankings for place in ranking.places})
    if num_arms == 1:
        return "There is one arm, so nothing to rank."
    if largest.num_ranked < 2:
        return f"No two of the {num_arms} arms are ranked against each other: not one budget, or not one regime."
    places = [place for place in largest.places if place.rank is not None]
    first, last = places[0], places[-1]
    among = "without a mitigation" if largest.among == NO_MITIGATION else f"under {largest.among}"
    shared = f"{among}, whatever their budget" if largest.budget is None else f"{among} of budget {largest.budget}"
    ends = f" (95 % interval of its rank: {first.low} to {first.high})" if first.low is not None else ""
    text = (
        f"By {label(metric)}, the first of the {largest.num_ranked} arms {shared} is {_quoted(first.arm)} with "
        f"{format_interval(metric, first.value)}{ends}, the last is {_quoted(last.arm)} with "
        f"{format_interval(metric, last.value)}"
    )
    compared = [(place.control, place.gain) for place in places if place.control is not None and place.gain is not None]
    if not compared:
        return f"{text}."
    controls = {_quoted(control) for control, _ in compared}
    ahead = [gain for _, gain in compared if gain.low is not None and gain.low > 0]
    return (
        f"{text}. {_count(len(ahead), len(compared), 'arm')} better than "
        f"{controls.pop() if len(controls) == 1 else 'their controls'}: the 95 % t interval of the gain, seed by seed, "
        "lies above 0 (not corrected for the number of arms)."
    )


def curve_finding(runs: Sequence[Run], scores: pd.DataFrame) -> str:
    """How many arms have become worse since generation 0, and which the most."""
    metric = lead_metric(runs)
    rows = _last(runs, scores, metric)
    rows = [row for row in rows if row["generation"] > 0 and row["change"].n]
    if not rows:
        return "No arm has gone beyond generation 0."
    direction = better(runs, metric)
    worsening = {row["arm"]: _worsening(row, direction) for row in rows}
    worst = max(rows, key=lambda row: worsening[row["arm"]].centre)
    change = format_interval(metric, worst["change"], signed=True)
    if len(rows) == 1:
        return (
            f"From generation 0 to generation {worst['generation']}, {label(metric)} changes by {change}, to "
            f"{_value(metric, worst)}."
        )
    worse = [arm for arm, interval in worsening.items() if interval.low is not None and interval.low > 0]
    known = [arm for arm, interval in worsening.items() if interval.low is not None]
    text = f"{_cap(label(metric))} changes most in {_quoted(worst['arm'])}: by {change} since generation 0"
    if worsening[worst["arm"]].centre <= 0:
        text = f"{_cap(label(metric))} is in no arm worse than at generation 0"
    if not known:
        one = max(row["change"].n for row in rows) < 2
        return f"{text}. There is one seed per arm, so no interval." if one else f"{text}."
    return f"{text}. {_count(len(worse), len(known), 'arm')} worse than at generation 0, by the 95 % interval."


def verdict_finding(verdicts: pd.DataFrame) -> str:
    """How many arms show a collapse by some definition, and by which definition most do."""
    rows = [
        (str(arm), str(definition), str(decision), int(n))
        for arm, definition, decision, n in verdicts[["arm", "definition", "decision", "n"]].to_numpy()
    ]
    judged = {arm for arm, _, _, n in rows if n}
    if not judged:
        return (
            "No arm is judged, for none has two seeds beside a control C0 (regime=real, mitigation=control or the "
            "steering of the arm)."
        )
    rows = [row for row in rows if row[0] in judged]
    shown = [row for row in rows if row[2] == "yes"]
    if not shown:
        most = max(n for _, _, _, n in rows)
        few = (
            f" With {most} seeds a paired test shows only effects that are large beside their spread."
            if most < _FEW_SEEDS
            else ""
        )
        return f"None of the {len(judged)} judged arms shows a collapse by any of the definitions at this level.{few}"
    by_definition = Counter(definition for _, definition, _, _ in shown)
    most, count = by_definition.most_common(1)[0]
    tested = dict.fromkeys(definition for _, definition, decision, _ in rows if decision != "not decidable")
    silent = [definition for definition in tested if definition not in by_definition]
    collapsed = {arm for arm, _, _, _ in shown}
    text = (
        f"{_count(len(collapsed), len(judged), 'judged arm', 'shows', 'show')} a collapse by at least one "
        f"definition; “{most}” is shown most often ({count} of {len(judged)})"
    )
    text = f"{text}, {' and '.join(f'“{name}”' for name in silent)} by none" if silent else text
    return f"{text}. Corrected for the definitions within an arm, not for the number of arms."


def sample_finding(runs: Sequence[Run], scores: pd.DataFrame) -> str:
    """What to look for in the grids: which arm has kept most and which least, with their precision."""
    metric = lead_metric(runs)
    rows = _last(runs, scores, metric)
    if not rows:
        return ""
    precision = {row["arm"]: row for row in _last(runs, scores, "precision")} if "precision" in headline(runs) else {}

    def words(row: _Row) -> str:
        text = f"{_quoted(row['arm'])} ends with {label(metric)} {_value(metric, row)}"
        if row["arm"] in precision and metric != "precision":
            text += f" and precision {_value('precision', precision[row['arm']])}"
        return text

    if len(rows) == 1:
        return f"{_cap(words(rows[0]))}."
    return f"Compare the two ends: {words(rows[0])}, {words(rows[-1])}."


def class_finding(runs: Sequence[Run]) -> str:
    """Which arm ends with the smallest class, and how many arms have lost one, on their first seeds."""
    first = {arm: members[0] for arm, members in group_by_arm(runs).items() if has_class_shares(members[0])}
    if not first:
        return ""
    last = {arm: _last_shares(run, "model") for arm, run in first.items()}
    real = _last_shares(next(iter(first.values())), "control")
    lowest = min(last, key=lambda arm: min(last[arm].values()))
    smallest = min(last[lowest], key=lambda name: last[lowest][name])
    lost = [arm for arm, shares in last.items() if min(shares.values()) == 0]
    of_real = f"in the control set it is {_percent(real[smallest])}"
    text = (
        f"The smallest class at the end is {_quoted(smallest)} in {_quoted(lowest)}, with "
        f"{_percent(last[lowest][smallest])} of the samples; {of_real}"
    )
    if len(last) == 1:
        return f"{text}."
    counted = _count(len(lost), len(last), "arm", "has", "have")
    return f"{text}. {counted} a class without any sample, by the first seed of each."


def pool_finding(runs: Sequence[Run]) -> str:
    """How many arms train on no real image at the end, and on how many the others do."""
    groups = arms_by_pools(runs)
    real = {
        arm: float(shares.reindex(["real"]).fillna(0.0).to_numpy()[0, -1])
        for arms, shares in groups
        for arm in arms
        if shares.shape[1] > 1
    }
    if not real:
        return "Generation 0 is trained on real images only."
    none = [arm for arm, share in real.items() if share == 0]
    some = [share for share in real.values() if share > 0]
    if len(real) == 1:
        arm, share = next(iter(real.items()))
        return f"At its last generation, {_percent(share)} of what {_quoted(arm)} is trained on is real."
    text = f"{_count(len(none), len(real), 'arm', 'trains', 'train')} on no real image at the last generation"
    if not some:
        return f"{text}."
    ends = " to ".join(dict.fromkeys(_percent(share) for share in (min(some), max(some))))
    others = "in the others " if none else ""
    return f"{text}; {others}{ends} of what is seen is real."


def resource_finding(runs: Sequence[Run]) -> str:
    """How far apart the arms are in what they cost, and which cost most."""
    classes = budget_classes(runs)
    costs = {arm: [total_spent(run) for run in members] for c in classes for arm, members in c.arms.items()}
    steps = {arm: sum(s.gradient_steps for s in spent) / len(spent) for arm, spent in costs.items()}
    drawn = {arm: sum(s.candidates + s.other_samples for s in spent) / len(spent) for arm, spent in costs.items()}
    parts = [_spread("gradient steps", steps), _spread("samples drawn", drawn)]
    num = (
        f"{len(steps)} arms in {len(classes)} budget{'s' if len(classes) > 1 else ''}" if len(steps) > 1 else "One arm"
    )
    return f"{num}: {'; '.join(parts)}."


def _last(runs: Sequence[Run], scores: pd.DataFrame, metric: str) -> list[_Row]:
    """Rows of ``arm_table`` of one metric where there is a number, the best arm first."""
    direction = better(runs, metric)

    def bad(row: _Row) -> float:
        return _bad(row["value"].centre, direction, row["floor"])

    names = [str(name) for name in scores.columns]
    rows = [dict(zip(names, row, strict=True)) for row in scores.itertuples(index=False, name=None)]
    return sorted((row for row in rows if row["metric"] == metric and row["value"].n), key=bad)


def _last_shares(run: Run, of: str) -> dict[str, float]:
    shares = run.class_shares(of)
    return dict(zip(map(str, shares.index), map(float, shares.to_numpy()[:, -1]), strict=True))


def _bad(value: float, direction: str, floor: float) -> float:
    """Higher is worse."""
    return float(badness(np.array(value), direction, floor))


def _worsening(row: _Row, direction: str) -> SeedInterval:
    """The change since generation 0, positive for worse."""
    change: SeedInterval = row["change"]
    if direction == "lower":
        return change
    if direction == "higher":
        low, high = (None if end is None else -end for end in (change.high, change.low))
        return SeedInterval(-change.centre, low, high, change.n, change.kind)
    # Where 1 or the floor is best, the interval of a change says not by itself which way is worse.
    return SeedInterval(abs(change.centre), None, None, change.n, "none")


def _spread(words: str, counts: Mapping[str, float]) -> str:
    least, most = min(counts, key=lambda arm: counts[arm]), max(counts, key=lambda arm: counts[arm])
    if round(counts[least]) == round(counts[most]):
        return f"{counts[most]:,.0f} {words} a chain" + (" in all" if len(counts) > 1 else "")
    return f"{counts[least]:,.0f} to {counts[most]:,.0f} {words} a chain, most in {_quoted(most)}"


def _value(metric: str, row: _Row) -> str:
    return format_interval(metric, row["value"])


def _count(part: int, whole: int, noun: str, one: str = "is", many: str = "are") -> str:
    """``"3 of 7 arms are"``, ``"none of 7 arms is"``, ``"all 7 arms are"``."""
    nouns = noun if whole == 1 else f"{noun}s"
    if part == 0:
        return f"None of {whole} {nouns} {one}"
    return f"{f'All {whole}' if part == whole > 1 else f'{part} of {whole}'} {nouns} {one if part == 1 else many}"


def _percent(share: float) -> str:
    return "0 %" if share == 0 else f"{100 * share:.3g} %"


def _quoted(arm: object) -> str:
    return f"“{arm}”"


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]
