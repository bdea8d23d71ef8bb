"""Metrics over the generations: all arms in one panel per metric, or one small panel per arm."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from collapse_bench.analysis.figures.families import arm_families, name_in_family, undone
from collapse_bench.analysis.figures.style import (
    CROSS_STYLE,
    FLOOR_STYLE,
    OKABE_ITO,
    SMALL,
    draw_floors,
    ends,
    finish_panel,
    floor_handles,
    largest_shown,
    line_styles,
    measured,
    panels_of_families,
    small_multiples,
    title_panel,
)
from collapse_bench.analysis.runs import Run, group_by_arm, seed_curves
from collapse_bench.analysis.statistics import summarize
from collapse_bench.analysis.tables import FLOOR, direction, format_value, label

_MIN_SEEDS_OF_BAND = 3
_ARM, _UNDONE, _OTHERS = OKABE_ITO[0], OKABE_ITO[1], "#c4c9cf"
MAX_CURVES = 7
"""Most arms that one panel can show: as many as there are colours."""


def plot_curves(
    runs: Sequence[Run],
    metrics: Sequence[str] | None = None,
    *,
    of: str = "model",
    num_columns: int = 2,
    legend: bool = True,
) -> Figure:
    """Small multiples, one panel per metric: a curve per arm over the generations, and the floor.

    Thick lines are what ``summarize`` gives over seeds, bands its 95 % interval (from three seeds on; that of two is 13
    times as wide as they are apart), thin lines the seeds. A cross ends the line of a run that is incomplete. Axes are
    scaled to the lines: a band that leaves its panel is wider than it.

    Args:
        runs: runs that compare.
        metrics: names; ``None`` is the headline metrics that the runs have.
        of: ``"model"`` for fresh samples, ``"kept"`` for the curated output.
        num_columns: panels side by side.
        legend: whether the legend is drawn above the panels.

    Raises:
        RunDirError: if the runs do not compare, or lack a metric.
    """
    arms = group_by_arm(runs)
    names = measured(runs, metrics)
    figure, panels = small_multiples(runs, names, (4.2, 2.7), num_columns, _legend_handles(arms) if legend else [])
    for axes, metric in zip(panels, names, strict=True):
        _draw_panel(axes, arms, metric, of)
    return figure


def plot_legend(runs: Sequence[Run]) -> Figure:
    """The legend of ``plot_curves`` alone, one entry below the other."""
    handles = _legend_handles(group_by_arm(runs))
    figure = Figure(figsize=(5.5, 0.24 * len(handles) + 0.1))
    figure.legend(handles=handles, loc="center left", fontsize=9, frameon=False, borderaxespad=0)
    return figure


def plot_arm_curves(runs: Sequence[Run], metric: str, *, of: str = "model", num_columns: int = 6) -> Figure:
    """One metric, one small panel per arm, family by family, for more arms than one panel can show.

    In each panel the arm is thick, with its 95 % interval over seeds and its seeds as thin lines; behind it are the
    other arms of its family, in grey, and dashed the arm of the same regime without a mitigation. All panels have one
    scale. Curves that are far from most others leave their panel at the top. The number in the corner is the arm's last
    value.

    Args:
        runs: runs that compare.
        metric: its name.
        of: ``"model"`` for fresh samples, ``"kept"`` for the curated output.
        num_columns: panels side by side.

    Raises:
        RunDirError: if the runs do not compare, or lack the metric.
    """
    measured(runs, [metric])
    arms = {
        arm: members for arm, members in group_by_arm(runs).items() if any(metric in run.metrics for run in members)
    }
    families = arm_families(arms)
    seeds = {arm: seed_curves(members, metric, of) for arm, members in arms.items()}
    centres = {arm: _over_seeds(curves)["centre"] for arm, curves in seeds.items()}
    limits = _limits(list(centres.values()), [run.floor(metric) for run in runs])
    figure, panels = panels_of_families(
        {name: len(members) for name, members in families.items()}, num_columns, (1.35, 0.95)
    )
    for (family, members_by_arm), of_family in zip(families.items(), panels, strict=True):
        for (arm, members), axes in zip(members_by_arm.items(), of_family, strict=True):
            others = [centres[other] for other in members_by_arm if other != arm]
            axes.add_collection(LineCollection([_points(c) for c in others], colors=_OTHERS, linewidths=0.6, zorder=1))
            if (reference := undone(arms, members[0])) is not None:
                axes.plot(centres[reference], color=_UNDONE, linestyle=(0, (4, 1.5)), linewidth=1.2, zorder=2)
            _draw_arm(axes, seeds[arm], metric, limits)
            draw_floors(axes, members, metric)
            title_panel(axes, name_in_family(arm, members[0], family))
    handles = [
        Line2D([], [], color=_ARM, linewidth=1.8, marker="o", markersize=3, label="the arm, with its 95 % interval"),
        Line2D([], [], color=_ARM, linewidth=0.6, alpha=0.5, label="its seeds"),
        Line2D([], [], color=_UNDONE, linestyle=(0, (4, 1.5)), linewidth=1.2, label="same regime, no mitigation"),
        Line2D([], [], color=_OTHERS, linewidth=0.8, label="other arms of the family"),
        Line2D([], [], label=f"{FLOOR} (band: 2 sd)", **FLOOR_STYLE),
    ]
    figure.legend(handles=handles, loc="upper left", ncols=3, fontsize=7, frameon=False, borderaxespad=0.3)
    figure.supxlabel("generation", fontsize=SMALL, y=0.08 / figure.get_figheight(), va="bottom")
    figure.supylabel(f"{label(metric)}  ({direction(runs, metric)})", fontsize=SMALL, x=0.06 / figure.get_figwidth())
    return figure


def _draw_panel(axes: Axes, arms: Mapping[str, Sequence[Run]], metric: str, of: str) -> None:
    inside: list[float] = []
    for style, members in zip(line_styles(), arms.values(), strict=False):
        curves = seed_curves(members, metric, of)
        if curves.empty:
            continue
        for run in members:
            line = curves[run.seed].dropna()
            if len(members) > 1:
                axes.plot(line.index, line, color=style["color"], linewidth=0.6, alpha=0.45)
            if not run.complete and len(line):
                axes.plot(line.index[-1], line.iloc[-1], marker="x", color=style["color"], markersize=8)
        over_seeds = _over_seeds(curves)
        axes.plot(over_seeds["centre"], **style)
        if len(members) >= _MIN_SEEDS_OF_BAND:
            axes.fill_between(
                over_seeds.index, over_seeds["low"], over_seeds["high"], color=style["color"], alpha=0.15, linewidth=0
            )
        inside += [*curves.to_numpy().ravel(), *over_seeds["centre"]]

    levels, beside = draw_floors(axes, [run for members in arms.values() for run in members], metric)
    finish_panel(axes, [*inside, *levels], beside)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("generation", fontsize=SMALL)


def _draw_arm(axes: Axes, curves: pd.DataFrame, metric: str, limits: tuple[float, float]) -> None:
    over_seeds = _over_seeds(curves)
    if curves.shape[1] > 1:
        axes.plot(curves, color=_ARM, linewidth=0.6, alpha=0.5, zorder=3)
    if curves.shape[1] >= _MIN_SEEDS_OF_BAND:
        axes.fill_between(
            over_seeds.index, over_seeds["low"], over_seeds["high"], color=_ARM, alpha=0.2, linewidth=0, zorder=3
        )
    axes.plot(over_seeds["centre"], color=_ARM, linewidth=1.8, marker="o", markersize=2.5, zorder=4)
    known = over_seeds["centre"].dropna()
    if len(known):
        box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
        place = {"ha": "right", "va": "top", "fontsize": 6.5, "transform": axes.transAxes, "bbox": box, "zorder": 5}
        axes.text(0.99, 1.0, format_value(metric, float(known.iloc[-1])), color=_ARM, **place)
    axes.set_ylim(limits)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.tick_params(labelsize=6.5, length=2, pad=1.5)
    axes.spines[["top", "right"]].set_visible(False)


def _limits(centres: Sequence[pd.Series], floors: Sequence[float]) -> tuple[float, float]:
    """The common scale: that of all curves, unless single arms are so far off that the others would be flat lines."""
    known, levels = [curve for curve in centres if curve.notna().any()], [f for f in floors if math.isfinite(f)]
    low = min([float(curve.min()) for curve in known] + levels)
    high = max([largest_shown([float(curve.max()) for curve in known]), *levels])
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    # Room at the top for the number in the corner.
    return low - margin, high + 3 * margin


def _over_seeds(curves: pd.DataFrame) -> pd.DataFrame:
    """What ``summarize`` gives over seeds: ``centre``, ``low`` and ``high`` by generation."""
    intervals = [summarize(row.tolist()) for row in curves.to_numpy()]
    rows = [(interval.centre, *ends(interval)) for interval in intervals]
    return pd.DataFrame(rows, index=curves.index, columns=["centre", "low", "high"], dtype="float64")


def _points(curve: pd.Series) -> np.ndarray:
    return np.column_stack([curve.index.to_numpy(), curve.to_numpy()])


def _legend_handles(arms: Mapping[str, Sequence[Run]]) -> list[Line2D]:
    handles = [
        Line2D([], [], label=f"{name} (n = {len(members)})", **style)
        for style, (name, members) in zip(line_styles(), arms.items(), strict=False)
    ]
    runs = [run for members in arms.values() for run in members]
    handles += floor_handles(runs)
    if not all(run.complete for run in runs):
        handles.append(Line2D([], [], label="an incomplete run ends here", **CROSS_STYLE))
    return handles
