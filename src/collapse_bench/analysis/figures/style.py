"""What all figures share: colours, dashes and markers, the floor, labels that do not overlap, small multiples."""

import difflib
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.optimize import isotonic_regression

from collapse_bench.analysis.runs import Run, always_zero, headline
from collapse_bench.analysis.statistics import SeedInterval
from collapse_bench.analysis.tables import FLOOR, NULL, direction, label
from collapse_bench.errors import RunDirError

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that stay apart for colour-blind readers (Okabe and Ito 2008), without the yellow that print loses."""

SMALL = 8
"""Size of ticks and legends, in points."""

TITLE: dict[str, Any] = {"fontsize": 9.5, "x": 0.01, "ha": "left"}
"""Of a figure that is a file, where no page says beside it what it is."""

FLOOR_STYLE: dict[str, Any] = {"color": "#555555", "linestyle": (0, (3, 3)), "linewidth": 1.2}
NULL_STYLE: dict[str, Any] = {"color": "#555555", "linestyle": (0, (1, 2)), "linewidth": 1.0}
CROSS_STYLE: dict[str, Any] = {"color": "#555555", "linestyle": "", "marker": "x", "markersize": 8}

LABEL_HEIGHT = 0.065
"""Least distance of two labels beside a panel, as a fraction of its height."""

Label = tuple[float, str, str]
"""A name beside a panel: the height that it belongs to, the text, the colour."""

# As many dashes and markers as do not divide the number of colours, so that the combination repeats late.
_DASHES = ("-", (0, (6, 2)), (0, (6, 2, 1, 2)), (0, (1.5, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
# Inches around small panels: beside and between them, around all of them, and for the name of a family.
_GAPS = (0.22, 0.36)
_MARGINS = {"left": 0.5, "right": 0.1, "top": 0.75, "bottom": 0.45, "family": 0.3}


def line_styles() -> Iterator[dict[str, Any]]:
    """Colour, dash and marker of one arm after the other; the combination repeats late."""
    for color, linestyle, marker in zip(cycle(OKABE_ITO), cycle(_DASHES), cycle(_MARKERS), strict=False):
        yield {"color": color, "linestyle": linestyle, "marker": marker, "markersize": 4, "linewidth": 1.8}


def measured(runs: Sequence[Run], metrics: Sequence[str] | None) -> list[str]:
    """The metrics to draw: those given, or the headline metrics that the runs have and that are not always 0.

    Raises:
        RunDirError: if one of them was not measured.
    """
    still = always_zero(runs)
    names = list(metrics) if metrics is not None else [name for name in headline(runs) if name not in still]
    known = {name for run in runs for name in run.metrics}
    missing = [name for name in names if name not in known]
    if missing or not names:
        near = difflib.get_close_matches(missing[0], known, n=1) if missing else []
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise RunDirError(f"{runs[0].path}: not measured: {', '.join(missing) or 'anything'}{hint}")
    return names


def small_multiples(
    runs: Sequence[Run],
    names: Sequence[str],
    size: tuple[float, float],
    num_columns: int,
    handles: Sequence[Line2D],
) -> tuple[Figure, list[Axes]]:
    """An empty figure with one panel per metric, of this width and height in inches, titled, and the legend above."""
    num_columns = min(num_columns, len(names))
    num_rows = math.ceil(len(names) / num_columns)
    width, height = size
    above = 0.1 + 0.2 * math.ceil(len(handles) / num_columns) if handles else 0.0
    figure = Figure(figsize=(width * num_columns, height * num_rows + above), layout="constrained")
    panels = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for axes, metric in zip(panels, names, strict=False):
        axes.set_title(f"{label(metric)}  ({direction(runs, metric)})", fontsize=9.5, loc="left")
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=num_columns, fontsize=SMALL, frameon=False)
    return figure, panels[: len(names)]


def panels_of_families(
    sizes: Mapping[str, int], num_columns: int, panel: tuple[float, float]
) -> tuple[Figure, list[list[Axes]]]:
    """Panels in rows, each family from a new row on and below its name; only the first of a row has labels at its left.

    Args:
        sizes: panels of each family, by its name; an empty name is not written.
        num_columns: panels side by side, at most.
        panel: width and height of one, in inches.

    Returns:
        The figure, with room for a legend above, and the panels by family.
    """
    num_columns = min(num_columns, max(sizes.values()))
    num_rows = sum(math.ceil(size / num_columns) for size in sizes.values())
    (width, height), (beside, between), m = panel, _GAPS, _MARGINS
    named = m["family"] if any(sizes) else 0.0
    total = (
        max(m["left"] + num_columns * width + (num_columns - 1) * beside + m["right"], 6.2),
        m["top"] + num_rows * (height + between) + len(sizes) * named + m["bottom"] - between,
    )
    figure = Figure(figsize=total)
    panels: list[list[Axes]] = []
    top = total[1] - m["top"]
    for family, size in sizes.items():
        if family:
            figure.text(m["left"] / total[0], (top + 0.02) / total[1], family, fontsize=9, weight="bold", va="center")
            top -= named
        of_family: list[Axes] = []
        for i in range(size):
            row, column = divmod(i, num_columns)
            x, y = m["left"] + column * (width + beside), top - row * (height + between) - height
            axes = figure.add_axes((x / total[0], y / total[1], width / total[0], height / total[1]))
            axes.yaxis.set_visible(column == 0)
            of_family.append(axes)
        top -= math.ceil(size / num_columns) * (height + between)
        panels.append(of_family)
    return figure, panels


def largest_shown(values: Sequence[float] | np.ndarray) -> float:
    """The largest value that does not flatten the others.

    That is one at most three times as far from the lowest as four fifths of the values are.
    """
    known = np.asarray(values)[np.isfinite(values)]
    low, most = float(known.min()), float(np.quantile(known, 0.8))
    near = known[known - low <= 3 * (most - low)]
    return float(near.max()) if most > low else float(known.max())


def title_panel(axes: Axes, text: str) -> None:
    """The name of a small panel, on two lines where one is too short for it."""
    # A given height spares a search for a free one, which takes a tenth of the time of a figure of many panels.
    words = textwrap.fill(text, 26, max_lines=2, placeholder=" …")
    axes.set_title(words, fontsize=7, loc="left", pad=2.5, y=1.0)


def floor_handles(runs: Sequence[Run]) -> list[Line2D]:
    """Legend entries of the floor and of the null."""
    handles = [Line2D([], [], label=f"{FLOOR} (band: 2 sd)", **FLOOR_STYLE)]
    if any(np.isfinite(run.null(metric)) for run in runs for metric in headline([run])):
        handles.append(Line2D([], [], label=f"{NULL}, where one is known", **NULL_STYLE))
    return handles


def draw_floors(axes: Axes, runs: Sequence[Run], metric: str) -> tuple[list[float], list[Label]]:
    """The floor with its band, and the null, across a panel; gives their levels and the floor's label."""
    # Arms that measure different numbers of images have different floors.
    spreads = {round(floor, 12): run.floor_spread(metric) for run in runs if np.isfinite(floor := run.floor(metric))}
    floors = sorted(spreads)
    nulls = sorted({round(null, 12) for run in runs if np.isfinite(null := run.null(metric))})
    for null in nulls:
        axes.axhline(null, label=NULL, zorder=1, **NULL_STYLE)
    for floor in floors:
        axes.axhline(floor, label=FLOOR, zorder=1, **FLOOR_STYLE)
        if np.isfinite(spread := spreads[floor]):
            axes.axhspan(floor - 2 * spread, floor + 2 * spread, color=FLOOR_STYLE["color"], alpha=0.12, linewidth=0)
    return [*floors, *nulls], [(floor, "floor", FLOOR_STYLE["color"]) for floor in floors]


def finish_panel(axes: Axes, inside: Sequence[float], beside: Sequence[Label]) -> None:
    """Scales a panel to what is inside, names the lines beside it, and takes away what is not data."""
    seen = np.array(inside)
    seen = seen[np.isfinite(seen)]
    if len(seen):
        margin = 0.15 * float(np.ptp(seen)) or 0.1 * abs(float(seen[0])) or 0.1
        axes.set_ylim(float(seen.min()) - margin, float(seen.max()) + margin)
    label_beside(axes, beside)
    axes.tick_params(labelsize=SMALL)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def label_beside(axes: Axes, labels: Sequence[Label]) -> None:
    """Names of horizontal lines to the right of a panel, moved as little as keeps them apart."""
    if not labels:
        return
    labels = sorted(labels)
    bottom, top = axes.get_ylim()
    heights = (np.array([level for level, _, _ in labels]) - bottom) / (top - bottom)
    steps = min(LABEL_HEIGHT, 1 / len(labels)) * np.arange(len(labels))
    moved = np.clip(isotonic_regression(heights - steps).x, 0, 1 - steps[-1]) + steps
    for (_, text, color), height, y in zip(labels, heights, moved, strict=True):
        axes.annotate(
            text,
            (1, height),
            (1.03, y),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=7,
            color=color,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "relpos": (0, 0.5)},
        )


def ends(interval: SeedInterval) -> tuple[float, float]:
    """Low and high end, NaN where there is no interval."""
    return (
        math.nan if interval.low is None else interval.low,
        math.nan if interval.high is None else interval.high,
    )
