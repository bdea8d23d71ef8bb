"""Images that were made elsewhere, measured as generated ones are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from collapse_bench.analysis.tables import FLOOR
from collapse_bench.assembly import assemble_measurer
from collapse_bench.cli.chain import open_store
from collapse_bench.cli.config import build, chosen_options, flatten
from collapse_bench.cli.scoring import GROUPS, REPLACEABLE, circumstances, plain_score, say, show_scores, write_numbers
from collapse_bench.datasets.foreign import read_samples
from collapse_bench.pool import UNLABELLED
from collapse_bench.seeding import RUN_LEVEL, Role, Stream


def measure_samples(path: Path, config: Mapping[str, Any], console: Console) -> None:
    """Measures images that were made elsewhere, and writes the numbers where the configuration asks for it.

    Args:
        path: of the images.
        config: the composed configuration.
        console: for the table.

    Raises:
        CollapseBenchError: for what the user can mend.
    """
    encoders, metrics, trainer = (build(config[name], name) for name in REPLACEABLE)
    with console.status("data set and samples") as status:
        data = build(config["dataset"], "dataset").load()
        images = read_samples(path, data.spec)
        control = data.held_out.control
        count = min(len(images), len(control))
        rng = Stream(config["seed"], RUN_LEVEL, Role.MEASURE).generator()
        chosen = images[torch.randperm(len(images), generator=rng)[:count]]
        status.update("encoder and floor")
        measurer = assemble_measurer(
            data,
            encoders,
            metrics,
            num_measured=count,
            num_floor_splits=config["num_floor_splits"],
            trainer=trainer,
            store=open_store(config["cache"]),
        )
        status.update("scores")
        measurer.see_training(data.pool)
        unlabelled = torch.full((count,), UNLABELLED)
        scores = {FLOOR: measurer.floor(), "samples": measurer.score(chosen, unlabelled, of="samples")}

    if len(images) > count:
        say(
            console,
            f"{path} holds {len(images):,} images; a random {count:,} of them (seed={config['seed']}) are scored, as "
            "many as the control set has, so that the floor has the same sample size",
        )
    elif len(control) > count:
        say(
            console,
            f"{path} holds {count:,} images, all are scored; the floor is of as many of the {len(control):,} control "
            "images",
        )
    show_scores(console, f"{path} against {data.name}", scores)
    if config["out"] is not None:
        choices = chosen_options()
        samples = {"path": str(path.resolve()), "num_found": len(images), "num_scored": count, "seed": config["seed"]}
        write_numbers(
            Path(config["out"]).expanduser(),
            {
                "samples": samples,
                "data": data.content_hash,
                **circumstances(choices, flatten({group: config[group] for group in GROUPS}), measurer),
                "scores": [plain_score(score) for of in ("samples", FLOOR) for score in scores[of]],
            },
            console,
        )
