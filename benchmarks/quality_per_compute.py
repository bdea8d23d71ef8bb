"""Quality of generation 0 against seconds of training, per family: a table and a figure.

    uv run collapse-run -m experiment=suite/quality_mnist dataset.root=data
    uv run python benchmarks/quality_per_compute.py runs/suite_quality_mnist

Reads the runs in a folder and writes ``quality.md`` and ``quality.png`` into it (or into ``--out``). Seconds are those
of the fit, from the records, on the threads that the runs had; a fit that came from the store is refused, because its
seconds are unknown.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from of_runs import show

from collapse_bench.analysis.figures import OKABE_ITO
from collapse_bench.analysis.runs import Run

METRICS = {"fid": "FID", "precision": "precision", "recall": "recall"}
MARKERS = "osD^vP"


def by_family(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by their generator, and whether it knows the class; the shorter trainings first."""
    families: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=steps_of):
        if "fit" in run.records[0].spent.reused:
            sys.exit(f"{run.path}: its fit came from the store; delete the folder and run it with an empty cache.root")
        without = "" if run.settings["generator.conditional"] else ", no classes"
        families[f"{run.choices['generator']}{without}"].append(run)
    return dict(sorted(families.items()))


def steps_of(run: Run) -> int:
    """Gradient steps of generation 0."""
    return int(run.settings["budget.num_steps_initial"])


def seconds_of(run: Run) -> float:
    """Seconds that the fit of generation 0 took."""
    return run.records[0].spent.seconds["fit"]


def table(families: Mapping[str, Sequence[Run]]) -> str:
    """A row per run, in Markdown; the floor of each score is in the head."""
    runs = [run for members in families.values() for run in members]
    heads = [f"{name} (floor {runs[0].floor(metric):#.3g})" for metric, name in METRICS.items()]
    rows = [["family", "parameters", "steps", "seconds", *heads], ["---"] * (4 + len(heads))]
    for family, members in families.items():
        for run in members:
            values = [f"{run.records[0].score(metric, 'model'):#.3g}" for metric in METRICS]
            parameters = f"{run.records[0].num_parameters:,}"
            rows.append([family, parameters, f"{steps_of(run):,}", f"{seconds_of(run):.0f}", *values])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def figure_of(families: Mapping[str, Sequence[Run]]) -> Figure:
    """A panel per score over seconds, a line per family, the real-vs-real floor dashed."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, len(METRICS))
    for axes, (metric, name) in zip(panels, METRICS.items(), strict=True):
        for (family, members), color, marker in zip(families.items(), OKABE_ITO, MARKERS, strict=False):
            x = [seconds_of(run) for run in members]
            y = [run.records[0].score(metric, "model") for run in members]
            axes.plot(x, y, color=color, marker=marker, label=family)
        axes.axhline(next(iter(families.values()))[0].floor(metric), color="#555555", linestyle="--", label="floor")
        axes.set_xscale("log")
        if metric == "fid":
            axes.set_yscale("log")
        axes.set_title(name)
        axes.set_xlabel("seconds of training")
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def of_families(runs: Sequence[Run]) -> tuple[str, Figure]:
    """The table and the figure."""
    families = by_family(runs)
    return table(families), figure_of(families)


if __name__ == "__main__":
    show(__doc__, "quality", of_families)
