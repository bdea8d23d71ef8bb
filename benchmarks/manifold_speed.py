"""What precision, recall, density and coverage cost, against the ``prdc`` package.

Both score the same features in turn, several times, in one process of one BLAS thread. Seconds are those of the CPU,
over all threads, because ``prdc`` starts eight of its own. Peak memory is by what the resident set of a fresh process
grows, beyond imports and features (Linux only). Usage::

    uv run python benchmarks/manifold_speed.py [--images 10000] [--features 64 512 2048] [--repeats 3]
"""

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from prdc import compute_prdc
from threadpoolctl import threadpool_limits
from torch import Tensor

from collapse_bench.metrics.base import Estimate
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.metrics.manifold import Manifold

K = 5


def draw(num_images: int, num_features: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    generated, reference = torch.randn(2, num_images, num_features, generator=rng)
    return generated, reference


def prdc(generated: Tensor, reference: Tensor) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of joblib, about how prdc calls it, once per thread
        return compute_prdc(reference.numpy(), generated.numpy(), K)


def update(metric: Manifold, side: Any, features: Tensor) -> None:
    metric.update(ImageSet(features=features, labels=torch.zeros(len(features)).long()), side=side)


def ours(generated: Tensor, reference: Tensor) -> dict[str, Estimate]:
    metric = Manifold(num_neighbours=K)
    update(metric, "reference", reference)
    update(metric, "generated", generated)
    return metric.compute()


def ours_again(generated: Tensor, reference: Tensor) -> Callable[[], dict[str, Estimate]]:
    """Scores a set against a reference that has been used before."""
    metric = Manifold(num_neighbours=K)
    update(metric, "reference", reference)
    update(metric, "generated", generated[: K + 1])
    metric.compute()

    def score() -> dict[str, Estimate]:
        metric.reset()
        update(metric, "generated", generated)
        return metric.compute()

    return score


def cpu_seconds(function: Callable[[], object]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def peak_mb(what: str, num_images: int, num_features: int) -> float:
    """Peak memory of one run in a process of its own."""
    command = [sys.executable, __file__, "--peak", what, "--images", str(num_images), "--features", str(num_features)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(what: str, num_images: int, num_features: int) -> None:
    function = {"prdc": prdc, "ours": ours}[what]
    function(*draw(100, num_features))  # what is loaded on first use is no memory of the metric
    features = draw(num_images, num_features)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident_mb("VmRSS")
    function(*features)
    print(resident_mb("VmHWM") - before)


def resident_mb(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--features", type=int, nargs="+", default=[64, 512, 2048])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", choices=["prdc", "ours"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        if arguments.peak:
            print_peak(arguments.peak, arguments.images, arguments.features[0])
            return
        print("CPU seconds (ratio) and peak MB (ratio)")
        print(f"{'D':>5s} {'prdc':>7s} {'ours':>14s} {'ours, reference kept':>21s} {'prdc MB':>8s} {'ours MB':>16s}")
        for num_features in arguments.features:
            generated, reference = draw(arguments.images, num_features)
            again = ours_again(generated, reference)
            times: dict[str, list[float]] = {"prdc": [], "ours": [], "again": []}
            for _ in range(arguments.repeats):
                times["prdc"].append(cpu_seconds(lambda: prdc(generated, reference)))  # noqa: B023
                times["ours"].append(cpu_seconds(lambda: ours(generated, reference)))  # noqa: B023
                times["again"].append(cpu_seconds(again))
            theirs, first, later = (statistics.median(times[name]) for name in ("prdc", "ours", "again"))
            theirs_mb, ours_mb = (peak_mb(what, arguments.images, num_features) for what in ("prdc", "ours"))
            print(
                f"{num_features:5d} {theirs:7.2f} {first:7.2f} ({theirs / first:4.1f}) {later:14.2f} "
                f"({theirs / later:4.1f}) {theirs_mb:8.0f} {ours_mb:9.0f} ({theirs_mb / ours_mb:4.1f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
