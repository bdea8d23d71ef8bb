"""The work of ``collapse-measure selftest``: what each number sees of damaged real images."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from omegaconf import DictConfig
from rich.console import Console

from collapse_bench.analysis.formats import to_markdown, to_text
from collapse_bench.analysis.sensitivity import overall, plot_sensitivity, shift_table, sight_table
from collapse_bench.assembly import check_measures
from collapse_bench.cli.chain import open_store
from collapse_bench.cli.config import build, chosen_options, resolve
from collapse_bench.datasets.base import RealImages
from collapse_bench.errors import ConfigError, RunDirError
from collapse_bench.metrics.base import GenerativeMetric
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.ruler import image_set, rulers_of
from collapse_bench.seeding import RUN_LEVEL, Role, Stream
from collapse_bench.selftest import Effect, power_study, self_test

_MAX_SAMPLES = 1000
_MAX_TRAINING = 5000


def show_what_metrics_see(composed: DictConfig) -> None:
    """Damages real images, scores them, shows the table and writes it.

    Raises:
        CollapseBenchError: for what the user can mend.
    """
    config = resolve(composed)
    _check(config)
    console = Console()
    encoders, metrics, trainer = (build(config[name], name) for name in ("encoder", "metrics", "trainer"))
    trainer.apply()
    with console.status("data set and encoder") as status:
        data = build(config["dataset"], "dataset").load()
        check_measures(encoders, metrics, data.spec, trainer.exact)
        store = open_store(config["cache"])
        fitted = {
            name: encoder.fit(data.not_held_out, data.spec, trainer.exact, store) for name, encoder in encoders.items()
        }
        counts, held_out, training = _images(data, config)
        generative = [metric for metric in metrics.values() if isinstance(metric, GenerativeMetric)]
        rulers = rulers_of(fitted, generative, held_out, store)
        status.update("damaged images")
        if config["damages"] == "gross":
            effects = self_test(rulers, held_out, training, **counts)
        else:
            effects = [effect for ruler in rulers for effect in power_study(ruler, held_out, training, **counts)]
    _show_and_write(effects, counts, config, console)


def _check(config: Mapping[str, Any]) -> None:
    if config["damages"] not in ("gross", "subtle"):
        raise ConfigError(f"damages must be one of gross, subtle; got {config['damages']!r}")
    for key, low in (("num_samples", 20), ("num_reference", 20), ("num_replicates", 2)):
        value = config[key]
        if value is None and key != "num_replicates":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ConfigError(f"{key} must be a whole number of at least {low}, got {value!r}")


def _images(data: RealImages, config: Mapping[str, Any]) -> tuple[dict[str, int], ImageSet, ImageSet]:
    """Counts, the held-out images, and as much of the real pool as damages need."""
    held_out = ImageSet.concat([image_set(data.held_out.reference), image_set(data.held_out.control)])
    num_samples = config["num_samples"] or min(len(held_out) // 4, _MAX_SAMPLES)
    counts = {
        "num_samples": num_samples,
        "num_reference": config["num_reference"] or num_samples,
        "num_replicates": config["num_replicates"],
    }
    if config["damages"] == "gross":
        # Every damage of pixels is encoded anew, so no more images than replicates need to differ.
        enough = 2 * (counts["num_reference"] + 2 * num_samples)
        order = torch.randperm(len(held_out), generator=Stream(0, RUN_LEVEL, Role.SPLIT).generator())
        held_out = held_out.take(order[:enough])
    return counts, held_out, image_set(data.pool).take(slice(_MAX_TRAINING))


def _show_and_write(
    effects: Sequence[Effect], counts: Mapping[str, int], config: Mapping[str, Any], console: Console
) -> None:
    frame = pd.DataFrame([{**asdict(e), "z": e.z, "worsening": e.worsening, "sight": e.sight} for e in effects])
    table = sight_table(overall(frame)) if config["damages"] == "gross" else shift_table(overall(frame))
    choices = chosen_options()
    title = (
        f"{choices['dataset']}, {choices['encoder']}: {counts['num_samples']:,} samples against "
        f"{counts['num_reference']:,} real images, {counts['num_replicates']} replicates; shifts in standard deviations"
    )
    for line in (f"\n{title}", to_text(table, console.width)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if config["out"] is None:
        return
    folder = Path(config["out"]).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        command = shlex.join(["collapse-measure", "selftest", *sys.argv[1:]])
        (folder / "table.md").write_text(f"{title}\n\n{to_markdown(table)}\n\n`{command}`\n", encoding="utf-8")
        frame.to_csv(folder / "effects.csv", index=False)
        figure = plot_sensitivity(overall(frame))
        figure.savefig(folder / "heat_map.png", dpi=130)
        plt.close(figure)
    except OSError as error:
        raise RunDirError(f"cannot write to {folder}: {error}; name another folder with out=FOLDER") from error
    console.print(f"table, figure and all numbers: {folder}", highlight=False, soft_wrap=True, markup=False)
