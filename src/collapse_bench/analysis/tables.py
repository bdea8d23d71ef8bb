"""Tables: one run generation by generation, many runs arm by arm; as frames, text, Markdown and HTML."""

import html
import math
import re
from collections.abc import Sequence

import pandas as pd

from collapse_bench.analysis.runs import (
    Run,
    better,
    group_by_arm,
    headline,
    mean_floor,
    total_spent,
)
from collapse_bench.analysis.statistics import SeedInterval, paired_difference, summarize
from collapse_bench.errors import RunDirError

FLOOR = "real-vs-real floor"
"""Label of the row, line or column that shows real images scored as samples are."""

_LABELS = {
    "fid": "FID",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "within_class_variance_ratio": "within-class variance ratio",
    "tail_mass": "tail mass",
    "class_kl": "class KL",
    "lowest_class_share": "lowest class share",
    "num_classes_covered": "classes covered",
}
_DIRECTIONS = {
    "lower": "lower is better",
    "higher": "higher is better",
    "one": "1 is ideal",
    "floor": "best at the floor",
}
_ARROWS = {"lower": "↓", "higher": "↑", "one": "→ 1", "floor": "→ floor"}
_SIGNIFICANT = ("fid", "kid", "class_kl")
_MISSING = "n/a"


def label(metric: str) -> str:
    """The name of a metric in words."""
    return _LABELS.get(metric, metric.replace("_", " "))


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
    centre = _fixed(interval.centre, decimals, signed=signed)
    if interval.low is None or interval.high is None:
        return centre
    if interval.kind == "t":
        return f"{centre} ± {_fixed((interval.high - interval.low) / 2, decimals)}"
    ends = [_fixed(end, decimals, signed=signed) for end in (interval.low, interval.high)]
    return f"{centre} [{ends[0]}, {ends[1]}]"


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


def arm_table(runs: Sequence[Run], of: str = "model") -> pd.DataFrame:
    """The headline metrics of every arm at its last generation, and the change since generation 0.

    The last generation of an arm is the last that any of its seeds has reached; only the seeds that reached it count.

    Returns:
        One row per (arm, metric) with ``generation`` (the last), ``num_seeds`` (of the arm), ``value`` and ``change``
        (each a ``SeedInterval``, with the seeds it stands on) and ``floor``.

    Raises:
        RunDirError: if the runs do not compare, or none has a generation yet.
    """
    metrics = headline(runs)
    rows = []
    for arm, members in _started(runs).items():
        last = _last_generation(members)
        for metric in metrics:
            value, first = _at(members, last, metric, of), _at(members, 0, metric, of)
            rows.append(
                {
                    "arm": arm,
                    "metric": metric,
                    "generation": last,
                    "num_seeds": len(members),
                    "value": summarize(list(value.values())),
                    "change": summarize([value[seed] - first[seed] for seed in value.keys() & first.keys()]),
                    "floor": mean_floor(members, metric),
                }
            )
    return pd.DataFrame(rows)


def format_arm_table(runs: Sequence[Run], of: str = "model") -> pd.DataFrame:
    """``arm_table`` as text: the floor, then one row per arm, cells of two lines (value, change since generation 0)."""
    table = arm_table(runs, of)
    floors: dict[str, list[float]] = {}
    body: dict[str, dict[str, str]] = {FLOOR: {"last": "", "seeds": ""}}
    for arm, rows in table.groupby("arm", sort=False):
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
            floors.setdefault(metric, []).append(row["floor"])
        body[str(arm)] = cells
    body[FLOOR] |= {_header(runs, metric): _format_floors(metric, values) for metric, values in floors.items()}
    return pd.DataFrame.from_dict(body, orient="index").rename_axis("arm")


def default_baseline(runs: Sequence[Run]) -> str:
    """The arm that the others are compared with: the first in the order of ``group_by_arm``."""
    return next(iter(_started(runs)))


def paired_table(runs: Sequence[Run], baseline: str, of: str = "model") -> pd.DataFrame:
    """Each arm minus the baseline arm, seed by seed, at the last generation that both have reached.

    Returns:
        One row per (arm, metric) with ``generation`` and ``difference``, a ``SeedInterval`` over the common seeds.

    Raises:
        RunDirError: if there is no such arm, or the runs do not compare.
    """
    arms = _started(runs)
    if baseline not in arms:
        raise RunDirError(f"no arm {baseline!r}; the arms are: {'; '.join(arms)}")
    rows = []
    for arm, members in arms.items():
        if arm == baseline:
            continue
        last = min(_last_generation(members), _last_generation(arms[baseline]))
        for metric in headline(runs):
            difference = paired_difference(_at(members, last, metric, of), _at(arms[baseline], last, metric, of))
            rows.append({"arm": arm, "metric": metric, "generation": last, "difference": difference})
    return pd.DataFrame(rows, columns=["arm", "metric", "generation", "difference"])


def format_paired_table(runs: Sequence[Run], baseline: str, of: str = "model") -> pd.DataFrame:
    """``paired_table`` as text: one row per arm; empty where the baseline is the only arm."""
    table = paired_table(runs, baseline, of)
    body = {}
    for arm, rows in table.groupby("arm", sort=False):
        most = max(interval.n for interval in rows["difference"])
        cells = {"at": str(rows["generation"].iloc[0]), "pairs": str(most)}
        for metric, interval in zip(rows["metric"], rows["difference"], strict=True):
            few = f" (n = {interval.n})" if 0 < interval.n < most else ""
            cells[_header(runs, metric)] = f"{format_interval(metric, interval, signed=True)}{few}"
        body[str(arm)] = cells
    return pd.DataFrame.from_dict(body, orient="index").rename_axis("arm")


def format_generation_table(run: Run, of: str = "model") -> pd.DataFrame:
    """``generation_table`` as text."""
    table = generation_table(run, of)
    text = pd.DataFrame(
        {_header([run], metric): [format_value(metric, v) for v in table[metric]] for metric in table.columns},
        index=table.index.map(str),
    )
    return text.rename_axis("generation")


def resource_table(runs: Sequence[Run]) -> pd.DataFrame:
    """What each arm cost as text: totals of a chain, as the mean over its runs."""
    body = {}
    for arm, members in _started(runs).items():
        spent = [total_spent(run) for run in members]
        candidates, kept = sum(s.candidates for s in spent), sum(s.kept for s in spent)
        seen = {part: max(s.real_images_seen.get(part, 0) for s in spent) for s in spent for part in s.real_images_seen}
        phases = dict.fromkeys(phase for s in spent for phase in s.seconds)
        mean_s = {phase: sum(s.seconds.get(phase, 0.0) for s in spent) / len(spent) for phase in phases}
        body[arm] = {
            "runs": str(len(members)),
            "generations": _range([len(run.records) for run in members]),
            "gradient steps": f"{sum(s.gradient_steps for s in spent) / len(spent):,.0f}",
            "networks trained": f"{sum(s.networks_trained for s in spent) / len(spent):.3g}",
            "candidates per kept image": f"{candidates / kept:.3g}" if kept else _MISSING,
            "network evaluations per sample": str(max(s.network_evaluations_per_sample for s in spent)),
            "real images seen": "\n".join(f"{part} {count:,}" for part, count in seen.items()) or _MISSING,
            "reused from the store": f"{sum(len(s.reused) for s in spent) / len(spent):.3g}",
            "seconds": "\n".join(f"{phase} {mean_s[phase]:,.1f}" for phase in phases) or _MISSING,
        }
    return pd.DataFrame.from_dict(body, orient="index").rename_axis("arm")


def to_text(table: pd.DataFrame, width: int = 120) -> str:
    """A table of text for the terminal; columns that do not fit in ``width`` characters continue below."""
    first = [str(table.index.name or ""), *map(str, table.index)]
    lines = [max(len(cell.split("\n")) for cell in row) for row in table.itertuples(index=False, name=None)]
    names = _stack(first[:1], [2]) + _stack(first[1:], lines)
    blocks: list[list[list[str]]] = []
    room = 0
    for name in table.columns:
        # Headers break before the arrow, so that columns are as narrow as their numbers.
        column = _stack(_break_header(str(name)), [2]) + _stack(table[name], lines)
        need = 2 + max(map(len, column))
        if not blocks or need > room:
            blocks.append([names])
            room = width - max(map(len, names))
        blocks[-1].append(column)
        room -= need
    return "\n\n".join("\n".join(_justify(row, block) for row in zip(*block, strict=True)) for block in blocks)


def to_markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown, as GitHub reads it."""
    rows = [[str(table.index.name or ""), *map(str, table.columns)], ["---", *["---:"] * len(table.columns)]]
    rows += [[str(name), *cells] for name, *cells in table.itertuples(name=None)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in row) + " |" for row in rows
    )


def to_html(table: pd.DataFrame) -> str:
    """A table of text as HTML; the second and later lines of a cell are set smaller."""

    def cell(text: str) -> str:
        # An interval may go to the next line as a whole.
        whole = re.sub(r"(\[[^\], ]+), ", r"\1,&nbsp;", html.escape(text)).replace("± ", "±&nbsp;")
        first, *rest = whole.split("\n")
        return "".join([f"<b>{first}</b>" if rest else first, *(f"<small>{line}</small>" for line in rest)])

    def name(text: str) -> str:
        # Long names may break after an underscore or a slash, never between an arrow and what it points at.
        return html.escape(text).replace("_", "_<wbr>").replace("/", "/<wbr>").replace("→ ", "→&nbsp;")

    head = "".join(f'<th scope="col">{name(str(column))}</th>' for column in [table.index.name or "", *table.columns])
    body = "".join(
        f'<tr><th scope="row">{name(str(row))}</th>{"".join(f"<td>{cell(c)}</td>" for c in cells)}</tr>\n'
        for row, *cells in table.itertuples(name=None)
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _started(runs: Sequence[Run]) -> dict[str, list[Run]]:
    arms = {arm: members for arm, members in group_by_arm(runs).items() if any(run.records for run in members)}
    if not arms:
        raise RunDirError(f"{runs[0].path if runs else 'no runs'}: no generation is committed yet")
    return arms


def _last_generation(members: Sequence[Run]) -> int:
    return max(len(run.records) for run in members) - 1


def _at(members: Sequence[Run], generation: int, metric: str, of: str) -> dict[int, float]:
    values = {run.seed: run.value(generation, metric, of) for run in members}
    return {seed: value for seed, value in values.items() if math.isfinite(value)}


def _format_floors(metric: str, floors: Sequence[float]) -> str:
    # Arms that measure different numbers of images have different floors.
    known = sorted(floor for floor in floors if math.isfinite(floor))
    texts = [format_value(metric, floor) for floor in known] or [_MISSING]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def _range(counts: Sequence[int]) -> str:
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _header(runs: Sequence[Run], metric: str) -> str:
    return f"{label(metric)} {arrow(runs, metric)}"


def _num_decimals(metric: str, value: float) -> int:
    if not math.isfinite(value):
        return 0
    if metric.startswith("num_"):
        return 0 if value == round(value) else 1
    if metric in _SIGNIFICANT:
        return 3 if value == 0 else min(max(2 - math.floor(math.log10(abs(value))), 0), 5)
    return 3


def _fixed(value: float, decimals: int, *, signed: bool = False) -> str:
    if not math.isfinite(value):
        return _MISSING
    text = f"{value:+,.{decimals}f}" if signed else f"{value:,.{decimals}f}"
    # A rounded zero has no sign.
    return text.lstrip("+-") if float(text.replace(",", "")) == 0 else text


def _break_header(header: str) -> list[str]:
    words = header.split(" ")
    half = next((i for i in range(1, len(words)) if len(" ".join(words[:i])) * 2 >= len(header)), len(words))
    return ["\n".join((" ".join(words[:half]), " ".join(words[half:])))]


def _stack(cells: Sequence[str] | pd.Series, lines: Sequence[int]) -> list[str]:
    stacked: list[str] = []
    for cell, count in zip(cells, lines, strict=True):
        parts = cell.split("\n")
        stacked += parts + [""] * (count - len(parts))
    return stacked


def _justify(row: Sequence[str], block: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in block]
    first, *rest = row
    return "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]).rstrip()
