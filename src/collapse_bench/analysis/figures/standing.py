"""Where the arms stand at their last generation: values with intervals, and all headline metrics at one glance."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from collapse_bench.analysis.curves import badness
from collapse_bench.analysis.figures.families import arm_families, name_in_family
from collapse_bench.analysis.figures.style import FLOOR_STYLE, OKABE_ITO, SMALL, largest_shown, measured
from collapse_bench.analysis.ranking import budget_classes
from collapse_bench.analysis.runs import Run, better, group_by_arm, headline
from collapse_bench.analysis.tables import FLOOR, RANKED, arm_table, arrow, direction, format_value, label

_ROW = 0.2
"""Height of an arm, in inches."""

_LONG_NAME = 46
_COLOUR = OKABE_ITO[0]
_START_STYLE: dict[str, Any] = {
    "color": "#555555",
    "linestyle": "",
    "marker": "D",
    "markersize": 3.5,
    "markerfacecolor": "white",
}


def plot_standing(runs: Sequence[Run], metrics: Sequence[str] | None = None, *, of: str = "model") -> Figure:
    """A row per arm, family by family and the best first: its value at the last generation, with the 95 % interval.

    One panel per metric. The dashed line and its band are the real-vs-real floor; a hollow diamond is the arm's own
    generation 0; the number beside a name is the budget class, as in the table of ranks. An arrow marks a value that is
    so far off that the others would not be told apart on its scale.

    Args:
        runs: runs that compare.
        metrics: names; ``None`` is those of ``RANKED`` that were measured, or else the first headline metric. The
            first decides the order.
        of: ``"model"`` for fresh samples, ``"kept"`` for the curated output.

    Raises:
        RunDirError: if the runs do not compare, lack a metric, or none has a generation yet.
    """
    known = {name for run in runs for name in run.metrics}
    names = list(metrics or [name for name in RANKED if name in known] or headline(runs)[:1])
    measured(runs, names)
    table = _standing(runs, names, of)
    rows = _rows_of_families(runs, table, names[0])
    numbers = {arm: i for i, of_class in enumerate(budget_classes(runs), start=1) for arm in of_class.arms}
    widest = max(len(text) for text, _ in rows)
    left, height = 0.065 * min(widest, _LONG_NAME) + 0.5, _ROW * len(rows) + 0.95
    width = left + 2.35 * len(names) + 0.15
    figure = Figure(figsize=(width, height))
    for i, metric in enumerate(names):
        x = left + 2.35 * i
        axes = figure.add_axes((x / width, 0.42 / height, 2.15 / width, _ROW * len(rows) / height))
        _draw_standing(axes, runs, rows, table, metric)
        axes.set_title(f"{label(metric)}  ({direction(runs, metric)})", fontsize=SMALL + 0.5, loc="left")
        axes.set_yticks(range(len(rows)), _texts(rows, numbers) if i == 0 else [""] * len(rows), fontsize=SMALL)
        if i == 0:
            for text, (_, arm) in zip(axes.get_yticklabels(), rows, strict=True):
                text.set_fontweight("bold" if arm is None else "normal")
    handles = [
        Line2D([], [], color=_COLOUR, marker="o", markersize=5, linewidth=1.4, label="over seeds, 95 % interval"),
        Line2D([], [], label="its generation 0", **_START_STYLE),
        Line2D([], [], label=f"{FLOOR} (band: 2 sd)", **FLOOR_STYLE),
        Line2D([], [], linestyle="", label="[1]: the arm's budget"),
    ]
    figure.legend(handles=handles, loc="upper left", ncols=4, fontsize=SMALL, frameon=False, borderaxespad=0.3)
    return figure


def plot_scoreboard(runs: Sequence[Run], metrics: Sequence[str] | None = None, *, of: str = "model") -> Figure:
    """A heat map: a row per arm, a column per metric, at the last generation, the floor on top.

    The darker a cell, the farther the value is from the real-vs-real floor on its worse side, in standard deviations of
    the floor over random splits of the held-out images, on a logarithmic scale. Cells of a metric whose floor has no
    spread are white, those of a number that there is not are hatched.

    Args:
        runs: runs that compare.
        metrics: names; ``None`` is the headline metrics that the runs have.
        of: ``"model"`` for fresh samples, ``"kept"`` for the curated output.

    Raises:
        RunDirError: if the runs do not compare, lack a metric, or none has a generation yet.
    """
    names = measured(runs, metrics)
    table = _standing(runs, names, of)
    rows: list[tuple[str, str | None]] = [(FLOOR, None), *_rows_of_families(runs, table, None)]
    left, width = 0.065 * min(max(len(text) for text, _ in rows), _LONG_NAME) + 0.25, 0.72
    size = (left + width * len(names) + 1.1, 0.23 * len(rows) + 1.75)
    figure = Figure(figsize=size)
    place = (left / size[0], 0.6 / size[1], width * len(names) / size[0], 0.23 * len(rows) / size[1])
    axes = figure.add_axes(place)
    norm, colours = LogNorm(1, 100), matplotlib.colormaps["YlOrBr"].resampled(256)
    for column, metric in enumerate(names):
        floor = table.loc[table["metric"] == metric, "floor"].dropna()
        for row, (_, arm) in enumerate(rows):
            if arm is None:
                if row == 0 and len(floor):
                    _write(axes, column, row, format_value(metric, float(floor.iloc[0])), weight="bold")
                continue
            cell = table[(table["arm"] == arm) & (table["metric"] == metric)]
            centre = float(cell["centre"].iloc[0]) if len(cell) else math.nan
            if not math.isfinite(centre):
                axes.add_patch(_tile(column, row, facecolor="white", hatch="////", edgecolor="#bbbbbb"))
                continue
            off = float(cell["off"].iloc[0])
            # The upper end of the map is too dark for dark text.
            colour = colours(0.62 * float(norm(max(off, 1.0), clip=True))) if math.isfinite(off) else "white"
            axes.add_patch(_tile(column, row, facecolor=colour, edgecolor="white"))
            _write(axes, column, row, format_value(metric, centre))
    axes.set_xlim(0, len(names))
    axes.set_ylim(len(rows), 0)
    heads = [f"{label(metric)} {arrow(runs, metric)}" for metric in names]
    axes.set_xticks(np.arange(len(names)) + 0.5, heads, fontsize=SMALL, rotation=35, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set_yticks(np.arange(len(rows)) + 0.5, [_shortened(text) for text, _ in rows], fontsize=SMALL)
    for i, (text, (_, arm)) in enumerate(zip(axes.get_yticklabels(), rows, strict=True)):
        text.set_fontweight("bold" if arm is None or i == 0 else "normal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    steps = (1, 3, 10, 30, 100)
    shades = [colours(0.62 * float(norm(step))) for step in steps]
    handles = [Patch(facecolor=c, edgecolor="#999999", label=str(s)) for c, s in zip(shades, steps, strict=True)]
    handles[0].set_label("at most 1")
    handles[-1].set_label("100 or more")
    figure.legend(
        handles=handles,
        title="distance from the floor on the worse side, in standard deviations of the floor",
        loc="lower left",
        bbox_to_anchor=(0.01, 0.0),
        ncols=len(handles),
        fontsize=7,
        title_fontsize=7,
        frameon=False,
        alignment="left",
        borderaxespad=0.2,
    )
    return figure


def _standing(runs: Sequence[Run], names: Sequence[str], of: str) -> pd.DataFrame:
    """``arm_table`` with ``centre``, the badness of it (higher is worse), and ``off``: sd of the floor beyond it."""
    table = arm_table(runs, of)
    table = table[table["metric"].isin(names)].copy()
    table["centre"] = [value.centre if value.n else math.nan for value in table["value"]]
    table["bad"] = [_bad(runs, row, row["centre"]) for row in table.to_dict("records")]
    at_floor = [_bad(runs, row, row["floor"]) for row in table.to_dict("records")]
    spread = table["floor_spread"].where((table["floor_spread"] > 0) & np.isfinite(table["floor_spread"]))
    table["off"] = (table["bad"] - at_floor) / spread
    return table


def _bad(runs: Sequence[Run], row: Mapping[Hashable, Any], value: float) -> float:
    return float(badness(np.array(value), better(runs, row["metric"]), row["floor"]))


def _rows_of_families(runs: Sequence[Run], table: pd.DataFrame, by: str | None) -> list[tuple[str, str | None]]:
    """Text and arm of each row, the names of families (without an arm) before their arms; the best arm first."""
    started = {arm: members for arm, members in group_by_arm(runs).items() if any(run.records for run in members)}
    bad = table.set_index(["metric", "arm"])["bad"].to_dict()
    rows: list[tuple[str, str | None]] = []
    for family, arms in arm_families(started).items():
        if family:
            rows.append((family, None))
        names = list(arms)
        if by is not None:
            names.sort(key=lambda arm: bad[by, arm] if math.isfinite(bad.get((by, arm), math.nan)) else math.inf)
        rows += [(name_in_family(arm, arms[arm][0], family), arm) for arm in names]
    return rows


def _draw_standing(
    axes: Axes, runs: Sequence[Run], rows: Sequence[tuple[str, str | None]], table: pd.DataFrame, metric: str
) -> None:
    cells = {row["arm"]: row for row in table[table["metric"] == metric].to_dict("records")}
    centres = np.array([row["centre"] for row in cells.values()])
    floor = next((row["floor"] for row in cells.values() if math.isfinite(row["floor"])), math.nan)
    spread = next((row["floor_spread"] for row in cells.values() if math.isfinite(row["floor_spread"])), math.nan)
    starts = {arm: row["start"].centre if row["start"].n else math.nan for arm, row in cells.items()}
    low, high = _scale([*centres, floor, *starts.values()])
    if math.isfinite(floor):
        axes.axvline(floor, zorder=1, label=FLOOR, **FLOOR_STYLE)
    if math.isfinite(spread):
        axes.axvspan(floor - 2 * spread, floor + 2 * spread, color=FLOOR_STYLE["color"], alpha=0.12, linewidth=0)
    for y, (_, arm) in enumerate(rows):
        if arm is None or arm not in cells:
            continue
        axes.axhline(y, color="#ededed", linewidth=0.6, zorder=0)
        value = cells[arm]["value"]
        if not value.n:
            axes.text(0.01, y, "n/a", transform=axes.get_yaxis_transform(), fontsize=7, va="center", color="#555555")
            continue
        axes.plot(starts[arm], y, zorder=2, **_START_STYLE)
        if value.low is not None and value.high is not None:
            axes.plot([value.low, value.high], [y, y], color=_COLOUR, linewidth=1.4, zorder=3)
        if low <= value.centre <= high:
            axes.plot(value.centre, y, marker="o", markersize=4.5, color=_COLOUR, zorder=4)
        else:
            _point_outside(axes, y, format_value(metric, value.centre), to_the_right=value.centre > high)
    axes.set_xlim(low, high)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=7, length=2)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _point_outside(axes: Axes, y: int, text: str, *, to_the_right: bool) -> None:
    x, marker, side = (1.0, ">", "right") if to_the_right else (0.0, "<", "left")
    place = axes.get_yaxis_transform()
    axes.plot(x, y, marker=marker, markersize=6, color=_COLOUR, transform=place, clip_on=False, zorder=4)
    box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    axes.text(
        abs(x - 0.03), y, text, transform=place, ha=side, va="center", fontsize=7, color=_COLOUR, bbox=box, zorder=5
    )


def _scale(values: Sequence[float]) -> tuple[float, float]:
    known = np.array([value for value in values if math.isfinite(value)])
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), largest_shown(known)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
    return low - margin, high + margin


def _texts(rows: Sequence[tuple[str, str | None]], numbers: dict[str, int]) -> list[str]:
    return [_shortened(text) + (f"  [{numbers[arm]}]" if arm in numbers else "") for text, arm in rows]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONG_NAME else f"{text[: _LONG_NAME - 1]}…"


def _tile(column: int, row: int, **style: Any) -> Rectangle:
    return Rectangle((column, row), 1, 1, linewidth=1.0, **style)


def _write(axes: Axes, column: int, row: int, text: str, **style: Any) -> None:
    axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7.5, **style)
