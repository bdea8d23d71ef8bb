"""Figures of runs, as matplotlib figures to restyle and save; no pyplot, so nothing is left behind.

All take loaded runs (``find_runs``, ``load_run``) and return a ``Figure``, its axes in ``figure.axes``.
"""

from collapse_bench.analysis.figures.against import plot_against
from collapse_bench.analysis.figures.class_shares import (
    has_class_shares,
    highest_class_share,
    plot_class_share_maps,
    plot_class_shares,
)
from collapse_bench.analysis.figures.curves import MAX_CURVES, plot_arm_curves, plot_curves, plot_legend
from collapse_bench.analysis.figures.families import arm_families
from collapse_bench.analysis.figures.files import write_figures
from collapse_bench.analysis.figures.pools import arms_by_pools, plot_pools, pool_shares
from collapse_bench.analysis.figures.samples import (
    REAL_ROW,
    last_sample_rows,
    montage,
    plot_last_samples,
    plot_samples,
    sample_rows,
)
from collapse_bench.analysis.figures.standing import plot_scoreboard, plot_standing
from collapse_bench.analysis.figures.style import OKABE_ITO, measured

__all__ = [
    "MAX_CURVES",
    "OKABE_ITO",
    "REAL_ROW",
    "arm_families",
    "arms_by_pools",
    "has_class_shares",
    "highest_class_share",
    "last_sample_rows",
    "measured",
    "montage",
    "plot_against",
    "plot_arm_curves",
    "plot_class_share_maps",
    "plot_class_shares",
    "plot_curves",
    "plot_last_samples",
    "plot_legend",
    "plot_pools",
    "plot_samples",
    "plot_scoreboard",
    "plot_standing",
    "pool_shares",
    "sample_rows",
    "write_figures",
]
