"""All metrics, images of all sides, and one process of two that scores them; importable by spawned processes."""

from pathlib import Path

import torch
import torch.distributed
from chains import composed

from collapse_bench.cli.config import build
from collapse_bench.metrics.base import GenerativeMetric
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.pool import REAL
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec

COUNTS = {"generated": 130, "reference": 170, "training": 90, "real": 110}


def sets() -> dict[str, ImageSet]:
    rng = torch.Generator().manual_seed(4)

    def draw(count: int, born: torch.Tensor) -> ImageSet:
        labels = torch.randint(0, 3, (count,), generator=rng)
        return ImageSet(
            images=torch.randint(0, 200, (count, 1, 8, 8), generator=rng, dtype=torch.uint8)
            + 20 * labels[:, None, None, None].byte(),
            labels=labels,
            features=torch.randn(count, 6, generator=rng) + labels[:, None],
            probabilities=torch.rand(count, 3, generator=rng).double().softmax(1),
            born=born,
        )

    return {side: draw(n, torch.where(torch.arange(n) % 2 == 0, REAL, 0)) for side, n in COUNTS.items()}


def metrics() -> dict[str, GenerativeMetric]:
    config = composed("metrics=full", "metrics.utility.classifier.num_steps=3")
    made = build(config["metrics"], "metrics")
    generative = {name: metric for name, metric in made.items() if isinstance(metric, GenerativeMetric)}
    for metric in generative.values():
        metric.check(ImageSpec(1, 8, 8, ("a", "b", "c")), True, TrainerOptions(num_threads=1))
    return generative


def numbers(metric: GenerativeMetric) -> dict[str, str]:
    # Sums over other groups of rows may differ in the last digits.
    return {name: f"{estimate.value:.9g}" for name, estimate in metric.compute().items()}


def in_one_of_two(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    results = {}
    for name, metric in metrics().items():
        for side, images in sets().items():
            if side in metric.sides:
                # The first process gets most of the images in one batch, the second the rest in several.
                first = 7 * COUNTS[side] // 10
                parts = [slice(first)] if rank == 0 else [slice(first, first + 9), slice(first + 9, None)]
                for part in parts:
                    metric.update(images.take(part), side=side)
        results[name] = numbers(metric)
    torch.save(results, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
