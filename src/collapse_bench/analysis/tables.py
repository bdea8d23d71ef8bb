"""Tables: one run generation by generation, many runs arm by arm; as frames of numbers and of text."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

import pandas as pd

from collapse_bench.analysis.comparing import arm_controls, compare
from collapse_bench.analysis.curves import ONSET, CurveSummary, Waiting, summarize_curves
from collapse_bench.analysis.ranking import Place, Ranking, budget_classes, differing_entries, rank
from collapse_bench.analysis.runs import (
    Run,
    always_zero,
    better,
    group_by_arm,
    group_by_setting,
    headline,
    last_generation,
    mean_floor,
    refused_arms,
    total_spent,
)
from collapse_bench.analysis.statistics import SeedInterval, paired_difference, summarize
from collapse_bench.analysis.verdicts import (
    ALPHA,
    EIGHT,
    FACTORS,
    STAGES,
    QualityGate,
    Verdict,
    judge,
    threshold_sensitivity,
)
from collapse_bench.errors import RunDirError
from collapse_bench.records import Score

FLOOR = "real-vs-real floor"
"""Label of the row, line or column that shows real images scored as samples are."""

NULL = "null of a perfect model"
"""Label of the row or line that shows the mean of a number for a perfect model, exact or asymptotic."""

_LABELS = {
    "fid": "FID",
    "fid_infinity": "FID at infinity",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "within_class_variance_ratio": "within-class variance ratio",
    "tail_mass": "tail mass",
    "class_kl": "class KL",
    "class_g": "class G",
    "vendi": "Vendi score",
    "lowest_class_share": "lowest class share",
    "lowest_class_coverage": "lowest class coverage",
    "copies_of_training": "copies of the pool",
    "copies_of_real": "copies of real images",
    "knn_entropy_gap": "k-NN entropy gap",
    "latent_sd": "latent sd",
    "num_classes_covered": "classes covered",
}
_DIRECTIONS = {
    "lower": "lower is better",
    "higher": "higher is better",
    "one": "1 is ideal",
    "floor": "best at the floor",
}
_ARROWS = {"lower": "↓", "higher": "↑", "one": "→ 1", "floor": "→ floor"}
RANKED = ("fid", "recall", "within_class_variance_ratio")
"""Metrics that arms are ranked by: how far samples are, what is missing, and how much is left within the classes."""

_SIGNIFICANT = ("fid", "fid_infinity", "kid", "class_kl", "held_out_loss", "reconstruction_error")
_GATE = QualityGate()
_MISSING = "n/a"


def label(metric: str) -> str:
    """The name of a metric in words; ``recall@classifier`` is ``"recall (classifier)"``."""
    name, _, encoder = metric.partition("@")
    words = _LABELS.get(name, name.replace("_", " "))
    return f"{words} ({encoder})" if encoder else words


def direction(runs: Sequence[Run], metric: str) -> str:
    """Which way is good, in words."""
    return _DIRECTIONS[better(runs, metric)]


def arrow(runs: Sequence[Run], metric: str) -> str:
    """Which way is good, as a sign."""
    return _ARROWS[better(runs, metric)]


def format_value(metric: str, value: float) -> str:
    """A number of a metric as text: shares and ratios with three decimals, distances with three digits."""
    return _fixed(value, _num_decimals(metric, value))


def format_interval(metric: str, interval: SeedInterval, *, signed: bool = False) -> str:
    """A number over seeds as text: ``"41.2 ± 3.1"`` for a t interval, ``"41.2 [38.0, 44.1]"`` for a bootstrap."""
    decimals = _num_decimals(metric, interval.centre)
    if interval.low is None or interval.high is None:
        return _fixed(interval.centre, decimals, signed=signed)
    half = (interval.high - interval.low) / 2
    if 1e-5 < half < 0.5 * 10**-decimals:  # it would be shown as none
        decimals = min(-math.floor(math.log10(half)), 5)
    centre = _fixed(interval.centre, decimals, signed=signed)
    if interval.kind == "t":
        return f"{centre} ± {_fixed(half, decimals)}"
    ends = [_fixed(end, decimals, signed=signed) for end in (interval.low, interval.high)]
    return f"{centre} [{ends[0]}, {ends[1]}]"


def format_floor(metric: str, floor: float, spread: float) -> str:
    """A floor as text: ``"0.976 ± 0.010 sd"``, the spread being the standard deviation over splits, where known."""
    text = format_value(metric, floor)
    return f"{text} ± {_fixed(spread, _num_decimals(metric, floor))} sd" if math.isfinite(spread) else text


def generation_table(run: Run, of: str = "model") -> pd.DataFrame:
    """The headline metrics of one run: the real-vs-real floor first, then one row per generation.

    Args:
        run: the run.
        of: ``"model"`` for fresh samples, ``"kept"`` for the curated output.

    Returns:
        Numbers, indexed by ``"real-vs-real floor"``, 0, 1, ...; NaN where there is none.
    """
    metrics = headline([run])
    rows = {FLOOR: [run.floor(metric) for metric in metrics]} | {
        record.generation: [run.value(record.generation, metric, of) for metric in metrics] for record in run.records
    }
    index = pd.Index(list(rows), name="generation", dtype=object)
    return pd.DataFrame(list(rows.values()), index=index, columns=metrics, dtype="float64")


def summary_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Every score of every arm over its seeds, one row per (arm, generation, of, metric): the tidy table of a paper.

    Columns: ``dataset``, ``arm``, ``generation``, ``metric``, ``of``, ``better``, ``value`` with the ends ``low`` and
    ``high`` of its 95 % interval and what kind that is (``interval``, see ``SeedInterval``), ``num_seeds`` it stands
    on, ``floor`` and ``floor_sd`` (of real images, with the standard deviation over splits) and ``null`` (the mean for
    a perfect model). NaN stands for what there is not. ``to_frame`` has the single runs.

    Raises:
        RunDirError: if the runs do not compare, or none has a generation yet.
    """
    rows = []
    for arm, members in _started(runs).items():
        for generation in range(last_generation(members) + 1):
            reached = [run for run in members if generation < len(run.records)]
            scores = {(s.metric, s.of): s for run in reached for s in run.records[generation].scores}
            for (metric, of), score in scores.items():
                if of in ("floor", "control"):  # they are columns
                    continue
                beside = _of_as_many_images(reached, generation, metric, of)
                spread = _largest_known(run.floor_spread(metric, generation) for run in beside)
                null = _largest_known(run.null(metric, generation) for run in beside)
                over_seeds = summarize([run.value(generation, metric, of) for run in reached])
                rows.append(
                    (
                        *(members[0].choices.get("dataset"), arm, generation, metric, of, score.better),
                        *(over_seeds.centre, over_seeds.low, over_seeds.high, over_seeds.kind, over_seeds.n),
                        *(mean_floor(beside, metric, generation), spread, null),
                    )
                )
    names = ["dataset", "arm", "generation", "metric", "of", "better", "value", "low", "high", "interval", "num_seeds"]
    frame = pd.DataFrame(rows, columns=[*names, "floor", "floor_sd", "null"])
    return frame.astype(dict.fromkeys(("value", "low", "high", "floor", "floor_sd", "null"), "float64"))


def arm_table(runs: Sequence[Run], of: str = "model") -> pd.DataFrame:
    """The headline metrics of every arm at its last generation, and the change since generation 0.

    The last generation of an arm is the last that any of its seeds has reached; only the seeds that reached it count.

    Returns:
        One row per (arm, metric) with ``generation`` (the last), ``num_seeds`` (of the arm), ``value``, ``start`` (the
        same at generation 0) and ``change`` (each a ``SeedInterval``, with the seeds it stands on), ``floor`` and
        ``floor_spread``, NaN where the floor is of another number of images.

    Raises:
        RunDirError: if the runs do not compare, or none has a generation yet.
    """
    metrics = headline(runs)
    rows = []
    for arm, members in _started(runs).items():
        last = last_generation(members)
        for metric in metrics:
            value, first = _at(members, last, metric, of), _at(members, 0, metric, of)
            beside = _of_as_many_images(members, last, metric, of)
            rows.append(
                {
                    "arm": arm,
                    "metric": metric,
                    "generation": last,
                    "num_seeds": len(members),
                    "value": summarize(list(value.values())),
                    "start": summarize([first[seed] for seed in value.keys() & first.keys()]),
                    "change": summarize([value[seed] - first[seed] for seed in value.keys() & first.keys()]),
                    "floor": mean_floor(beside, metric, last),
                    "floor_spread": _largest_known(run.floor_spread(metric, last) for run in beside),
                }
            )
    return pd.DataFrame(rows)


def format_arm_table(runs: Sequence[Run], table: pd.DataFrame) -> pd.DataFrame:
    """``arm_table`` as text: the floor, then one row per arm, cells of two lines (value, change since generation 0).

    Arms that were refused before training are last; ``refusals`` says why. ``always_zero`` metrics are left out.

    Args:
        runs: the runs.
        table: what ``arm_table`` gives of them.
    """
    floors: dict[str, list[tuple[float, float]]] = {}
    body: dict[str, dict[str, str]] = {FLOOR: {"last": "", "seeds": ""}}
    for arm, rows in table[~table["metric"].isin(always_zero(runs))].groupby("arm", sort=False):
        num_seeds = int(rows["num_seeds"].iloc[0])
        most = max(interval.n for interval in rows["value"])
        cells = {
            "last": str(rows["generation"].iloc[0]),
            "seeds": str(num_seeds) if most == num_seeds else f"{most} of {num_seeds}",
        }
        for row in rows.to_dict("records"):
            metric, value, change = row["metric"], row["value"], row["change"]
            few = f" (n = {value.n})" if 0 < value.n < most else ""
            cells[_header(runs, metric)] = (
                f"{format_interval(metric, value)}{few}\n{format_interval(metric, change, signed=True)}"
                if value.n
                else _MISSING
            )
            floors.setdefault(metric, []).append((row["floor"], row["floor_spread"]))
        body[str(arm)] = cells
    body[FLOOR] |= {_header(runs, metric): _format_floors(metric, values) for metric, values in floors.items()}
    nulls = {metric: sorted({null for run in runs if math.isfinite(null := run.null(metric))}) for metric in floors}
    if any(nulls.values()):
        texts = {_header(runs, m): format_value(m, known[0]) if len(known) == 1 else "" for m, known in nulls.items()}
        body = {FLOOR: body.pop(FLOOR), NULL: {"last": "", "seeds": "", **texts}, **body}
    body |= {arm: dict.fromkeys(body[FLOOR], _MISSING) for arm in refused_arms(runs)}
    return pd.DataFrame.from_dict(body, orient="index").rename_axis("arm")


def zero_note(runs: Sequence[Run]) -> list[str]:
    """Which columns are left out of tables of arms, in one sentence; empty where none is."""
    names = [label(metric) for metric in always_zero(runs)]
    return [f"0 in every run and generation and at the floor, so not shown: {', '.join(names)}"] if names else []


def format_detection_table(runs: Sequence[Run]) -> pd.DataFrame:
    """What a detector flags and what changing pixels costs, as text: one row per arm that does either.

    At the last generation of the arm; empty where no arm does.
    """
    columns = {
        "flagged of those handed on": ("flagged", "kept"),
        "of fresh samples": ("flagged", "model"),
        "of held-out real images": ("flagged", "control"),
        "FID ↓ of those handed on": ("fid", "kept"),
        "before they were changed": ("fid", "unchanged"),
    }
    body = {}
    for arm, members in group_by_arm(runs).items():
        last = last_generation(members) if any(run.records for run in members) else -1
        found = {name: summarize(list(_at(members, last, *key).values())) for name, key in columns.items()}
        if found["of fresh samples"].n or found["before they were changed"].n:
            body[arm] = {"last": str(last), "seeds": str(len(members))} | {
                name: _interval_or_missing(columns[name][0], interval) for name, interval in found.items()
            }
    return pd.DataFrame.from_dict(body, orient="index").rename_axis("arm")


def refusals(runs: Sequence[Run]) -> list[str]:
    """Why arms of the arm table are n/a, in words, each reason with its arms."""
    arms: dict[str, list[str]] = {}
    for arm, reason in refused_arms(runs).items():
        arms.setdefault(reason, []).append(arm)
    return [f"n/a: {'; '.join(names)}: {reason}" for reason, names in arms.items()]


def paired_table(runs: Sequence[Run], baseline: str | None = None, of: str = "model") -> pd.DataFrame:
    """Each arm minus another, seed by seed, at the last generation that both have reached.

    Args:
        runs: runs that compare.
        baseline: the arm that all others are compared with; ``None`` compares each with its own control, see
            ``arm_controls``, and leaves out those that have none.
        of: ``"model"`` for fresh samples, ``"kept"`` for the curated output.

    Returns:
        One row per (arm, metric) with ``minus`` (the other arm), ``generation`` and ``difference``, a ``SeedInterval``
        over the common seeds.

    Raises:
        RunDirError: if there is no such arm, or the runs do not compare.
    """
    arms = _started(runs)
    if baseline is not None and baseline not in arms:
        raise RunDirError(f"no arm {baseline!r}; the arms are: {'; '.join(arms)}")
    others = arm_controls(arms) if baseline is None else {arm: baseline for arm in arms if arm != baseline}
    rows = []
    for arm, other in others.items():
        last = min(last_generation(arms[arm]), last_generation(arms[other]))
        for metric in headline(runs):
            difference = paired_difference(_at(arms[arm], last, metric, of), _at(arms[other], last, metric, of))
            rows.append({"arm": arm, "minus": other, "metric": metric, "generation": last, "difference": difference})
    return pd.DataFrame(rows, columns=["arm", "minus", "metric", "generation", "difference"])


def format_paired_table(runs: Sequence[Run], baseline: str | None = None, of: str = "model") -> pd.DataFrame:
    """``paired_table`` as text: one row per arm, without ``always_zero`` metrics; empty where nothing compares."""
    table = paired_table(runs, baseline, of)
    table = table[~table["metric"].isin(always_zero(runs))]
    body = {}
    for arm, rows in table.groupby("arm", sort=False):
        most = max(interval.n for interval in rows["difference"])
        cells = {"minus": rows["minus"].iloc[0], "at": str(rows["generation"].iloc[0]), "pairs": str(most)}
        for metric, interval in zip(rows["metric"], rows["difference"], strict=True):
            few = f" (n = {interval.n})" if 0 < interval.n < most else ""
            cells[_header(runs, metric)] = f"{format_interval(metric, interval, signed=True)}{few}"
        body[str(arm)] = cells
    return pd.DataFrame.from_dict(body, orient="index").rename_axis("arm")


def format_generation_table(run: Run, of: str = "model") -> pd.DataFrame:
    """``generation_table`` as text: the floor with its spread, the null where there is one, the generations."""
    of_floor = [run.floor_score(metric) for metric in headline([run])]
    rows = {FLOOR: [score for score in of_floor if score is not None]} | {
        str(record.generation): [score for score in record.scores if score.of == of] for record in run.records
    }
    return format_scores(rows, headline([run])).rename_axis("generation")


def format_scores(rows: Mapping[str, Sequence[Score]], metrics: Sequence[str]) -> pd.DataFrame:
    """Scores as text, one row per label and one column per metric.

    Args:
        rows: scores by label. Below the first row, which is the floor, stands the null, where one is known.
        metrics: columns; scores of others are left out.
    """
    found = {name: {score.metric: score for score in scores} for name, scores in rows.items()}
    first = next(iter(found.values()))
    nulls = {metric: score.null for metric, score in first.items() if metric in metrics and score.null is not None}
    body: dict[str, dict[str, str]] = {}
    for name, scores in found.items():
        cells = body[name] = {}
        for metric in metrics:
            direction = next(row[metric].better for row in found.values() if metric in row)
            header = f"{label(metric)} {_ARROWS[direction]}"
            score = scores.get(metric)
            spread = math.nan if score is None or score.spread is None else score.spread
            cells[header] = _MISSING if score is None else format_floor(metric, score.value, spread)
            if nulls and scores is first:
                null = format_value(metric, nulls[metric]) if metric in nulls else ""
                body.setdefault(NULL, {})[header] = null
    return pd.DataFrame.from_dict(body, orient="index")


def verdict_table(runs: Sequence[Run]) -> pd.DataFrame:
    """What each definition of collapse says about each arm but the controls; arms without a generation are left out.

    Returns:
        One row per (arm, definition) with the fields of ``Verdict``, its ``reason``, ``num_pairs`` (seeds of the arm
        that have a control C0) and ``undertrained`` (of the arm, by ``QualityGate``; ``None`` where that was not
        measured).

    Raises:
        RunDirError: if the runs do not compare.
    """
    arms = group_by_arm(runs)
    rows = []
    for arm, verdicts in judge(runs).items():
        if not any(run.records for run in arms[arm]):
            continue
        of_arm = {
            "num_pairs": compare(arms[arm], runs).num_pairs,
            "undertrained": _GATE.undertrained(arms[arm]),
        }
        rows += [{"arm": arm, **vars(verdict), "reason": verdict.reason, **of_arm} for verdict in verdicts]
    names = [field.name for field in fields(Verdict)]
    return pd.DataFrame(rows, columns=["arm", *names, "reason", "num_pairs", "undertrained"])


def format_verdict_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """``verdict_table`` as text: a row per definition, a column per arm; empty where no arm has a control.

    Cells have four lines: the decision, the metric with the smallest p, its effect with the interval, p (corrected)
    and the number of pairs.
    """
    body: dict[str, dict[str, str]] = {}
    for row in verdicts.to_dict("records") if verdicts["num_pairs"].any() else ():
        arm = f"{row['arm']} (undertrained)" if row["undertrained"] else row["arm"]
        lines = [row["decision"]]
        if row["n"]:
            p = "p < 0.001" if row["p_holm"] < 0.001 else f"p = {_p_value(row['p_holm'])}"
            lines += [label(row["metric"]), format_interval("", row["effect"], signed=True), f"{p}, n = {row['n']}"]
        body.setdefault(row["definition"], {})[arm] = "\n".join(lines)
    return pd.DataFrame.from_dict(body, orient="index").rename_axis("definition")


def format_verdict_reasons(verdicts: pd.DataFrame) -> pd.DataFrame:
    """What every verdict of ``verdict_table`` stands on, in words: a row per definition, a column per arm."""
    return _by_definition(verdicts, "reason")


def verdict_matrix(runs: Sequence[Run]) -> pd.DataFrame:
    """The decisions alone, ``"yes"``, ``"no"`` or ``"not decidable"``: a row per definition, a column per arm.

    Raises:
        RunDirError: if the runs do not compare.
    """
    return _by_definition(verdict_table(runs), "decision")


def verdict_gaps(verdicts: pd.DataFrame) -> dict[str, list[str]]:
    """Why verdicts of ``verdict_table`` are not decidable, in words, each with the definitions that it concerns."""
    gaps: dict[str, list[str]] = {}
    for row in verdicts.to_dict("records"):
        for gap in row["gaps"] if row["decision"] == "not decidable" else ():
            gaps[gap] = list(dict.fromkeys([*gaps.get(gap, []), row["definition"]]))
    return gaps


def verdict_rules() -> dict[str, str]:
    """What is shown where a definition says "yes", in words, by definition."""
    return {definition.name: definition.rule for definition in (*EIGHT, *STAGES)}


VERDICT_LEGEND = (
    f"One-sided paired t test over seeds at {ALPHA:g}: the arm has become worse than its control C0 (retrained on the "
    "real pool, same seed) by more than the threshold. Below the decision: the number with the smallest p of those "
    "that the definition looks at, and how much worse it is, positive is worse, with the 95 % t interval. p is "
    "corrected by Holm: over the eight definitions of an arm, and early and late collapse each over their own tests. "
    '"no" means not shown at this level. Thresholds are ours.'
)
"""How a table of verdicts is read."""


def sensitivity_table(runs: Sequence[Run]) -> pd.DataFrame:
    """The decisions where all thresholds are multiplied by each of ``FACTORS``: a row per (arm, definition)."""
    decisions = threshold_sensitivity(runs)
    body = {f"{arm}: {definition}": by_factor for (arm, definition), by_factor in decisions.items()}
    table = pd.DataFrame.from_dict(body, orient="index", columns=list(FACTORS)).rename_axis("arm: definition")
    return table.rename(columns=lambda factor: f"thresholds x {factor:g}")


def control_hint(verdicts: pd.DataFrame) -> str | None:
    """How to get the control of the arms of ``verdict_table`` that have none, in one line; ``None`` where all have."""
    alone = list(verdicts.loc[verdicts["num_pairs"] == 0, "arm"].unique())
    if not alone:
        return None
    return (
        f"No verdict on {'; '.join(alone)}: the control C0 is missing; run the same command and seeds with regime=real "
        "mitigation=control, or, of an arm that is steered, with regime=real and the same steering"
    )


def curve_table(runs: Sequence[Run], metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Metrics of every arm over the generations, as a few numbers: one row per (arm, metric).

    Args:
        runs: runs that compare.
        metrics: names; ``None`` is the headline metrics that the runs have.

    Returns:
        The columns ``arm`` and those of ``CurveSummary``; a control C0 is compared with itself.

    Raises:
        RunDirError: if the runs do not compare, or none has a generation yet.
    """
    rows = [
        {"arm": arm, **vars(summarize_curves(members, compare(members, runs), metric))}
        for arm, members in _started(runs).items()
        for metric in (headline(runs) if metrics is None else metrics)
        if any(metric in run.metrics for run in members)
    ]
    return pd.DataFrame(rows, columns=["arm", *(field.name for field in fields(CurveSummary))])


def format_curve_table(runs: Sequence[Run], metric: str) -> pd.DataFrame:
    """``curve_table`` of one metric as text: one row per arm that has it."""
    body = {
        row["arm"]: {
            "to generation": str(row["last_generation"]),
            "seeds": str(row["final"].n),
            "area of relative degradation": _interval_or_missing("", row["area"]),
            "final value": _interval_or_missing(metric, row["final"]),
            "half-life": _format_waiting(row["half_life"]),
            "slope, last half": _interval_or_missing(metric, row["slope"], signed=True),
            f"onset ({ONSET:g} worse than C0)": _format_waiting(row["onset"]),
        }
        for row in curve_table(runs, [metric]).to_dict("records")
    }
    return pd.DataFrame.from_dict(body, orient="index").rename_axis("arm")


def against_table(
    runs: Sequence[Run], setting: str, metrics: Sequence[str] | None = None, of: str = "model"
) -> pd.DataFrame:
    """Metrics at the last generation against one numeric setting: one row per (line, value of the setting, metric).

    Args:
        runs: runs that compare.
        setting: dotted key of the setting, as in ``Run.settings``.
        metrics: names; ``None`` is the headline metrics that the runs have.
        of: ``"model"`` for fresh samples, ``"kept"`` for the curated output.

    Returns:
        ``line`` (what else differs between the runs), ``setting`` (its value; NaN for runs without it), ``metric``,
        ``generation`` (the last), ``num_seeds`` (of the arm), ``complete`` (whether all of them are), ``score`` (a
        ``SeedInterval``), ``scores`` (by seed), ``floor`` and ``floor_spread``.

    Raises:
        ConfigError: if no run has the setting, it is not a number, or all runs have the same one.
        RunDirError: if the runs do not compare.
    """
    names = headline(runs) if metrics is None else metrics
    rows = []
    for line, points in group_by_setting(runs, setting).items():
        for value, members in points.items():
            last = last_generation(members)
            for metric in names:
                scores = _at(members, last, metric, of)
                beside = _of_as_many_images(members, last, metric, of)
                rows.append(
                    {
                        "line": line,
                        "setting": math.nan if value is None else value,
                        "metric": metric,
                        "generation": last,
                        "num_seeds": len(members),
                        "complete": all(run.complete for run in members),
                        "score": summarize(list(scores.values())),
                        "scores": scores,
                        "floor": mean_floor(beside, metric, last),
                        "floor_spread": _largest_known(run.floor_spread(metric, last) for run in beside),
                    }
                )
    return pd.DataFrame(rows)


def format_against_table(runs: Sequence[Run], setting: str) -> pd.DataFrame:
    """``against_table`` as text: the floor, then one row per line and value of the setting."""
    table = against_table(runs, setting)
    metrics = list(table["metric"].unique())
    names = [_header(runs, metric) for metric in metrics]
    floors = [
        _format_floors(metric, list(zip(rows["floor"], rows["floor_spread"], strict=True)))
        for metric in metrics
        for rows in [table[table["metric"] == metric]]
    ]
    body = {FLOOR: ["", "", *floors]}
    for _, rows in table.groupby(["line", "setting"], sort=False, dropna=False):
        line, value, last, num_seeds = rows[["line", "setting", "generation", "num_seeds"]].iloc[0]
        most = max(interval.n for interval in rows["score"])
        cells = [str(last), str(num_seeds) if most == num_seeds else f"{most} of {num_seeds}"]
        for metric, interval in zip(rows["metric"], rows["score"], strict=True):
            few = f" (n = {interval.n})" if 0 < interval.n < most else ""
            cells.append(f"{_interval_or_missing(metric, interval)}{few}")
        body[line if math.isnan(value) else f"{line}, {setting}={value:g}"] = cells
    return pd.DataFrame.from_dict(body, orient="index", columns=["last", "seeds", *names]).rename_axis("arm")


def resource_table(runs: Sequence[Run]) -> pd.DataFrame:
    """The resource card of each arm as text, counted by the loop: totals of a chain, as the mean over its runs."""
    body = {}
    for arm, members in _started(runs).items():
        spent = [total_spent(run) for run in members]
        candidates, kept = sum(s.candidates for s in spent), sum(s.kept for s in spent)
        seen = {part: max(s.real_images_seen.get(part, 0) for s in spent) for s in spent for part in s.real_images_seen}
        if len(seen) > 1:
            seen["together"] = max(s.num_real_images for s in spent)
        reused = Counter(name for s in spent for name in s.reused)
        phases = dict.fromkeys(phase for s in spent for phase in s.seconds)
        mean_s = {phase: sum(s.seconds.get(phase, 0.0) for s in spent) / len(spent) for phase in phases}
        keep = sorted({f"keep={run.config['keep']}" for run in members if "keep" in run.config})
        on_gpu = max(s.peak_device_memory_mb for s in spent)
        gpu = [f"GPU {on_gpu:,}"] if on_gpu else []
        body[arm] = {
            "runs": str(len(members)),
            "generations": _range([len(run.records) for run in members]),
            "gradient steps": f"{sum(s.gradient_steps for s in spent) / len(spent):,.0f}",
            "networks trained": f"{sum(s.networks_trained for s in spent) / len(spent):.3g}",
            "network evaluations per sample": str(max(s.network_evaluations_per_sample for s in spent)),
            "candidates per kept image": f"{candidates / kept:.3g}" if kept else _MISSING,
            "other samples": f"{sum(s.other_samples for s in spent) / len(spent):,.0f}",
            "judging evaluations": f"{sum(s.judging_evaluations for s in spent) / len(spent):,.0f}",
            "real images seen": "\n".join(f"{part} {count:,}" for part, count in seen.items()) or _MISSING,
            "seconds": "\n".join(f"{phase} {mean_s[phase]:,.1f}" for phase in phases) or _MISSING,
            "reused, not in seconds": "\n".join(f"{n / len(spent):.3g} {name}" for name, n in reused.items()) or "0",
            "peak memory, MiB": "\n".join([f"{max(s.peak_memory_mb for s in spent):,}", *gpu]),
            "disk, MiB": "\n".join([_mean_size(members), *keep]),
        }
    return pd.DataFrame.from_dict(body, orient="index").rename_axis("arm")


def format_ranking_table(runs: Sequence[Run], *, across_budgets: bool = False) -> pd.DataFrame:
    """The arms by budget, family and rank, with their resource cards, as text; ``ranking_notes`` belongs below it.

    Cells of a rank have three lines: the rank, how many were ranked, its interval and n; the value; and the probability
    of improvement over the control. Rows are in the order of the first metric. The arm of a family in which nothing is
    done has two rows: among its family, and among the regimes.

    Raises:
        RunDirError: if the runs do not compare, or none has a generation yet.
    """
    cards = resource_table(runs).drop(columns="runs")
    numbers = {arm: f"{i}" for i, of_class in enumerate(budget_classes(runs), start=1) for arm in of_class.arms}
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    body: dict[tuple[int | None, str, str], dict[str, str]] = {}
    marked: dict[str, str] = {}
    for metric in [metric for metric in RANKED if metric in names] or headline(runs)[:1]:
        for ranking in rank(runs, metric, across_budgets=across_budgets):
            for place in ranking.places:
                marked[place.arm] = f"{place.arm} (undertrained)" if place.undertrained else place.arm
                first = {"ranked among": ranking.among, "budget": numbers[place.arm]}
                row = body.setdefault((ranking.budget, ranking.among, place.arm), first)
                row[f"rank by {_header(runs, metric)}"] = _format_place(place, ranking)
    table = pd.DataFrame(list(body.values()), index=[arm for _, _, arm in body]).join(cards)
    return table.rename(index=marked).rename_axis("arm")


def format_rank(place: Place, ranking: Ranking) -> str:
    """A rank as text: ``"2 of 7 [1, 3]"``, the interval where there is one."""
    if place.rank is None:
        return _MISSING
    ends = "" if place.low is None or ranking.num_ranked == 1 else f" [{place.low}, {place.high}]"
    return f"{place.rank} of {ranking.num_ranked}{ends}"


def ranking_notes(runs: Sequence[Run], *, across_budgets: bool = False) -> list[str]:
    """What must be read with a ranking: which budgets differ, in what; one sentence each, none where all are equal."""
    classes = budget_classes(runs)
    if len(classes) < 2:
        return []
    differences = ", ".join(
        f"{name} ({' | '.join(_format_entry(value) for value in values)})"
        for name, values in differing_entries(classes).items()
    )
    if across_budgets:
        return [f"Ranked across {len(classes)} unequal budgets, which differ in {differences}."]
    return [
        f"Not ranked against each other: the {len(classes)} budgets, which differ in {differences}; --across-budgets "
        "ranks them anyway."
    ]


def paired_title(baseline: str | None) -> str:
    """Title of the table of differences to an arm; ``None`` is each arm's own control."""
    return f"Difference to {baseline or 'the control'}, seed by seed"


PAIRED_LEGEND = (
    "Each arm less the one in the column “minus”. Unless an arm is named, that is its control: the same regime "
    "without the mitigation, random_subset for a selection from as many candidates, if that was run, or replace for "
    "another regime. Mean and 95 % t interval over the seeds that both have, at the last generation that both have "
    "reached; not corrected for the number of arms and metrics in the table."
)
"""How a table of differences is read."""

DETECTION_LEGEND = (
    "Shares of images that the detector of a weigher takes for synthetic: of the samples that are handed on (with a "
    "watermark, marked ones), of the model's fresh samples (never marked), and of held-out real images, which are the "
    "false positives. For a curator that changes pixels also what the change costs: FID of what it hands on, and of "
    "the same samples before. At the last generation, over seeds."
)
"""How a table of detection is read."""

NO_PAIRS = "No differences are shown: no arm is a control of another; name one with --baseline."
"""What is said of several arms where the table of differences is empty."""

RANKING_LEGEND = (
    "Arms of one budget are ranked against each other, at their last generation: those without a mitigation, which "
    "are the regimes, and the mitigations within each regime, beside the arm of it without one. A budget is what a "
    "fair comparison holds equal: generations, gradient steps of all fits, network evaluations per sample, candidates"
    " per kept image, other samples (drawn for another end), judging evaluations (by networks, of candidates and "
    "training pools), and the distinct real images that all trained parts "
    "together have seen; the encoder that measures is the same for all. In brackets: the 95 % interval of the rank, "
    "by a bootstrap that draws the same seeds for all arms; with few seeds it covers less than it says, and with n = "
    "1 there is none. Below: the value, and P, the chance that a run is better than one of the arm's control (the "
    "same regime without the mitigation, random_subset for a selection, or replace for another regime), if that is "
    "ranked with it; not below 3 seeds, and below 10 without an interval, which would cover far less than it says. "
    "Where 1 or the floor is best, the distance from it is ranked. A run without a number makes its arm n/a."
)
"""How a table of rankings is read."""

CARD_LEGEND = (
    "The resource card: totals of a chain, as the mean over the runs of an arm, counted by the loop. Gradient steps "
    "and networks count fits that were reused from the store; seconds do not. Memory is the most of any run, and of "
    "its process: in a sweep also of the chains before; that of a GPU is what tensors took there. Disk is the run's "
    "folder as it is now, which the option keep decides."
)
"""How the resource cards are read."""


def _started(runs: Sequence[Run]) -> dict[str, list[Run]]:
    arms = {arm: members for arm, members in group_by_arm(runs).items() if any(run.records for run in members)}
    if not arms:
        nothing = f"{runs[0].path if runs else 'no runs'}: no generation is committed yet"
        raise RunDirError("; ".join([nothing, *refusals(runs)]))
    return arms


def _p_value(p: float) -> str:
    """With three digits, or as many as it takes to see on which side of the level it lies."""
    return next(text for digits in range(3, 18) if float(text := f"{p:.{digits}f}") != ALPHA or p == ALPHA)


def _by_definition(verdicts: pd.DataFrame, values: str) -> pd.DataFrame:
    table = verdicts.pivot(index="definition", columns="arm", values=values)
    return table.reindex(index=verdicts["definition"].unique(), columns=verdicts["arm"].unique())


def _at(members: Sequence[Run], generation: int, metric: str, of: str) -> dict[int, float]:
    values = {run.seed: run.value(generation, metric, of) for run in members}
    return {seed: value for seed, value in values.items() if math.isfinite(value)}


def _of_as_many_images(members: Sequence[Run], generation: int, metric: str, of: str) -> list[Run]:
    """The runs whose floor is of as many images as the score beside it; fewer may be kept than are measured."""
    pairs = [(run, run.score(generation, metric, of), run.floor_score(metric, generation)) for run in members]
    return [run for run, score, floor in pairs if score and floor and score.num_samples == floor.num_samples]


def _format_place(place: Place, ranking: Ranking) -> str:
    if place.rank is None:
        return _MISSING
    lines = [f"{format_rank(place, ranking)}, n = {place.value.n}"]
    lines.append(format_interval(ranking.metric, place.value))
    if any(place.arm == other.control for other in ranking.places):
        lines.append("control")
    if (better_than := place.improvement) is not None:
        ends = "" if better_than.low is None else f" [{better_than.low:.2f}, {better_than.high:.2f}]"
        lines.append(f"P = {better_than.centre:.2f}{ends}")
    return "\n".join(lines)


def _format_entry(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _interval_or_missing(metric: str, interval: SeedInterval, *, signed: bool = False) -> str:
    return format_interval(metric, interval, signed=signed) if interval.n else _MISSING


def _format_waiting(waiting: Waiting) -> str:
    interval, num_censored = waiting.interval, waiting.num_censored
    if not interval.n:
        return _MISSING
    if num_censored == interval.n:
        return f"never (n = {interval.n})"
    text = format_interval("", interval)
    return f"{text}\n{num_censored} of {interval.n} never" if num_censored else text


def _format_floors(metric: str, floors: Sequence[tuple[float, float]]) -> str:
    # Arms that measure different numbers of images have different floors.
    known = sorted(pair for pair in floors if math.isfinite(pair[0]))
    texts = [format_floor(metric, *pair) for pair in known] or [_MISSING]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def _mean_size(members: Sequence[Run]) -> str:
    sizes = [run.num_bytes for run in members]
    return f"{sum(sizes) / len(sizes) / 2**20:,.2f}" if all(sizes) else _MISSING


def _largest_known(values: Iterable[float]) -> float:
    return max((value for value in values if math.isfinite(value)), default=math.nan)


def _range(counts: Sequence[int]) -> str:
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _header(runs: Sequence[Run], metric: str) -> str:
    return f"{label(metric)} {arrow(runs, metric)}"


def _num_decimals(metric: str, value: float) -> int:
    if not math.isfinite(value):
        return 0
    if metric.startswith("num_"):
        return 0 if value == round(value) else 1
    if metric.partition("@")[0] in _SIGNIFICANT:
        return 3 if value == 0 else min(max(2 - math.floor(math.log10(abs(value))), 0), 5)
    return 3


def _fixed(value: float, decimals: int, *, signed: bool = False) -> str:
    if not math.isfinite(value):
        return _MISSING
    text = f"{value:+,.{decimals}f}" if signed else f"{value:,.{decimals}f}"
    # A rounded zero has no sign.
    return text.lstrip("+-") if float(text.replace(",", "")) == 0 else text
