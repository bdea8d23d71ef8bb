"""What each number sees: tables and a heat map of the self-test and of the power study."""

import math
import re
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from collapse_bench.analysis.tables import label

_PER_CLASS = re.compile(r".*_\d+(@.*)?")
_MAX_COLOUR = 10.0


def overall(effects: pd.DataFrame) -> pd.DataFrame:
    """The effects without the numbers of single classes."""
    return effects[~effects["number"].str.fullmatch(_PER_CLASS)]


def sight_table(effects: pd.DataFrame) -> pd.DataFrame:
    """One row per defined number, one column per damage, such as ``"sees (+12.3)"`` or ``"inverted (+5.1)"``.

    Args:
        effects: columns ``number``, ``damage``, ``sight`` and ``z``, the shift in standard deviations of the number.
    """
    cells = effects.assign(cell=[f"{sight} ({_signed(z)})" for sight, z in _pairs(effects)])
    return _pivoted(cells, "cell").fillna("n/a").rename(index=label)


def shift_table(effects: pd.DataFrame) -> pd.DataFrame:
    """One row per number, one column per damage: the shift in standard deviations of the number."""
    return _pivoted(effects.assign(cell=[_signed(z) for z in effects["z"]]), "cell").fillna("n/a").rename(index=label)


def plot_sensitivity(effects: pd.DataFrame) -> Figure:
    """A heat map: orange where damage makes a number worse, purple where it makes it better, white where unseen.

    Args:
        effects: columns ``number``, ``damage``, ``z`` and ``worsening``, which is ``z`` with the sign of worse.
    """
    shown, shifts = _pivoted(effects, "worsening"), _pivoted(effects, "z")
    height = 1.6 + 0.26 * len(shown)
    figure, axes = plt.subplots(figsize=(2.6 + 1.05 * len(shown.columns), height), layout="constrained")
    limit = math.asinh(_MAX_COLOUR)
    colours = np.arcsinh(shown.to_numpy(dtype=float).clip(-_MAX_COLOUR, _MAX_COLOUR))
    image = axes.imshow(colours, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), z in np.ndenumerate(shifts.to_numpy(dtype=float)):
        axes.text(
            column,
            row,
            "n/a" if math.isnan(z) else _signed(z),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if abs(colours[row, column]) > 0.75 * limit else "black",
        )
    axes.set_xticks(range(len(shown.columns)), shown.columns, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(shown)), [label(name) for name in shown.index], fontsize=8)
    axes.tick_params(length=0)
    ticks = [-10, -3, 0, 3, 10]
    bar = figure.colorbar(image, ax=axes, ticks=[math.asinh(tick) for tick in ticks], shrink=0.6)
    bar.ax.set_yticklabels(["better by 10 sd", "3", "0", "3", "worse by 10 sd"], fontsize=7)
    return figure


def _pivoted(effects: pd.DataFrame, values: str) -> pd.DataFrame:
    defined = effects[effects.groupby("number")["z"].transform(lambda z: z.notna().any())]
    table = defined.pivot(index="number", columns="damage", values=values)
    return table.loc[_in_order(defined["number"]), _in_order(defined["damage"])]


def _in_order(names: pd.Series) -> list[str]:
    return list(dict.fromkeys(names))


def _pairs(effects: pd.DataFrame) -> Sequence[tuple[str, float]]:
    return list(zip(effects["sight"], effects["z"], strict=True))


def _signed(z: float) -> str:
    if math.isnan(z):
        return "n/a"
    if math.isinf(z):
        return "+∞" if z > 0 else "-∞"
    return f"{z:+.0f}" if abs(z) >= 10 else f"{z:+.1f}"
