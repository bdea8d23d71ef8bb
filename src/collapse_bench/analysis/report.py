"""One self-contained HTML page about a set of runs: tables, figures, rankings, configurations, commands, limits."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from collapse_bench.analysis.figures import (
    has_class_shares,
    highest_class_share,
    plot_against,
    plot_class_shares,
    plot_curves,
    plot_legend,
    plot_samples,
)
from collapse_bench.analysis.runs import Run, config_differences, group_by_arm, headline
from collapse_bench.analysis.tables import (
    CARD_LEGEND,
    RANKING_LEGEND,
    VERDICT_LEGEND,
    arm_table,
    control_hint,
    default_baseline,
    direction,
    format_against_table,
    format_arm_table,
    format_curve_table,
    format_generation_table,
    format_paired_table,
    format_ranking_table,
    format_verdict_reasons,
    format_verdict_table,
    label,
    ranking_notes,
    refusals,
    sensitivity_table,
    to_html,
    verdict_rules,
)
from collapse_bench.records import Score

_INTERVALS = {
    "t": "Student's t interval of the mean over seeds (95 %), used below 10 seeds",
    "bootstrap": (
        "percentile bootstrap of the interquartile mean over seeds (nominal 95 %, about 90 to 94 % with 10 seeds), "
        "used from 10 seeds on"
    ),
    "none": "no interval, because one seed says nothing about the spread (n = 1)",
}


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
        baseline: the arm that the others are compared with, seed by seed; ``None`` is ``default_baseline``.
        across_budgets: rank all arms against each other, also those of unequal budgets.
        setting: key of a numeric setting that the scores at the last generation are shown against; ``None`` for none.

    Raises:
        ConfigError: if no run has the setting, it is not a number, or all runs have the same one.
        RunDirError: if the runs do not compare, none has a generation yet, there is no such baseline, or a grid
            is damaged.
    """
    arms = group_by_arm(runs)
    ran = [run for run in runs if run.refused is None]
    against = default_baseline(runs) if baseline is None else baseline
    paired = format_paired_table(runs, against)
    verdicts = format_verdict_table(runs)
    highest = highest_class_share(runs)
    kept_measured = any(score.of == "kept" for run in runs for record in run.records for score in record.scores)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        title=_title(runs),
        facts=_facts(ran, arms),
        warnings=_warnings(ran, arms),
        arm_table=to_html(format_arm_table(runs)),
        refusals=refusals(runs),
        baseline=against,
        paired_table=to_html(paired) if len(paired) else None,
        kept_table=to_html(format_arm_table(runs, "kept")) if kept_measured else None,
        verdict_table=to_html(verdicts) if len(verdicts) else None,
        verdict_legend=VERDICT_LEGEND,
        verdict_rules=verdict_rules(),
        verdict_reasons=to_html(format_verdict_reasons(runs)) if len(verdicts) else None,
        sensitivity=to_html(sensitivity_table(runs)) if len(verdicts) else None,
        control_hint=control_hint(runs),
        curve_tables=[(label(metric), to_html(format_curve_table(runs, metric))) for metric in headline(runs)],
        legend=_as_svg(plot_legend(runs)),
        curves=[
            (f"{label(metric)} over generations, {direction(runs, metric)}", _as_svg(_curve(runs, metric)))
            for metric in headline(runs)
        ],
        setting=setting,
        setting_figure=None if setting is None else _as_svg(plot_against(runs, setting)),
        setting_table=None if setting is None else to_html(format_against_table(runs, setting)),
        samples=[
            (arm, members[0].seed, _as_png(plot_samples(members[0])))
            for arm, members in arms.items()
            if members[0].records and members[0].has_images
        ],
        class_shares=[
            (arm, members[0].seed, _as_svg(plot_class_shares(members[0], highest=highest)))
            for arm, members in arms.items()
            if has_class_shares(members[0])
        ],
        ranking_table=to_html(format_ranking_table(runs, across_budgets=across_budgets)),
        ranking_notes=ranking_notes(runs, across_budgets=across_budgets),
        ranking_legend=RANKING_LEGEND,
        card_legend=CARD_LEGEND,
        shared=_shared_choices(runs),
        differences=to_html(config_differences(arms)) if len(arms) > 1 else None,
        run_table=to_html(_run_table(arms)),
        generation_tables=[
            (f"{arm}, seed {run.seed}", to_html(format_generation_table(run)))
            for arm, members in arms.items()
            for run in members
            if run.records
        ],
        commands=[str(run.info.get("command", "not recorded")) for members in arms.values() for run in members],
        environments=to_html(_environments(ran)),
        intervals=[_INTERVALS[kind] for kind in sorted({i.kind for i in arm_table(runs)["value"] if i.n})],
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _curve(runs: Sequence[Run], metric: str) -> Figure:
    return plot_curves(runs, [metric], legend=False)


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
        "arms": "; ".join(arms),
        "seeds": f"{len(seeds)} ({', '.join(map(str, seeds))})",
        "last generation reached": _joined(len(run.records) - 1 for run in runs if run.records),
    }
    encoder = runs[0].info.get("encoder") or {}
    if "name" in encoder:
        facts["encoder"] = str(encoder["name"])
        for key, words in (("accuracy_control", "control set"), ("accuracy_reference", "reference")):
            if encoder.get(key) is not None:
                facts[f"encoder's accuracy, {words}"] = f"{encoder[key]:.3f}"
    facts["images measured"] = _joined(score.num_samples for score in _headline_scores(runs))
    facts["held-out images measured against"] = _joined(score.num_reference for score in _headline_scores(runs))
    return facts


def _warnings(runs: Sequence[Run], arms: Mapping[str, Sequence[Run]]) -> list[str]:
    warnings = []
    for run in runs:
        if not run.complete:
            reached = f"generation {len(run.records) - 1}" if run.records else "no generation"
            why = f": {run.status['error']}" if run.status.get("error") else ""
            warnings.append(f"{run.path} is incomplete ({run.status['state']}, reached {reached}){why}")
    if len({tuple(run.seed for run in members) for members in arms.values()}) > 1:
        warnings.append("The arms have different seeds; differences are taken over the seeds that two arms share.")
    if len({score.num_samples for score in _headline_scores(runs)}) > 1:
        warnings.append(
            "Different numbers of images were measured; metrics with a sample bias (FID first) do not compare then."
        )
    if len(_environments(runs).columns) > 1:
        warnings.append("The runs were made with different versions or machines; see the table of versions.")
    return warnings


def _headline_scores(runs: Sequence[Run]) -> list[Score]:
    names = headline(runs)
    return [
        score
        for run in runs
        for record in run.records
        for score in record.scores
        if score.of == "model" and score.metric in names
    ]


def _joined(numbers: Iterable[int]) -> str:
    return ", ".join(f"{number:,}" for number in sorted(set(numbers))) or "none"


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


def _environments(runs: Sequence[Run]) -> pd.DataFrame:
    found: dict[tuple[tuple[str, str], ...], int] = {}
    for run in runs:
        code = {"code": run.info["identity"].get("code", "")}
        settings = {**code, **run.info.get("versions", {}), **run.info.get("machine", {})}
        key = tuple((str(name), str(value)) for name, value in settings.items())
        found[key] = found.get(key, 0) + 1
    names = list(dict.fromkeys(name for key in found for name, _ in key))
    columns = [[dict(key).get(name, "") for name in names] for key in found]
    heads = [f"{count} runs" if count > 1 else "1 run" for count in found.values()]
    table = pd.DataFrame(columns, columns=pd.Index(names, name="version or machine")).T
    table.columns = heads
    return table


def _as_svg(figure: Figure) -> str:
    # A fixed salt and no date: equal runs give equal pages.
    with matplotlib.rc_context({"svg.hashsalt": "collapse-bench"}):
        return _data_uri(figure, "image/svg+xml", format="svg", metadata={"Date": None})


def _as_png(figure: Figure) -> str:
    return _data_uri(figure, "image/png", format="png", dpi=130)


def _data_uri(figure: Figure, mime: str, **options: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
