"""Lineage: the ledger of a run as one table of images, and which share of each origin was in each training pool."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from collapse_bench.analysis.runs import Run
from collapse_bench.errors import RunDirError
from collapse_bench.ledger import COLUMNS, IMAGES, KEY, TRAINED, read_table
from collapse_bench.records import REAL, birth_name

PANELS = {
    "frac_of_pool": "share of the pool, as trained on",
    "frac_of_origin": "share of the origin's images in the pool",
}
"""Columns of ``lineage_table`` that the figure shows, and what they are in words."""

_KEY = list(KEY)
_SMALL = 8
_MAX_NUMBERS = 13


def load_ledger(run: Run) -> pd.DataFrame:
    """One row per image that was in the real pool, was drawn as a candidate, or was in a training pool.

    Columns: ``image_id`` and ``seed`` (which together name the image), ``born`` (the generation that made it, -1 for
    real images), ``source``, ``label`` (-1 without a condition), ``drawn`` (whether it was a candidate of the
    sampler), ``kept`` (whether it was handed on; the real pool is), ``num_kept`` (how often), ``because`` (why it was
    kept, or what dropped it), and ``trained_in`` (the generations whose pool held it with a positive weight, and which
    no gate left out at every noise level).

    Raises:
        RunDirError: if no generation is committed yet, or a table is missing or damaged.
    """
    images = pd.DataFrame()
    rows: list[np.ndarray] = []
    for t, entered, pool in _tables(run):
        # The real pool and the candidates come first; an image that is only in a pool is still one of the run.
        others = pool.assign(drawn=False, num_kept=0)[list(COLUMNS[IMAGES])]
        tables = [images, entered, others] if t else [entered, others]
        images = pd.concat(tables, ignore_index=True).drop_duplicates(_KEY, ignore_index=True)
        used = pool.loc[_is_trained_on(pool), _KEY].drop_duplicates()
        # Rows stay where they are, because new images are added at the end.
        rows.append(pd.MultiIndex.from_frame(images[_KEY]).get_indexer(pd.MultiIndex.from_frame(used)))
    row = np.concatenate(rows)
    generation = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
    ends = np.bincount(row, minlength=len(images)).cumsum()
    by_image = np.split(generation[np.argsort(row, kind="stable")], ends[:-1])
    images["kept"] = images["num_kept"] > 0
    images["trained_in"] = pd.Series([part.tolist() for part in by_image], dtype=object)
    order = ["born", "source", "label", "drawn", "kept", "num_kept", "because", "trained_in"]
    return images[[*_KEY, *order]]


def lineage_table(run: Run) -> pd.DataFrame:
    """What the training pool of each generation was made of: one row per (generation, origin) with origin before it.

    Columns: ``generation`` (that was trained), ``origin`` (``"real"``, ``"gen_000"``, ...), ``num_images`` (in the
    pool), ``num_trained`` (of them as in ``load_ledger``), ``frac_of_pool`` (share of the sampling probability; of
    the images where a pool is drawn while training, which lists none), and ``frac_of_origin`` (share of the real
    pool, or of the different images that the origin handed on, that are in the pool; NaN if it handed on none).

    Raises:
        RunDirError: if no generation is committed yet, or a table is missing or damaged.
    """
    parts = []
    handed_on = pd.Series(dtype="float64")
    for t, entered, pool in _tables(run):
        kept = entered[entered["num_kept"] > 0]
        handed_on = handed_on.add(kept.groupby("born").size(), fill_value=0)
        origins = pd.RangeIndex(REAL, t, name="born")
        trained = pool[_is_trained_on(pool)]
        counts = {
            "num_images": pool.groupby("born").size(),
            "num_trained": trained.groupby("born").size(),
            "frac_of_pool": pool.groupby("born")["weight"].sum(),
            "num_different": pool.drop_duplicates(_KEY).groupby("born").size(),
        }
        part = pd.DataFrame({name: count.reindex(origins, fill_value=0) for name, count in counts.items()})
        shares = run.records[t].train_shares
        live = [shares.get(f"{birth_name(born)} live", 0.0) for born in origins]
        part["frac_of_pool"] += live
        part["frac_of_origin"] = part.pop("num_different") / handed_on.reindex(origins)
        part.insert(0, "origin", [birth_name(born) for born in origins])
        part.insert(0, "generation", t)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def format_lineage_table(table: pd.DataFrame) -> pd.DataFrame:
    """``lineage_table`` as text: a row per trained generation, a column per origin, cells of two lines.

    The first line is the share of the pool and, in brackets, the number of images; the second the share of the
    origin's images.
    """
    columns = (table[name] for name in ("generation", "origin", "num_images", "frac_of_pool", "frac_of_origin"))
    cells = {
        (t, origin): f"{_percent(of_pool)} ({num_images})\n{_percent(of_origin)}"
        for t, origin, num_images, of_pool, of_origin in zip(*columns, strict=True)
    }
    generations, origins = table["generation"].unique(), table["origin"].unique()
    text = {origin: [cells.get((t, origin), "\n") for t in generations] for origin in origins}
    return pd.DataFrame(text, index=pd.Index(generations, name="generation"))


def fate_table(ledger: pd.DataFrame) -> pd.DataFrame:
    """What became of the images of each origin, as text: how many, why, and how many were ever trained on.

    Args:
        ledger: see ``load_ledger``.
    """
    trained = ledger["trained_in"].map(len) > 0
    groups = ledger.assign(trained=trained).groupby(["born", "kept", "because"], sort=False)["trained"]
    counts = groups.agg(["size", "sum"]).reset_index().sort_values(["born", "kept"], ascending=[True, False])
    fate = counts["kept"].map({True: "kept: ", False: ""}) + counts["because"]
    return pd.DataFrame(
        {"what became of them": fate, "images": counts["size"].astype(str), "trained on": counts["sum"].astype(str)}
    ).set_index(counts["born"].map(birth_name).rename("origin"))


def plot_lineage(table: pd.DataFrame) -> Figure:
    """Two heat maps of origins (rows) and trained generations (columns): shares of the pool, shares of the origin.

    Cells are empty where the origin did not exist yet.

    Args:
        table: see ``lineage_table``.
    """
    num_rows, num_columns = table["origin"].nunique(), table["generation"].nunique()
    width = min(1.2 + 0.46 * num_columns, 6.0)
    figure = Figure(figsize=(2 * width + 1.6, min(1.3 + 0.3 * num_rows, 8.0)), layout="constrained")
    panels = list(figure.subplots(1, 2, sharey=True).flat)
    for axes, (column, words) in zip(panels, PANELS.items(), strict=True):
        _draw_heat_map(axes, table.pivot(index="origin", columns="generation", values=column), words)
    panels[0].set_ylabel("origin of the images", fontsize=_SMALL + 1)
    panels[0].invert_yaxis()
    bar = figure.colorbar(panels[1].collections[0], ax=panels, format=lambda share, _: f"{100 * share:.0f} %", pad=0.02)
    bar.ax.tick_params(labelsize=_SMALL)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def _draw_heat_map(axes: Axes, shares: pd.DataFrame, title: str) -> None:
    values = shares.loc[[birth_name(born) for born in range(REAL, len(shares) - 1)]].to_numpy()
    axes.pcolormesh(values, cmap="cividis", vmin=0, vmax=1, edgecolor="white", lw=0.6)
    num_rows, num_columns = values.shape
    names = ["real", *(str(born) for born in range(num_rows - 1))]
    ticks = range(0, num_rows, math.ceil(num_rows / 20))
    axes.set_yticks([k + 0.5 for k in ticks], [names[k] for k in ticks], fontsize=_SMALL)
    ticks = range(0, num_columns, math.ceil(num_columns / 15))
    axes.set_xticks([t + 0.5 for t in ticks], [str(t) for t in ticks], fontsize=_SMALL)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("trained generation", fontsize=_SMALL + 1)
    axes.set_title(title, fontsize=9.5, loc="left")
    if num_columns <= _MAX_NUMBERS:
        for (row, column), share in np.ndenumerate(values):
            if np.isfinite(share):
                colour = "black" if share > 0.5 else "white"
                place = {"ha": "center", "va": "center", "fontsize": 7}
                axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", color=colour, **place)


def _is_trained_on(pool: pd.DataFrame) -> pd.Series:
    """Which images of a pool the model was fitted to: at some noise level, with a positive probability."""
    return (pool["weight"] > 0) & (pool["gate"] > -math.inf)


def _tables(run: Run) -> Iterator[tuple[int, pd.DataFrame, pd.DataFrame]]:
    """Each generation with the images that entered the run at it and its training pool."""
    if not run.records:
        raise RunDirError(f"{run.path}: no generation is committed yet")
    for record in run.records:
        folder = run.path / f"gen_{record.generation:03d}"
        yield record.generation, read_table(folder / IMAGES), read_table(folder / TRAINED)


def _percent(share: float) -> str:
    """A share as text, which says 0 % and 100 % only where it is that."""
    if not math.isfinite(share):
        return "n/a"
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if round(share, 12) in (0, 1) else f"{min(100 * share, 99.9):.1f} %"
