"""Provenance: which share of what each generation was trained on is real, and from which generation the rest is."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from collapse_bench.analysis.figures.families import short_name
from collapse_bench.analysis.figures.style import SMALL, title_panel
from collapse_bench.analysis.runs import Run, group_by_arm
from collapse_bench.errors import RunDirError
from collapse_bench.records import REAL, birth_name

_REAL_COLOUR = "#0072B2"
_LIVE = " live"


def pool_shares(members: Sequence[Run]) -> pd.DataFrame:
    """Shares of what each generation was trained on, which add up to 1: a row per origin, a column per generation.

    Origins are ``"real"``, ``"gen_000"``, and so on. They are shares of the sampling probability, so weights count;
    images that were drawn while training count as those of the generation that drew them. The mean over the runs.

    Raises:
        RunDirError: if no run has a generation yet.
    """
    tables = [_of_run(run) for run in members if run.records]
    if not tables:
        raise RunDirError(f"{members[0].path}: no generation is committed yet")
    shares = pd.concat(tables).groupby(level=0).mean()
    origins = [birth_name(born) for born in range(REAL, len(shares.columns))]
    shares = shares.reindex([origin for origin in origins if origin in shares.index])
    return shares.rename_axis(index="origin", columns="generation")


def arms_by_pools(runs: Sequence[Run]) -> list[tuple[list[str], pd.DataFrame]]:
    """Arms whose pools have the same shares, to a tenth of a per cent, together with these shares.

    Raises:
        RunDirError: if the runs do not compare.
    """
    found: dict[tuple[object, ...], tuple[list[str], pd.DataFrame]] = {}
    for arm, members in group_by_arm(runs).items():
        if any(run.records for run in members):
            shares = pool_shares(members)
            key = (tuple(shares.index), shares.shape, tuple(shares.fillna(0).round(3).to_numpy().ravel()))
            found.setdefault(key, ([], shares))[0].append(arm)
    return list(found.values())


def plot_pools(runs: Sequence[Run], *, num_columns: int = 5) -> Figure:
    """Small multiples of stacked bars: for each trained generation, the share of real images and of each generation.

    Arms with the same shares are one panel, which says how many they are.

    Args:
        runs: runs that compare.
        num_columns: panels side by side.

    Raises:
        RunDirError: if the runs do not compare, or none has a generation yet.
    """
    groups = arms_by_pools(runs)
    if not groups:
        raise RunDirError(f"{runs[0].path if runs else 'no runs'}: no generation is committed yet")
    regimes = {arm: str(members[0].choices.get("regime", arm)) for arm, members in group_by_arm(runs).items()}
    num_columns = min(num_columns, len(groups))
    num_rows = math.ceil(len(groups) / num_columns)
    most = max(shares.shape[1] for _, shares in groups)
    # Inches, so that panels keep their size and the legend its place.
    width, height = max(2.0 * num_columns + 0.5, 6.4), 1.65 * num_rows + 0.6
    figure = Figure(figsize=(width, height))
    panels = []
    for i, (arms, shares) in enumerate(groups):
        row, column = divmod(i, num_columns)
        place = (0.5 + 2.0 * column, height - 0.6 - 1.65 * row - 1.15, 1.8, 1.15)
        axes = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
        draw_pools(axes, shares, num_generations=most)
        axes.tick_params(labelleft=column == 0)
        title_panel(axes, _name(arms, regimes))
        panels.append(axes)
    real, first, last = (_style(name, most) for name in (birth_name(REAL), birth_name(0), birth_name(max(most - 2, 0))))
    handles = [Patch(label="real", **real), Patch(label="samples of generation 0", **first)]
    if most > 2:
        handles.append(Patch(label=f"... to generation {most - 2}", **last))
    figure.legend(handles=handles, loc="upper left", ncols=3, fontsize=SMALL, frameon=False, borderaxespad=0.3)
    figure.supxlabel("trained generation", fontsize=SMALL, y=0.08 / height, va="bottom")
    return figure


def draw_pools(axes: Axes, shares: pd.DataFrame, *, num_generations: int) -> None:
    """Stacked bars of ``pool_shares``; the colours are those of a chain of this many generations."""
    below = pd.Series(0.0, index=shares.columns)
    for origin, of_origin in shares.fillna(0.0).iterrows():
        style = _style(str(origin), num_generations)
        axes.bar(shares.columns, of_origin, bottom=below, width=0.86, linewidth=0.3, label=str(origin), **style)
        below = below + of_origin
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.6, num_generations - 0.4)
    axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.tick_params(labelsize=6.5, length=2, pad=1.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def _of_run(run: Run) -> pd.DataFrame:
    columns: dict[int, dict[str, float]] = {}
    for record in run.records:
        shares: dict[str, float] = {}
        for name, share in record.train_shares.items():
            origin = name.removesuffix(_LIVE)
            shares[origin] = shares.get(origin, 0.0) + share
        columns[record.generation] = shares
    return pd.DataFrame(columns).fillna(0.0)


def _style(origin: str, num_generations: int) -> dict[str, Any]:
    # Real images are blue and hatched, so that they are told apart in grey too; samples are the darker the later.
    if origin == birth_name(REAL):
        return {"facecolor": _REAL_COLOUR, "edgecolor": "white", "hatch": "////"}
    born = int(origin.removeprefix("gen_"))
    depth = born / max(num_generations - 2, 1)
    return {"facecolor": matplotlib.colormaps["YlOrBr"](0.15 + 0.75 * depth), "edgecolor": "white"}


def _name(arms: Sequence[str], regimes: Mapping[str, str]) -> str:
    if len(arms) == 1:
        return short_name(arms[0])
    names = list(dict.fromkeys(regimes[arm] for arm in arms))
    short = names[0] if len(names) == 1 else f"{names[0]} and others"
    return f"{short} ({len(arms)} arms)"
