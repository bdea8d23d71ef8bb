"""Heat maps of class shares by generation."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from collapse_bench.analysis.figures.families import arm_families, name_in_family
from collapse_bench.analysis.figures.style import SMALL, panels_of_families, title_panel
from collapse_bench.analysis.runs import Run, group_by_arm
from collapse_bench.errors import RunDirError

_CLIP = 3.0
"""Small maps show shares up to this multiple of the largest real share; what is beyond has the lightest colour."""


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
    shares = _with_reals(run, of)
    values = shares.to_numpy()
    num_classes, num_columns = values.shape
    top = float(np.nanmax(values)) if highest is None else highest
    figure = Figure(figsize=(min(1.6 + 0.52 * num_columns, 10), 0.9 + 0.28 * num_classes), layout="constrained")
    axes = figure.subplots()
    image = axes.pcolormesh(values, cmap="cividis", vmin=0, vmax=top, edgecolor="white", lw=0.6)
    axes.axvline(1, color="white", linewidth=4)
    axes.set_yticks(np.arange(num_classes) + 0.5, [str(name) for name in shares.index], fontsize=SMALL)
    step = math.ceil((num_columns - 1) / 15)
    ticks = [0, *range(1, num_columns, step)]
    axes.set_xticks([t + 0.5 for t in ticks], ["real", *(str(t - 1) for t in ticks[1:])], fontsize=SMALL)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("generation", fontsize=SMALL + 1)
    if num_columns <= 16:
        for (row, column), share in np.ndenumerate(values):
            colour = "black" if share > top / 2 else "white"
            axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    bar = figure.colorbar(image, ax=axes, format=lambda share, _: f"{100 * share:.0f} %", pad=0.02)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def highest_class_share(runs: Sequence[Run]) -> float | None:
    """The largest class share of fresh samples and reals in any of the runs; ``None`` where no run has class shares."""
    scored = [run for run in runs if has_class_shares(run)]
    known = [run.class_shares(of).to_numpy().max() for run in scored for of in ("model", "control")]
    return float(max(known)) if known else None


def has_class_shares(run: Run) -> bool:
    """Whether ``plot_class_shares`` has something to draw."""
    return "class_share_0" in run.metrics


def plot_class_share_maps(runs: Sequence[Run], *, num_columns: int = 5) -> Figure:
    """A small heat map of class shares per arm, of its first seed: classes (rows), reals and generations (columns).

    All maps have one scale of colours, up to three times the largest real share. The number above a map is the smallest
    share at the arm's last generation.

    Args:
        runs: runs that compare; arms without class shares are left out.
        num_columns: maps side by side.

    Raises:
        RunDirError: if the runs do not compare, or no arm has class shares.
    """
    arms = {arm: members[0] for arm, members in group_by_arm(runs).items() if has_class_shares(members[0])}
    if not arms:
        raise RunDirError("no arm has class shares; they need an encoder that knows classes")
    families = arm_families({arm: [run] for arm, run in arms.items()})
    names = {
        arm: name_in_family(arm, members[0], family)
        for family, of_family in families.items()
        for arm, members in of_family.items()
    }
    num_columns = min(num_columns, max(map(len, families.values())))
    tables = {arm: _with_reals(run, "model") for arm, run in arms.items()}
    num_classes = max(map(len, tables.values()))
    size = (max(1.75, 0.13 * max(table.shape[1] for table in tables.values())), min(0.4 + 0.085 * num_classes, 2.4))
    figure, panels = panels_of_families(
        {family: len(of_family) for family, of_family in families.items()}, num_columns, size
    )
    largest = max(float(np.nanmax(table.to_numpy())) for table in tables.values())
    # One arm that makes a single class would leave all the others dark.
    top = min(largest, _CLIP * max(float(table["real"].max()) for table in tables.values()))
    for of_family, of_panels in zip(families.values(), panels, strict=True):
        for arm, axes in zip(of_family, of_panels, strict=True):
            table = tables[arm]
            axes.pcolormesh(table.to_numpy(), cmap="cividis", vmin=0, vmax=top, rasterized=True)
            axes.axvline(1, color="white", linewidth=2)
            axes.invert_yaxis()
            ticks = np.unique(np.linspace(1, table.shape[1] - 1, min(table.shape[1] - 1, 5)).round().astype(int))
            axes.set_xticks([0.5, *(ticks + 0.5)], ["R", *(str(t - 1) for t in ticks)])
            step = math.ceil(num_classes / 10)
            axes.set_yticks(np.arange(0, len(table), step) + 0.5, [str(name) for name in table.index[::step]])
            axes.tick_params(labelsize=6.5, length=0, pad=1.5)
            axes.spines[:].set_visible(False)
            title_panel(axes, names[arm])
            lowest = table.iloc[:, -1].min()
            axes.set_title(f"{100 * lowest:.1f} %", fontsize=6.5, loc="right", pad=2.5, y=1.0)
    width, height = figure.get_size_inches()
    bar_axes = figure.add_axes((0.5 / width, 1 - 0.3 / height, 2.2 / width, 0.12 / height))
    bar = figure.colorbar(
        panels[0][0].collections[0],
        cax=bar_axes,
        orientation="horizontal",
        extend="max" if largest > top else "neither",
        format=lambda share, _: f"{100 * share:.0f} %",
    )
    bar.ax.tick_params(labelsize=6.5, length=2, pad=1.5)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    words = "share of the class; R: real images of the control set;\nright of a name: smallest share at the end"
    figure.text(3.0 / width, 1 - 0.24 / height, words, fontsize=7, va="center")
    figure.supxlabel("generation", fontsize=SMALL, y=0.08 / height, va="bottom")
    return figure


def _with_reals(run: Run, of: str) -> pd.DataFrame:
    """Class shares with those of the control set before those of the generations."""
    shares = run.class_shares(of)
    real = run.class_shares("control").iloc[:, 0].reindex(shares.index)
    return pd.concat([real.rename("real"), shares], axis=1)
