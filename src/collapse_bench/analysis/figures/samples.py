"""Sample grids: what a run's images look like generation by generation, and what all arms end with."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from collapse_bench.analysis.figures.style import SMALL, TITLE
from collapse_bench.analysis.runs import Run, group_by_arm
from collapse_bench.errors import RunDirError

REAL_ROW = "real images"
"""Label of the row of real images, which are other images than the samples below them; no arm is called so."""

_MAX_ROWS = 13
_WIDTH = 5.8
"""Of a row of images, in inches."""


def sample_rows(run: Run) -> dict[str, np.ndarray]:
    """Real images, then the samples of each generation, by the label of their row: uint8 [k, h, w, c], k the same.

    Long chains show evenly spaced generations, the first and the last among them.

    Raises:
        RunDirError: if a grid is missing or damaged, or no generation is committed yet.
    """
    if not run.records:
        raise RunDirError(f"{run.path}: no generation is committed yet")
    shown = np.unique(np.linspace(0, len(run.records) - 1, min(len(run.records), _MAX_ROWS)).round().astype(int))
    return _of_equal_length({REAL_ROW: run.real_grid} | {f"generation {t}": run.grid(int(t)) for t in shown})


def last_sample_rows(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """What the first seed of each arm ends with, by the arm: uint8 [k, h, w, c]; a column is one image seed.

    The real images are first, then what the first arm started with. Arms without images, and those whose first seed is
    not that of the first arm, are left out: other seeds make other images.

    Raises:
        RunDirError: if a grid is missing or damaged, or the runs do not compare.
    """
    first = {arm: members[0] for arm, members in group_by_arm(runs).items()}
    shown = {arm: run for arm, run in first.items() if run.records and run.has_images}
    if not shown:
        return {}
    name, one = next(iter(shown.items()))
    rows = {REAL_ROW: one.real_grid, f"generation 0 of {name}": one.grid(0)}
    rows |= {arm: run.grid(len(run.records) - 1) for arm, run in shown.items() if run.seed == one.seed}
    return _of_equal_length(rows)


def plot_samples(run: Run, *, title: str | None = None) -> Figure:
    """The sample grid of a run: real images on top, then a row per generation; a column keeps its image seed.

    Long chains show evenly spaced generations, the first and the last among them.

    Args:
        run: with at least one generation.
        title: to stand above the grid.

    Raises:
        RunDirError: if a grid is missing or damaged, or no generation is committed yet.
    """
    return _draw_rows(sample_rows(run), title)


def plot_last_samples(runs: Sequence[Run]) -> Figure:
    """What the first seed of each arm ends with, a row per arm below the real images; see ``last_sample_rows``.

    Raises:
        RunDirError: if no arm has images, a grid is missing or damaged, or the runs do not compare.
    """
    rows = last_sample_rows(runs)
    if not rows:
        raise RunDirError("no arm has sample grids")
    return _draw_rows(rows)


def montage(images: np.ndarray) -> np.ndarray:
    """Images [k, h, w, c] side by side with a white gap, as [h + 2, k (w + 2), 3]."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    row = np.concatenate(list(padded), axis=1)
    return np.repeat(row, 3, axis=-1) if row.shape[-1] == 1 else row


def _draw_rows(rows: Mapping[str, np.ndarray], title: str | None = None) -> Figure:
    montages = [montage(images) for images in rows.values()]
    # A wider gap sets the real images apart from the samples.
    gap = np.full((6, *montages[0].shape[1:]), 255, dtype=np.uint8)
    picture = np.concatenate([montages[0], gap, *montages[1:]])

    height, width = picture.shape[:2]
    left, tall = 0.075 * max(map(len, rows)) + 0.1, _WIDTH * height / width
    size = (left + _WIDTH + 0.05, tall + (0.4 if title is None else 0.65))
    figure = Figure(figsize=size)
    if title is not None:
        figure.suptitle(title, **TITLE)
    axes = figure.add_axes((left / size[0], 0.35 / size[1], _WIDTH / size[0], tall / size[1]))
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    row_height = len(montages[0])
    centres = [(i + 0.5) * row_height + (len(gap) if i else 0) - 0.5 for i in range(len(rows))]
    axes.set_yticks(centres, list(rows), fontsize=SMALL)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    words = "samples: one image seed per column; real images: other images, to compare with"
    axes.set_xlabel(words, fontsize=SMALL, loc="left")
    return figure


def _of_equal_length(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    num_images = min(map(len, rows.values()))
    return {label: images[:num_images] for label, images in rows.items()}
