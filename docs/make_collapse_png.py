"""Draws the picture at the top of the README from a finished run: `python docs/make_collapse_png.py RUN`."""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from collapse_bench.analysis.figures import OKABE_ITO, montage, sample_rows
from collapse_bench.analysis.runs import Run, load_run, seed_curves

_PRECISION, _RECALL = OKABE_ITO[1], OKABE_ITO[0]
_NUM_IMAGES = 14
_GAP = 4
"""Pixels between the real images and the samples."""
_FLOOR = {"color": "#555555", "linestyle": (0, (3, 3)), "linewidth": 1.2}


def draw(run: Run) -> Figure:
    """The samples of each generation, and beside them precision and recall with what real images score."""
    samples = _montage(run)
    # As high as makes sample pixels square.
    figure = Figure(figsize=(9.6, 9.6 * 0.5 / 0.83 * len(samples) / samples.shape[1]))
    _draw_samples(figure, run, samples)
    axes = figure.add_axes((0.665, 0.15, 0.25, 0.73))
    for metric, color, marker in (("precision", _PRECISION, "s"), ("recall", _RECALL, "o")):
        curve = seed_curves([run], metric)[run.seed]
        axes.plot(curve, linewidth=2, markersize=5, color=color, marker=marker)
        # Above precision and below recall, where no line is.
        side = (1, 7, "bottom") if metric == "precision" else (-1, -9, "top")
        place = {"ha": "right", "va": side[2], "fontsize": 10, "weight": "bold"}
        axes.annotate(
            f"{metric} {curve.iloc[-1]:.2f}",
            (curve.index[-1] + 0.15, curve.iloc[-1]),
            (0, side[1]),
            textcoords="offset points",
            color=color,
            **place,
        )
    axes.axhline(run.floor("recall"), zorder=1, **_FLOOR)
    axes.annotate(
        "real\nimages", (1.02, run.floor("recall")), xycoords=("axes fraction", "data"), va="center", fontsize=9
    )
    axes.set_ylim(0, 1.14)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("generation")
    axes.set_title("What is measured", loc="left", fontsize=11, weight="bold")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _montage(run: Run) -> np.ndarray:
    real, *samples = (montage(images[:_NUM_IMAGES]) for images in sample_rows(run).values())
    gap = np.full((_GAP, *real.shape[1:]), 255, dtype=np.uint8)
    return np.concatenate([real, gap, *samples])


def _draw_samples(figure: Figure, run: Run, samples: np.ndarray) -> None:
    axes = figure.add_axes((0.095, 0.05, 0.5, 0.83))
    axes.imshow(samples, interpolation="nearest", aspect="auto")
    labels = list(sample_rows(run))
    height = (len(samples) - _GAP) / len(labels)
    axes.set_yticks([(i + 0.5) * height + (_GAP if i else 0) - 0.5 for i in range(len(labels))], labels, fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("What the model makes", loc="left", fontsize=11, weight="bold")


def main() -> None:
    """Writes ``collapse.png`` beside this file."""
    file = Path(__file__).with_name("collapse.png")
    draw(load_run(sys.argv[1])).savefig(file, dpi=200)


if __name__ == "__main__":
    main()
