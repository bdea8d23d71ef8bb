"""One self-contained HTML page about a set of runs: findings, figures, tables, configurations, commands, limits."""

import base64
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from collapse_bench.analysis import findings
from collapse_bench.analysis.caveats import MAX_CAVEATS, caveats, environments, headline_scores
from collapse_bench.analysis.comparing import is_control
from collapse_bench.analysis.figures import (
    MAX_CURVES,
    arms_by_pools,
    has_class_shares,
    last_sample_rows,
    measured,
    montage,
    plot_against,
    plot_arm_curves,
    plot_class_share_maps,
    plot_class_shares,
    plot_curves,
    plot_legend,
    plot_pools,
    plot_scoreboard,
    plot_standing,
    sample_rows,
)
from collapse_bench.analysis.formats import to_html
from collapse_bench.analysis.ranking import BudgetClass, budget_classes, differing_entries
from collapse_bench.analysis.runs import Run, config_differences, group_by_arm, headline, refused_arms
from collapse_bench.analysis.tables import (
    CARD_LEGEND,
    DETECTION_LEGEND,
    NO_PAIRS,
    PAIRED_LEGEND,
    RANKED,
    RANKING_LEGEND,
    VERDICT_LEGEND,
    arm_table,
    control_hint,
    direction,
    format_against_table,
    format_arm_table,
    format_curve_table,
    format_detection_table,
    format_generation_table,
    format_paired_table,
    format_ranking_table,
    format_verdict_reasons,
    format_verdict_table,
    label,
    paired_title,
    ranking_notes,
    refusals,
    resource_table,
    sensitivity_table,
    verdict_rules,
    verdict_table,
    zero_note,
)

_INTERVALS = {
    "t": "Student's t interval of the mean over seeds (95 %), used below 10 seeds",
    "bootstrap": (
        "percentile bootstrap of the interquartile mean over seeds (nominal 95 %, about 90 to 94 % with 10 seeds), "
        "used from 10 seeds on"
    ),
    "none": "no interval, because one seed says nothing about the spread (n = 1)",
}
# Curves of these are open where there are many arms; those of the other metrics unfold.
_OPEN = ("precision", *RANKED)
# From so many differing arms on, a column per arm is harder to read than a list per arm.
_MAX_COLUMNS = 4
# Sample images are enlarged to about this height in pixels, so that neither a large screen nor print blurs them.
_IMAGE_HEIGHT = 40
# Images of a row where the grids of many arms stand side by side.
_FEW_IMAGES = 10
# Not what is below 1, which scales the glyphs.
_LONG_NUMBER = re.compile(r"(?<![\d.])([1-9]\d*\.\d\d)\d+")


@dataclass(frozen=True)
class Picture:
    """An embedded image.

    Args:
        source: data URI.
        alt: what it shows, in words.
        width: its natural width, in CSS pixels.
    """

    source: str
    alt: str
    width: int


@dataclass(frozen=True)
class Grid:
    """Rows of sample images.

    Args:
        title: the arm.
        rows: by label.
    """

    title: str
    rows: Mapping[str, Picture]


def write_report(
    runs: Sequence[Run],
    path: str | Path,
    *,
    baseline: str | None = None,
    across_budgets: bool = False,
    setting: str | None = None,
) -> Path:
    """Writes one HTML page that needs no other file and no network, and returns its path.

    Args:
        runs: runs that compare.
        path: the file; its folder is made.
        baseline: the arm that all others are compared with, seed by seed; ``None`` compares each with its own control.
        across_budgets: rank all arms against each other, also those of unequal budgets.
        setting: key of a numeric setting that the scores at the last generation are shown against; ``None`` for none.

    Raises:
        ConfigError: if no run has the setting, it is not a number, or all runs have the same one.
        RunDirError: if the runs do not compare, none has a generation yet, there is no such baseline, or a grid
            is damaged.
    """
    arms = group_by_arm(runs)
    ran = [run for run in runs if run.refused is None]
    cards, scores, verdicts = resource_table(runs), arm_table(runs), verdict_table(runs)
    context = {
        "title": _title(runs),
        "facts": _facts(ran, arms),
        "warnings": caveats(ran),
        "max_warnings": MAX_CAVEATS,
        "many": len(arms) > MAX_CURVES,
        "findings": _findings(runs, scores, verdicts, across_budgets=across_budgets),
        "ranking_table": to_html(
            format_ranking_table(runs, across_budgets=across_budgets).drop(columns=cards.columns, errors="ignore")
        ),
        "ranking_notes": ranking_notes(runs, across_budgets=across_budgets),
        "ranking_legend": RANKING_LEGEND,
        "budgets": to_html(_budget_table(budget_classes(runs))),
        "card_table": to_html(cards),
        "card_legend": CARD_LEGEND,
        "setting": setting,
        "intervals": [_INTERVALS[kind] for kind in sorted({i.kind for i in scores["value"] if i.n})],
    }
    context |= _scores(runs, arms, scores, baseline)
    context |= _curves(runs, arms)
    context |= _against(runs, setting)
    context |= _verdicts(runs, arms, verdicts)
    context |= _images(runs, arms)
    context |= _class_shares(runs, arms)
    context |= _pools(runs)
    context |= _configuration(runs, arms)
    context |= _reproduction(ran, arms)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(environment.get_template("report.html.jinja").render(context), encoding="utf-8")
    return path


def _findings(
    runs: Sequence[Run], scores: pd.DataFrame, verdicts: pd.DataFrame, *, across_budgets: bool
) -> dict[str, str]:
    """The sentence of each section that has one, by the section's anchor."""
    sentences = {
        "scores": findings.score_finding(runs, scores),
        "ranking": findings.standing_finding(runs, across_budgets=across_budgets),
        "curves": findings.curve_finding(runs, scores),
        "verdicts": findings.verdict_finding(verdicts),
        "samples": findings.sample_finding(runs, scores) if any(run.has_images for run in runs) else "",
        "classes": findings.class_finding(runs),
        "pools": findings.pool_finding(runs),
        "resources": findings.resource_finding(runs),
    }
    return {anchor: sentence for anchor, sentence in sentences.items() if sentence}


def _scores(
    runs: Sequence[Run], arms: Mapping[str, Sequence[Run]], scores: pd.DataFrame, baseline: str | None
) -> dict[str, object]:
    paired = format_paired_table(runs, baseline)
    detection = format_detection_table(runs)
    kept_measured = any(score.of == "kept" for run in runs for record in run.records for score in record.scores)
    several = len(arms) > 1
    scoreboard = (
        "Heat map: the headline metrics of every arm at its last generation, darker where farther from the floor"
    )
    standing = "A row per arm: its values at the last generation with 95 % intervals, its generation 0, and the floor"
    return {
        "scoreboard": _as_svg(plot_scoreboard(runs), scoreboard) if several else None,
        "standing": _as_svg(plot_standing(runs), standing) if several else None,
        "arm_table": to_html(format_arm_table(runs, scores)),
        "score_notes": [*zero_note(runs), *refusals(runs)],
        "paired_title": paired_title(baseline),
        "paired_legend": PAIRED_LEGEND,
        "paired_table": to_html(paired) if len(paired) else None,
        "detection_table": to_html(detection) if len(detection) else None,
        "detection_legend": DETECTION_LEGEND,
        "no_pairs": NO_PAIRS if several and not len(paired) else None,
        "kept_table": to_html(format_arm_table(runs, arm_table(runs, "kept"))) if kept_measured else None,
    }


def _curves(runs: Sequence[Run], arms: Mapping[str, Sequence[Run]]) -> dict[str, object]:
    many = len(arms) > MAX_CURVES
    pictures: dict[str, Picture] = {}
    drawn = measured(runs, None)
    for metric in drawn:
        figure = plot_arm_curves(runs, metric) if many else plot_curves(runs, [metric], legend=False)
        words = f"{label(metric)} over generations, {direction(runs, metric)}"
        beside = "a small panel per arm" if many else "a curve per arm"
        pictures[metric] = _as_svg(figure, f"{words}: {beside}, and the real-vs-real floor")
    shown = [metric for metric in drawn if metric in _OPEN] if many else list(pictures)
    legend = "Legend: the arms, and the real-vs-real floor as a dashed line"
    return {
        "legend": None if many else _as_svg(plot_legend(runs), legend),
        "curves": [pictures[metric] for metric in shown or list(pictures)[:1]],
        "other_curves": [
            (label(metric), picture) for metric, picture in pictures.items() if shown and metric not in shown
        ],
        "not_drawn": ", ".join(label(metric) for metric in headline(runs) if metric not in drawn),
        "curve_tables": [(label(metric), to_html(format_curve_table(runs, metric))) for metric in headline(runs)],
    }


def _against(runs: Sequence[Run], setting: str | None) -> dict[str, object]:
    if setting is None:
        return {"setting_figure": None, "setting_table": None}
    words = f"Scores at the last generation against {setting}, and the real-vs-real floor"
    return {
        "setting_figure": _as_svg(plot_against(runs, setting), words),
        "setting_table": to_html(format_against_table(runs, setting)),
    }


def _verdicts(runs: Sequence[Run], arms: Mapping[str, Sequence[Run]], verdicts: pd.DataFrame) -> dict[str, object]:
    table = format_verdict_table(verdicts)
    judged = len(table) > 0
    return {
        "verdict_matrix": _verdict_rows(runs, arms, verdicts) if judged else None,
        "verdict_table": to_html(table.T.rename_axis("arm")) if judged else None,
        "verdict_legend": VERDICT_LEGEND,
        "verdict_rules": verdict_rules(),
        "verdict_reasons": to_html(format_verdict_reasons(verdicts).T.rename_axis("arm")) if judged else None,
        "sensitivity": to_html(sensitivity_table(runs)) if judged else None,
        "control_hint": control_hint(verdicts),
    }


def _verdict_rows(
    runs: Sequence[Run], arms: Mapping[str, Sequence[Run]], verdicts: pd.DataFrame
) -> dict[str, dict[str, str]]:
    """The decision about every arm, by arm and definition; also of the controls and of arms that were refused."""
    names = verdict_rules()
    rows = {arm: dict.fromkeys(names, "control" if is_control(members[0]) else "n/a") for arm, members in arms.items()}
    for arm, definition, decision in verdicts[["arm", "definition", "decision"]].itertuples(index=False, name=None):
        rows[arm][definition] = decision
    return rows | {arm: dict.fromkeys(names, "n/a") for arm in refused_arms(runs)}


def _images(runs: Sequence[Run], arms: Mapping[str, Sequence[Run]]) -> dict[str, object]:
    shown = {arm: members[0] for arm, members in arms.items() if members[0].records and members[0].has_images}
    last = last_sample_rows(runs) if len(shown) > 1 else {}
    num_images = _FEW_IMAGES if len(arms) > MAX_CURVES else None
    return {
        "last_samples": Grid("what all arms end with", _rows("Samples", last)) if last else None,
        "last_seed": next((run.seed for run in shown.values()), None),
        "samples": [
            (Grid(arm, _rows(f"Samples of {arm}", sample_rows(run), num_images)), run.seed)
            for arm, run in shown.items()
        ],
    }


def _class_shares(runs: Sequence[Run], arms: Mapping[str, Sequence[Run]]) -> dict[str, object]:
    known = [(arm, members[0]) for arm, members in arms.items() if has_class_shares(members[0])]
    if not known:
        return {"class_shares": []}
    if len(known) == 1:
        return {
            "class_shares": [_as_svg(plot_class_shares(known[0][1]), f"Class shares by generation of {known[0][0]}")]
        }
    return {
        "class_shares": [
            _as_svg(plot_class_share_maps(runs), "Heat maps of class shares by generation, a small map per arm")
        ]
    }


def _pools(runs: Sequence[Run]) -> dict[str, object]:
    groups = arms_by_pools(runs)
    num_generations = max(shares.shape[1] for _, shares in groups)
    body = {
        "; ".join(names): [
            _percent(shares[t].get("real", 0.0)) if t in shares.columns else "" for t in range(num_generations)
        ]
        for names, shares in groups
    }
    columns = [f"t = {t}" for t in range(num_generations)]
    table = pd.DataFrame.from_dict(body, orient="index", columns=columns).rename_axis("arms")
    words = "Stacked bars: the share of real images and of each generation's samples in every training pool"
    return {"pools": _as_svg(plot_pools(runs), words), "pool_table": to_html(table)}


def _configuration(runs: Sequence[Run], arms: Mapping[str, Sequence[Run]]) -> dict[str, object]:
    table = config_differences(arms)
    first = next(iter(arms))
    lists = {
        arm: {str(key): str(value) for key, value in table[arm].items() if value != table.loc[str(key), first]}
        for arm in arms
        if arm != first
    }
    few = len(arms) <= _MAX_COLUMNS
    return {
        "shared": _shared_choices(runs),
        "first_arm": first,
        "num_differing": len(table),
        "differences": to_html(table) if len(arms) > 1 and few else None,
        "difference_lists": lists if not few else {},
    }


def _reproduction(runs: Sequence[Run], arms: Mapping[str, Sequence[Run]]) -> dict[str, object]:
    in_order = [run for members in arms.values() for run in members]
    commands = Counter(str(run.info.get("command", "not recorded")) for run in in_order)
    return {
        "commands": [(command, _times(count)) for command, count in commands.items()],
        "environments": to_html(environments(runs)),
        "run_table": to_html(_run_table(arms)),
        "generation_tables": [
            (f"{arm}, seed {run.seed}", to_html(format_generation_table(run)))
            for arm, members in arms.items()
            for run in members
            if run.records
        ],
    }


def _title(runs: Sequence[Run]) -> str:
    shared = _shared_choices(runs)
    return (
        " · ".join(shared[group] for group in ("dataset", "generator", "sampler") if group in shared) or "several cells"
    )


def _shared_choices(runs: Sequence[Run]) -> dict[str, str]:
    first = runs[0].choices
    return {
        group: str(choice)
        for group, choice in first.items()
        if choice is not None and all(run.choices.get(group) == choice for run in runs)
    }


def _facts(runs: Sequence[Run], arms: Mapping[str, Sequence[Run]]) -> dict[str, str]:
    seeds = sorted({run.seed for run in runs})
    facts = {
        "runs": f"{len(runs)}, of which {sum(run.complete for run in runs)} complete",
        "arms": "; ".join(arms) if len(arms) <= MAX_CURVES else str(len(arms)),
        "seeds": f"{len(seeds)} ({', '.join(map(str, seeds))})",
        "last generation reached": _joined(len(run.records) - 1 for run in runs if run.records),
    }
    encoder = runs[0].info.get("encoder") or {}
    if "name" in encoder:
        facts["encoder"] = str(encoder["name"])
        for key, words in (("accuracy_control", "control set"), ("accuracy_reference", "reference")):
            if encoder.get(key) is not None:
                facts[f"its accuracy, {words}"] = f"{encoder[key]:.3f}"
    facts["images measured"] = _joined(score.num_samples for score in headline_scores(runs))
    facts["held-out images"] = _joined(score.num_reference for score in headline_scores(runs))
    return facts


def _joined(numbers: Iterable[int]) -> str:
    return ", ".join(f"{number:,}" for number in sorted(set(numbers))) or "none"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"


def _times(count: int) -> str:
    return f"{count} runs" if count > 1 else "1 run"


def _budget_table(classes: Sequence[BudgetClass]) -> pd.DataFrame:
    """What each budget is, in the entries in which they differ (in all, where there is one), and its arms."""
    names = list(differing_entries(classes)) or list(classes[0].budget)
    body = {
        str(i): {
            name: f"{of_class.budget[name]:,.3g}" if name.startswith("candidates") else f"{of_class.budget[name]:,}"
            for name in names
        }
        | {"arms": "; ".join(of_class.arms)}
        for i, of_class in enumerate(classes, start=1)
    }
    return pd.DataFrame.from_dict(body, orient="index").rename_axis("budget")


def _run_table(arms: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    body = {
        str(run.path): {
            "arm": arm,
            "seed": str(run.seed),
            "state": str(run.status["state"]),
            "generations": str(len(run.records)),
            "config": str(run.info.get("config_hash", ""))[:12],
        }
        for arm, members in arms.items()
        for run in members
    }
    return pd.DataFrame.from_dict(body, orient="index").rename_axis("run")


def _rows(words: str, rows: Mapping[str, np.ndarray], num_images: int | None = None) -> dict[str, Picture]:
    shown = {name: images[:num_images] for name, images in rows.items()}
    return {name: _as_png(montage(images), f"{words}, {name}: {len(images)} images") for name, images in shown.items()}


def _as_png(pixels: np.ndarray, alt: str) -> Picture:
    times = max(1, round(_IMAGE_HEIGHT / len(pixels)))
    grey = bool((pixels == pixels[..., :1]).all())
    image = Image.fromarray(np.repeat(np.repeat(pixels, times, axis=0), times, axis=1))
    buffer = io.BytesIO()
    (image.convert("L") if grey else image).save(buffer, format="png", optimize=True)
    return Picture(_data_uri("image/png", buffer.getvalue()), alt, image.width)


def _as_svg(figure: Figure, alt: str) -> Picture:
    buffer = io.StringIO()
    # A fixed salt and no date: equal runs give equal pages.
    with matplotlib.rc_context({"svg.hashsalt": "collapse-bench"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    # A hundredth of a point is finer than any screen, and a third of the size.
    small = _LONG_NUMBER.sub(r"\1", buffer.getvalue())
    return Picture(_data_uri("image/svg+xml", small.encode()), alt, round(96 * figure.get_figwidth()))


def _data_uri(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"
