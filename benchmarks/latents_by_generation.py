"""Latent statistics of a chain of VAEs, generation by generation, beside the headline numbers: a table and a figure.

    uv run collapse-run experiment=shumailov2024_mnist_vae dataset.root=data
    uv run python benchmarks/latents_by_generation.py runs

Reads the runs in a folder, all of one arm, and writes ``latents.md`` and ``latents.png`` into it (or into ``--out``):
means over the seeds with the intervals of reports, or of one seed its numbers. The first row is the control set:
held-out real images, scored as samples are.
"""

import sys
from collections.abc import Sequence

from matplotlib.figure import Figure
from of_runs import show

from collapse_bench.analysis.figures import plot_curves
from collapse_bench.analysis.runs import Run, group_by_arm
from collapse_bench.analysis.statistics import summarize
from collapse_bench.analysis.tables import format_interval, label

METRICS = (
    "latent_sd",
    "latent_mean",
    "fid",
    "precision",
    "recall",
    "within_class_variance_ratio",
    "tail_mass",
    "class_kl",
    "held_out_loss",
)


def table(runs: Sequence[Run]) -> str:
    """A row for the control set and one per generation, in Markdown; what the control set does not have stays empty."""

    def row(name: str, generation: int, of: str) -> list[str]:
        intervals = {metric: summarize([run.value(generation, metric, of) for run in runs]) for metric in METRICS}
        return [name, *(format_interval(metric, i) if i.n else "" for metric, i in intervals.items())]

    last = min(len(run.records) for run in runs)
    rows = [["generation", *map(label, METRICS)], ["---:"] * (1 + len(METRICS)), row("real images", 0, "control")]
    rows += [row(str(t), t, "model") for t in range(last)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def figure_of(runs: Sequence[Run]) -> Figure:
    """A panel per number over the generations, with the real-vs-real floor."""
    return plot_curves(runs, ["latent_sd", "recall", "within_class_variance_ratio", "fid"])


def of_one_arm(runs: Sequence[Run]) -> tuple[str, Figure]:
    """The table and the figure; stops where there is no arm, or more than one."""
    if len(group_by_arm(runs)) != 1:
        sys.exit(f"complete runs of exactly one arm are needed, and there are {len(group_by_arm(runs))} arms")
    return table(runs), figure_of(runs)


if __name__ == "__main__":
    show(__doc__, "latents", of_one_arm)
