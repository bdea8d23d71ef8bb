"""Figures: curves over generations or a setting, with the floor; sample grids; class shares. No pyplot."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation, Transform
from scipy.optimize import isotonic_regression

from collapse_bench.analysis.runs import Run, group_by_arm, headline, seed_curves
from collapse_bench.analysis.statistics import SeedInterval, summarize
from collapse_bench.analysis.tables import FLOOR, NULL, against_table, direction, label
from collapse_bench.errors import RunDirError

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that stay apart for colour-blind readers (Okabe and Ito 2008), without the yellow that print loses."""

# As many dashes and markers as do not divide the number of colours, so that the combination repeats late.
_DASHES = ("-", (0, (6, 2)), (0, (6, 2, 1, 2)), (0, (1.5, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
_NULL_STYLE: dict[str, Any] = {"color": "#555555", "linestyle": (0, (1, 2)), "linewidth": 1.0}
_FLOOR_STYLE: dict[str, Any] = {"color": "#555555", "linestyle": (0, (3, 3)), "linewidth": 1.2}
_CROSS_STYLE: dict[str, Any] = {"color": "#555555", "linestyle": "", "marker": "x", "markersize": 8}
_SMALL = 8
_MAX_ROWS = 13
_Label = tuple[float, str, str]
"""A name beside a panel: the height that it belongs to, the text, the colour."""
# A setting whose values span more than this factor has a logarithmic axis.
_LINEAR_SPAN = 20
# Height of a label beside a panel, width of an interval at its right end, distance of its ticks: fractions of it.
_LABEL_HEIGHT = 0.065
_INTERVAL_WIDTH = 0.025
_TICK_GAP = 0.1


def plot_curves(
    runs: Sequence[Run],
    metrics: Sequence[str] | None = None,
    *,
    of: str = "model",
    num_columns: int = 2,
    legend: bool = True,
) -> Figure:
    """Small multiples, one panel per metric: a curve per arm over the generations, and the floor.

    Thick lines are what ``summarize`` gives over seeds, bands its 95 % interval, thin lines the seeds. A cross ends
    the line of a run that is incomplete. Axes are scaled to the lines: a band that leaves its panel is wider than it.

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
    names = _measured(runs, metrics)
    figure, panels = _small_multiples(runs, names, (4.2, 2.7), num_columns, _legend_handles(arms) if legend else [])
    for axes, metric in zip(panels, names, strict=True):
        _draw_panel(axes, arms, metric, of)
    return figure


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
    names = _measured(runs, metrics)
    table = against_table(runs, setting, names, of)
    styles = dict(zip(table["line"].unique(), _styles(), strict=False))
    handles = [
        Line2D([], [], label=f"{line} (n = {_range(rows['num_seeds'])})", **styles[line])
        for line, rows in table[table["setting"].notna()].groupby("line", sort=False)
    ]
    handles += _floor_handles(runs)
    if not table["complete"].all():
        handles.append(Line2D([], [], label="with an incomplete run", **_CROSS_STYLE))
    beside = table.loc[table["setting"].isna() & (table["metric"] == names[0]), "line"]
    width = 4.2 + 0.045 * max((len(_flat_label(line, 1)) for line in beside), default=0)
    height = 2.7 * max(1.0, _LABEL_HEIGHT * (len(beside) + 1))
    figure, panels = _small_multiples(runs, names, (width, height), 2, handles)
    for axes, metric in zip(panels, names, strict=True):
        _draw_against(axes, runs, table[table["metric"] == metric], styles)
        axes.set_xlabel(setting, fontsize=_SMALL)
        axes.set_ylabel(f"at generation {_range(table['generation'])}", fontsize=_SMALL)
    return figure


def plot_legend(runs: Sequence[Run]) -> Figure:
    """The legend of ``plot_curves`` alone, one entry below the other."""
    handles = _legend_handles(group_by_arm(runs))
    figure = Figure(figsize=(5.5, 0.24 * len(handles) + 0.1))
    figure.legend(handles=handles, loc="center left", fontsize=9, frameon=False, borderaxespad=0)
    return figure


def plot_samples(run: Run) -> Figure:
    """The sample grid of a run: real images on top, then a row per generation; a column keeps its image seed.

    Long chains show evenly spaced generations, the first and the last among them.

    Raises:
        RunDirError: if a grid is missing or damaged, or no generation is committed yet.
    """
    if not run.records:
        raise RunDirError(f"{run.path}: no generation is committed yet")
    shown = np.unique(np.linspace(0, len(run.records) - 1, min(len(run.records), _MAX_ROWS)).round().astype(int))
    rows = [run.real_grid, *(run.grid(int(t)) for t in shown)]
    num_images = min(map(len, rows))
    montage = np.stack([_row_of_images(row[:num_images]) for row in rows])
    # A wider gap sets the real images apart from the samples.
    gap = np.full((6, *montage.shape[2:]), 255, dtype=np.uint8)
    picture = np.concatenate([montage[0], gap, *montage[1:]])

    height, width = picture.shape[:2]
    figure = Figure(figsize=(7.0, 6.0 * height / width + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    row_height = montage.shape[1]
    centres = [(i + 0.5) * row_height + (len(gap) if i else 0) - 0.5 for i in range(len(rows))]
    axes.set_yticks(centres, ["real", *(f"generation {t}" for t in shown)], fontsize=_SMALL)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("samples: one image seed per column; real images: other images, to compare with", fontsize=_SMALL)
    return figure


def plot_class_shares(run: Run, of: str = "model", *, highest: float | None = None) -> Figure:
    """Heat map of the share of each class (rows) among the samples of each generation (columns), reals first.

    Args:
        run: the run.
        of: ``"model"`` for fresh samples, ``"kept"`` for the curated output.
        highest: share at the upper end of the colours, so that maps of several runs compare; ``None`` is the
            largest share of this run.

    Raises:
        RunDirError: if the run has no class shares.
    """
    shares = run.class_shares(of)
    real = run.class_shares("control").iloc[:, 0].reindex(shares.index)
    values = np.column_stack([real.to_numpy(), shares.to_numpy()])
    num_classes, num_columns = values.shape
    top = float(np.nanmax(values)) if highest is None else highest
    figure = Figure(figsize=(min(1.6 + 0.52 * num_columns, 10), 0.9 + 0.28 * num_classes), layout="constrained")
    axes = figure.subplots()
    image = axes.pcolormesh(values, cmap="cividis", vmin=0, vmax=top, edgecolor="white", lw=0.6)
    axes.axvline(1, color="white", linewidth=4)
    axes.set_yticks(np.arange(num_classes) + 0.5, [str(name) for name in shares.index], fontsize=_SMALL)
    step = math.ceil(len(shares.columns) / 15)
    ticks = [0, *range(1, num_columns, step)]
    axes.set_xticks([t + 0.5 for t in ticks], ["real", *(str(t - 1) for t in ticks[1:])], fontsize=_SMALL)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("generation", fontsize=_SMALL + 1)
    if num_columns <= 16:
        for (row, column), share in np.ndenumerate(values):
            colour = "black" if share > top / 2 else "white"
            axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    bar = figure.colorbar(image, ax=axes, format=lambda share, _: f"{100 * share:.0f} %", pad=0.02)
    bar.ax.tick_params(labelsize=_SMALL)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def write_figures(runs: Sequence[Run], folder: str | Path, *, setting: str | None = None) -> list[Path]:
    """Saves the curves, and per arm the sample grid and the class shares of its first seed, as PNG; returns the files.

    Figures of an earlier call in the same folder are replaced, also those of arms that are no longer there.

    Args:
        runs: runs that compare.
        folder: where to; it is made.
        setting: key of a numeric setting that the scores at the last generation are drawn against; ``None`` for none.

    Raises:
        ConfigError: if no run has the setting, it is not a number, or all runs have the same one.
        RunDirError: if the runs do not compare, or a grid is damaged.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"curves": plot_curves(runs)}
    if setting is not None:
        figures[f"against_{setting}"] = plot_against(runs, setting)
    highest = highest_class_share(runs)
    for number, (arm, members) in enumerate(group_by_arm(runs).items()):
        first = members[0]
        stem = f"{number:02d}_{re.sub(r'[^A-Za-z0-9._=-]+', '_', arm)[:80]}_seed_{first.seed}"
        if first.records and first.has_images:
            figures[f"samples_{stem}"] = plot_samples(first)
        if has_class_shares(first):
            figures[f"class_shares_{stem}"] = plot_class_shares(first, highest=highest)
    for kind in ("samples", "class_shares", "against"):
        for earlier in folder.glob(f"{kind}_*.png"):
            earlier.unlink()
    files = [folder / f"{name}.png" for name in figures]
    for file, figure in zip(files, figures.values(), strict=True):
        figure.savefig(file, dpi=150)
    return files


def highest_class_share(runs: Sequence[Run]) -> float | None:
    """The largest class share of fresh samples and reals in any of the runs; ``None`` where no run has class shares."""
    scored = [run for run in runs if has_class_shares(run)]
    known = [run.class_shares(of).to_numpy().max() for run in scored for of in ("model", "control")]
    return float(max(known)) if known else None


def has_class_shares(run: Run) -> bool:
    """Whether ``plot_class_shares`` has something to draw."""
    return "class_share_0" in run.metrics


def _draw_panel(axes: Axes, arms: Mapping[str, Sequence[Run]], metric: str, of: str) -> None:
    inside: list[float] = []
    for style, members in zip(_styles(), arms.values(), strict=False):
        curves = seed_curves(members, metric, of)
        if curves.empty:
            continue
        generations = curves.index.to_numpy()
        for run in members:
            line = curves[run.seed].dropna()
            if len(members) > 1:
                axes.plot(line.index, line, color=style["color"], linewidth=0.6, alpha=0.45)
            if not run.complete and len(line):
                axes.plot(line.index[-1], line.iloc[-1], marker="x", color=style["color"], markersize=8)
        over_seeds = [summarize(row.tolist()) for row in curves.to_numpy()]
        centre = np.array([interval.centre for interval in over_seeds])
        axes.plot(generations, centre, **style)
        low, high = np.array([_ends(interval) for interval in over_seeds]).T
        axes.fill_between(generations, low, high, color=style["color"], alpha=0.15, linewidth=0)
        inside += [*curves.to_numpy().ravel(), *centre]

    levels, beside = _draw_floors(axes, [run for members in arms.values() for run in members], metric)
    _finish_panel(axes, [*inside, *levels], beside)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("generation", fontsize=_SMALL)


def _draw_against(axes: Axes, runs: Sequence[Run], rows: pd.DataFrame, styles: Mapping[str, Any]) -> None:
    inside: list[float] = []
    beside: list[_Label] = []
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
                axes.plot(point["setting"], point["score"].centre, transform=place, **_CROSS_STYLE)
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
    levels, of_floors = _draw_floors(axes, runs, rows["metric"].iloc[0])
    _finish_panel(axes, [*inside, *levels], [*beside, *of_floors])
    _scale_setting(axes, values, room)


def _draw_intervals(
    axes: Axes, x: Sequence[float] | pd.Series, intervals: Sequence[SeedInterval], *, color: str, transform: Transform
) -> None:
    centre = np.array([interval.centre for interval in intervals])
    low, high = np.array([_ends(interval) for interval in intervals]).T
    lengths = np.maximum([centre - low, high - centre], 0)  # rounding may put an end on the wrong side
    axes.errorbar(x, centre, lengths, fmt="none", ecolor=color, elinewidth=1.0, capsize=2.5, transform=transform)


def _draw_floors(axes: Axes, runs: Sequence[Run], metric: str) -> tuple[list[float], list[_Label]]:
    # Arms that measure different numbers of images have different floors.
    spreads = {round(floor, 12): run.floor_spread(metric) for run in runs if np.isfinite(floor := run.floor(metric))}
    floors = sorted(spreads)
    nulls = sorted({round(null, 12) for run in runs if np.isfinite(null := run.null(metric))})
    for null in nulls:
        axes.axhline(null, label=NULL, zorder=1, **_NULL_STYLE)
    for floor in floors:
        axes.axhline(floor, label=FLOOR, zorder=1, **_FLOOR_STYLE)
        if np.isfinite(spread := spreads[floor]):
            axes.axhspan(floor - 2 * spread, floor + 2 * spread, color=_FLOOR_STYLE["color"], alpha=0.12, linewidth=0)
    return [*floors, *nulls], [(floor, "floor", _FLOOR_STYLE["color"]) for floor in floors]


def _finish_panel(axes: Axes, inside: Sequence[float], beside: Sequence[_Label]) -> None:
    seen = np.array(inside)
    seen = seen[np.isfinite(seen)]
    if len(seen):
        margin = 0.15 * float(np.ptp(seen)) or 0.1 * abs(float(seen[0])) or 0.1
        axes.set_ylim(float(seen.min()) - margin, float(seen.max()) + margin)
    _label_beside(axes, beside)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _label_beside(axes: Axes, labels: Sequence[_Label]) -> None:
    """Names of horizontal lines to the right of a panel, moved as little as keeps them apart."""
    if not labels:
        return
    labels = sorted(labels)
    bottom, top = axes.get_ylim()
    heights = (np.array([level for level, _, _ in labels]) - bottom) / (top - bottom)
    steps = min(_LABEL_HEIGHT, 1 / len(labels)) * np.arange(len(labels))
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


def _small_multiples(
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
        figure.legend(handles=handles, loc="outside upper left", ncols=num_columns, fontsize=_SMALL, frameon=False)
    return figure, panels[: len(names)]


def _measured(runs: Sequence[Run], metrics: Sequence[str] | None) -> list[str]:
    names = list(metrics) if metrics is not None else headline(runs)
    known = {name for run in runs for name in run.metrics}
    missing = [name for name in names if name not in known]
    if missing or not names:
        raise RunDirError(f"{runs[0].path}: not measured: {', '.join(missing) or 'anything'}")
    return names


def _ends(interval: SeedInterval) -> tuple[float, float]:
    return (
        math.nan if interval.low is None else interval.low,
        math.nan if interval.high is None else interval.high,
    )


def _range(numbers: Sequence[int] | pd.Series) -> str:
    lowest, highest = min(numbers), max(numbers)
    return str(lowest) if lowest == highest else f"{lowest} to {highest}"


def _styles() -> Any:
    for color, linestyle, marker in zip(cycle(OKABE_ITO), cycle(_DASHES), cycle(_MARKERS), strict=False):
        yield {"color": color, "linestyle": linestyle, "marker": marker, "markersize": 4, "linewidth": 1.8}


def _legend_handles(arms: Mapping[str, Sequence[Run]]) -> list[Line2D]:
    handles = [
        Line2D([], [], label=f"{name} (n = {len(members)})", **style)
        for style, (name, members) in zip(_styles(), arms.items(), strict=False)
    ]
    runs = [run for members in arms.values() for run in members]
    handles += _floor_handles(runs)
    if not all(run.complete for run in runs):
        handles.append(Line2D([], [], label="an incomplete run ends here", **_CROSS_STYLE))
    return handles


def _floor_handles(runs: Sequence[Run]) -> list[Line2D]:
    handles = [Line2D([], [], label=f"{FLOOR} (band: 2 sd)", **_FLOOR_STYLE)]
    if any(np.isfinite(run.null(metric)) for run in runs for metric in headline([run])):
        handles.append(Line2D([], [], label=f"{NULL}, where one is known", **_NULL_STYLE))
    return handles


def _row_of_images(images: np.ndarray) -> np.ndarray:
    """Images [k, h, w, c] side by side with a white gap, as [h + 2, k (w + 2), 3]."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    row = np.concatenate(list(padded), axis=1)
    return np.repeat(row, 3, axis=-1) if row.shape[-1] == 1 else row
