"""The score at the last generation against one numeric setting."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation, Transform

from collapse_bench.analysis.figures.style import (
    CROSS_STYLE,
    LABEL_HEIGHT,
    SMALL,
    Label,
    draw_floors,
    ends,
    finish_panel,
    floor_handles,
    line_styles,
    measured,
    small_multiples,
)
from collapse_bench.analysis.runs import Run
from collapse_bench.analysis.statistics import SeedInterval
from collapse_bench.analysis.tables import against_table

# A setting whose values span more than this factor has a logarithmic axis.
_LINEAR_SPAN = 20
# Width of an interval at the right end, distance of ticks: fractions of the axis.
_INTERVAL_WIDTH = 0.025
_TICK_GAP = 0.1


def plot_against(
    runs: Sequence[Run], setting: str, metrics: Sequence[str] | None = None, *, of: str = "model"
) -> Figure:
    """Small multiples, one panel per metric: the score at the last generation against one numeric setting.

    A line per combination of what else differs between the runs. Its points are what ``summarize`` gives over seeds,
    with the 95 % interval, and thin dots are the seeds; points of several lines at one value stand side by side. Arms
    without the setting are horizontal lines with their interval at the right end, labelled beside the panel. A cross
    marks arms of which a run is incomplete. Axes are scaled to the points: an interval that leaves its panel is longer.

    Args:
        runs: runs that compare.
        setting: dotted key of the setting, as in ``Run.settings``; its axis is logarithmic where the values are
            positive and span more than a factor of 20.
        metrics: names; ``None`` is the headline metrics that the runs have.
        of: ``"model"`` for fresh samples, ``"kept"`` for the curated output.

    Raises:
        ConfigError: if no run has the setting, it is not a number, or all runs have the same one.
        RunDirError: if the runs do not compare, or lack a metric.
    """
    names = measured(runs, metrics)
    table = against_table(runs, setting, names, of)
    styles = dict(zip(table["line"].unique(), line_styles(), strict=False))
    handles = [
        Line2D([], [], label=f"{line} (n = {_range(rows['num_seeds'])})", **styles[line])
        for line, rows in table[table["setting"].notna()].groupby("line", sort=False)
    ]
    handles += floor_handles(runs)
    if not table["complete"].all():
        handles.append(Line2D([], [], label="with an incomplete run", **CROSS_STYLE))
    beside = table.loc[table["setting"].isna() & (table["metric"] == names[0]), "line"]
    width = 4.2 + 0.045 * max((len(_flat_label(line, 1)) for line in beside), default=0)
    height = 2.7 * max(1.0, LABEL_HEIGHT * (len(beside) + 1))
    figure, panels = small_multiples(runs, names, (width, height), 2, handles)
    for axes, metric in zip(panels, names, strict=True):
        _draw_against(axes, runs, table[table["metric"] == metric], styles)
        axes.set_xlabel(setting, fontsize=SMALL)
        axes.set_ylabel(f"at generation {_range(table['generation'])}", fontsize=SMALL)
    return figure


def _draw_against(axes: Axes, runs: Sequence[Run], rows: pd.DataFrame, styles: Mapping[str, Any]) -> None:
    inside: list[float] = []
    beside: list[Label] = []
    on_lines = rows[rows["setting"].notna()]
    lines = on_lines["line"].unique()
    values = np.unique(on_lines["setting"])
    for number, line in enumerate(lines):
        style, points = styles[line], on_lines[on_lines["line"] == line]
        # Side by side, by a few points of print: the positions in the data stay the values of the setting.
        step = min(7.0, 28.0 / len(lines)) / 72
        shift = (number - (len(lines) - 1) / 2) * step
        place = axes.transData + ScaledTranslation(shift, 0, axes.figure.dpi_scale_trans)
        place_of_seeds = place + ScaledTranslation(step / 2, 0, axes.figure.dpi_scale_trans)
        _draw_intervals(axes, points["setting"], list(points["score"]), color=style["color"], transform=place)
        axes.plot(points["setting"], [score.centre for score in points["score"]], transform=place, **style)
        for point in points.to_dict("records"):
            seeds = list(point["scores"].values())
            if len(seeds) > 1:
                dots = {"marker": ".", "markersize": 4, "linestyle": "", "alpha": 0.6, "color": style["color"]}
                axes.plot([point["setting"]] * len(seeds), seeds, transform=place_of_seeds, **dots)
            if not point["complete"]:
                axes.plot(point["setting"], point["score"].centre, transform=place, **CROSS_STYLE)
            inside += [point["score"].centre, *seeds]
    flat = [row for row in rows[rows["setting"].isna()].to_dict("records") if row["score"].n]
    room = min(_INTERVAL_WIDTH * len(flat), 0.3)
    for number, row in enumerate(flat):
        score, style = row["score"], styles[row["line"]]
        axes.axhline(score.centre, color=style["color"], linestyle=style["linestyle"], linewidth=1.4, zorder=1.5)
        place = {"color": style["color"], "transform": axes.get_yaxis_transform()}
        _draw_intervals(axes, [1 - room * (1 - number / len(flat))], [score], **place)
        beside.append((score.centre, _flat_label(row["line"], score.n, row["complete"]), style["color"]))
        inside.append(score.centre)
    levels, of_floors = draw_floors(axes, runs, rows["metric"].iloc[0])
    finish_panel(axes, [*inside, *levels], [*beside, *of_floors])
    _scale_setting(axes, values, room)


def _draw_intervals(
    axes: Axes, x: Sequence[float] | pd.Series, intervals: Sequence[SeedInterval], *, color: str, transform: Transform
) -> None:
    centre = np.array([interval.centre for interval in intervals])
    low, high = np.array([ends(interval) for interval in intervals]).T
    lengths = np.maximum([centre - low, high - centre], 0)  # rounding may put an end on the wrong side
    axes.errorbar(x, centre, lengths, fmt="none", ecolor=color, elinewidth=1.0, capsize=2.5, transform=transform)


def _flat_label(line: str, n: int, complete: bool = True) -> str:
    # The last part of a key says enough beside a panel.
    short = re.sub(r"[\w.]+\.(\w+=)", r"\1", line)
    return f"{short}, n = {n}" + ("" if complete else ", incomplete")


def _scale_setting(axes: Axes, values: np.ndarray, room: float) -> None:
    """The axis of the setting: room at the right end, and its values as ticks, labelled where the labels have room."""
    logarithmic = values[0] > 0 and values[-1] > _LINEAR_SPAN * values[0]
    places = np.log(values) if logarithmic else values
    span = places[-1] - places[0]
    labelled = [0]
    for k in range(1, len(values)):
        if places[k] - places[labelled[-1]] >= _TICK_GAP * span:
            labelled.append(k)
    ends = np.array([places[0] - 0.08 * span, places[-1] + (0.08 + room) / (1 - room) * span])
    if logarithmic:
        axes.set_xscale("log")
        ends = np.exp(ends)
    axes.set_xlim(*ends)
    axes.set_xticks(values[labelled], [f"{value:g}" for value in values[labelled]])
    axes.set_xticks(values, [""] * len(values), minor=True)


def _range(numbers: Sequence[int] | pd.Series) -> str:
    lowest, highest = min(numbers), max(numbers)
    return str(lowest) if lowest == highest else f"{lowest} to {highest}"
