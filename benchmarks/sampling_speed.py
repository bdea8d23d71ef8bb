"""How many images each sampler makes per second, with the networks that each family has by default.

    uv run python benchmarks/sampling_speed.py [--digits 10000] [--mnist 1000] [--seconds 20]

All samplers run in turn in one process of one thread, on networks as they are before any training, which cost the same;
seconds are those of the CPU. A sampler that would take longer than ``--seconds`` makes fewer images, in whole batches,
and its time for all of them is worked out from those. Ratios are to the first sampler of the table.
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from collapse_bench.cli.config import build, conf_dir, resolve
from collapse_bench.generators.base import Model
from collapse_bench.samplers.base import Sampler
from collapse_bench.types import ImageSpec

CLASSES = tuple("0123456789")
SPECS = {"digits": ImageSpec(1, 8, 8, CLASSES), "mnist": ImageSpec(1, 28, 28, CLASSES)}
GENERATORS = {
    "digits": {"flow": "flow", "ddpm": "ddpm", "edm": "edm", "vae": "vae"},
    "mnist": {"flow, U-Net": "flow_unet", "ddpm, U-Net": "ddpm", "edm, U-Net": "edm", "vae, convolutional": "vae_conv"},
}
OTHERS = ("gaussian", "population")
"""Samplers that are left out: of the closed form, and of several families."""
BATCH = {"digits": 500, "mnist": 20}
"""Images made at once; the larger ones in small batches, so that the clock can stop between two of them."""
WARM_UP = 10
"""Images that the network sees before the clock starts."""


def part(group: str, *overrides: str) -> Any:
    """What a configuration describes."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return build(resolve(compose("run", overrides=list(overrides)))[group], group)


@dataclass(frozen=True)
class Speed:
    """Images made, and the CPU seconds that it took."""

    num_images: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.num_images / self.seconds


def speed(model: Model, sampler: Sampler, count: int, limit: float) -> Speed:
    """Makes whole batches until there are ``count`` images or the limit in seconds has passed."""
    with torch.no_grad():
        model.loss(torch.zeros(WARM_UP, *model.spec.shape), torch.zeros(WARM_UP, dtype=torch.int64))
    begin, made = time.process_time(), 0
    while made < count and time.process_time() - begin < limit:
        batch = min(sampler.batch_size, count - made)
        sampler.sample(model, torch.arange(made, made + batch))
        made += batch
    return Speed(made, time.process_time() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=int, default=10_000)
    parser.add_argument("--mnist", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = sorted(path.stem for path in (Path(conf_dir()) / "sampler").glob("*.yaml"))
    samplers: dict[str, Sampler] = {name: part("sampler", f"sampler={name}") for name in names if name not in OTHERS}
    for data, count in (("digits", arguments.digits), ("mnist", arguments.mnist)):
        if not count:
            continue
        print(f"\n| {data} | sampler | evaluations | images/s | s for {count:,} | ratio |\n|---|---|---|---|---|---|")
        first: Speed | None = None
        for family, option in GENERATORS[data].items():
            network = ["generator/network=unet_tiny"] if family.endswith("U-Net") else []
            model: Model = part("generator", f"generator={option}", *network).empty_model(SPECS[data]).eval()
            for name, sampler in samplers.items():
                if not sampler.fits(model):
                    continue
                found = speed(model, replace(sampler, batch_size=BATCH[data]), count, arguments.seconds)
                first = first or found
                print(
                    f"| {family} | `{name}` | {sampler.num_evaluations} | {found.rate:,.1f} | "
                    f"{count / found.rate:,.1f} | {found.rate / first.rate:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
