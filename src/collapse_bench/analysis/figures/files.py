"""The figures of a set of runs as files in a folder."""

import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from collapse_bench.analysis.figures.against import plot_against
from collapse_bench.analysis.figures.class_shares import (
    has_class_shares,
    highest_class_share,
    plot_class_share_maps,
    plot_class_shares,
)
from collapse_bench.analysis.figures.curves import MAX_CURVES, plot_arm_curves, plot_curves
from collapse_bench.analysis.figures.pools import plot_pools
from collapse_bench.analysis.figures.samples import last_sample_rows, plot_last_samples, plot_samples
from collapse_bench.analysis.figures.standing import plot_scoreboard, plot_standing
from collapse_bench.analysis.figures.style import TITLE
from collapse_bench.analysis.runs import Run, group_by_arm, headline

_KINDS = ("curves", "samples", "class_shares", "against", "standing", "scoreboard", "pools")


def write_figures(runs: Sequence[Run], folder: str | Path, *, setting: str | None = None) -> list[Path]:
    """Saves the figures as PNG, and returns the files.

    These are the curves, and per arm the sample grid and the class shares of its first seed. With more than
    ``MAX_CURVES`` arms they are small multiples: the curves a file per metric with a panel per arm, the class shares
    and the samples one file of all arms. Where there are several arms, also where they stand and their pools.

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
    arms = group_by_arm(runs)
    figures = _of_all_arms(runs) if len(arms) > MAX_CURVES else _of_each_arm(runs)
    if len(arms) > 1:
        figures |= {"standing": plot_standing(runs), "scoreboard": plot_scoreboard(runs), "pools": plot_pools(runs)}
    if setting is not None:
        figures[f"against_{setting}"] = plot_against(runs, setting)
    for kind in _KINDS:
        for earlier in [folder / f"{kind}.png", *folder.glob(f"{kind}_*.png")]:
            earlier.unlink(missing_ok=True)
    files = [folder / f"{name}.png" for name in figures]
    for file, figure in zip(files, figures.values(), strict=True):
        figure.savefig(file, dpi=150)
    return files


def _of_each_arm(runs: Sequence[Run]) -> dict[str, Figure]:
    figures = {"curves": plot_curves(runs)}
    highest = highest_class_share(runs)
    for number, (arm, members) in enumerate(group_by_arm(runs).items()):
        first = members[0]
        stem = f"{number:02d}_{re.sub(r'[^A-Za-z0-9._=-]+', '_', arm)[:80]}_seed_{first.seed}"
        if first.records and first.has_images:
            figures[f"samples_{stem}"] = plot_samples(first, title=f"Samples: {arm}, seed {first.seed}")
        if has_class_shares(first):
            shares = plot_class_shares(first, highest=highest)
            shares.suptitle(f"Class shares in %: {arm}, seed {first.seed}", **TITLE)
            figures[f"class_shares_{stem}"] = shares
    return figures


def _of_all_arms(runs: Sequence[Run]) -> dict[str, Figure]:
    figures = {f"curves_{metric}": plot_arm_curves(runs, metric) for metric in headline(runs)}
    if last_sample_rows(runs):
        figures["samples"] = plot_last_samples(runs)
    if any(has_class_shares(members[0]) for members in group_by_arm(runs).values()):
        figures["class_shares"] = plot_class_share_maps(runs)
    return figures
