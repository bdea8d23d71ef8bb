"""What the Fréchet distance costs, against ``scipy.linalg.sqrtm`` and the formula of ``torchmetrics``.

All get the same features in turn, several times, in one process of one BLAS thread; seconds are those of the CPU. Timed
are the trace term, for which the baselines are given both covariances and we are given their roots, and the whole
distance from the features of generated images, where both are given what follows from the reference alone. Usage::

    uv run python benchmarks/frechet_speed.py [--images 10000] [--features 64 512 2048] [--repeats 3]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import threadpool_limits
from torchmetrics.image.fid import _compute_fid

from collapse_bench.metrics.functional.frechet import frechet_distance_of_gaussians, moments


def timed(function: Callable[[], float]) -> tuple[float, float]:
    begin = time.process_time()
    value = function()
    return value, time.process_time() - begin


def cases(num_images: int, num_features: int) -> dict[str, Callable[[], float]]:
    """The distance by every way, from the moments alone and from the features."""
    rng = torch.Generator().manual_seed(0)
    # Spreads over a factor of ten, as features have; 0.9 is an early collapse.
    spread = torch.logspace(0, -1, num_features, dtype=torch.float64)
    reference = spread * torch.randn(num_images, num_features, generator=rng)
    generated = 0.9 * spread * torch.randn(num_images, num_features, generator=rng)
    of_generated, of_reference = moments(generated), moments(reference)
    mean_1, covariance_1 = generated.mean(0), generated.T.cov()
    mean_2, covariance_2 = reference.mean(0), reference.T.cov()

    def scipy_formula() -> float:
        root = np.asarray(scipy.linalg.sqrtm((covariance_1 @ covariance_2).numpy()))
        variances = covariance_1.trace() + covariance_2.trace()
        return ((mean_1 - mean_2).square().sum() + variances).item() - 2 * root.trace().real

    return {
        "scipy, trace": scipy_formula,
        "torchmetrics, trace": lambda: _compute_fid(mean_1, covariance_1, mean_2, covariance_2).item(),
        "ours, trace": lambda: frechet_distance_of_gaussians(of_generated, of_reference),
        "torchmetrics, all": lambda: _compute_fid(generated.mean(0), generated.T.cov(), mean_2, covariance_2).item(),
        "ours, all": lambda: frechet_distance_of_gaussians(moments(generated), of_reference),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--features", type=int, nargs="+", default=[64, 512, 2048])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    with threadpool_limits(1):
        for num_features in arguments.features:
            functions = cases(arguments.images, num_features)
            times: dict[str, list[float]] = {name: [] for name in functions}
            values: dict[str, float] = {}
            for _ in range(arguments.repeats):
                for name, function in functions.items():
                    values[name], seconds = timed(function)
                    times[name].append(seconds)
            medians = {name: statistics.median(seconds) for name, seconds in times.items()}
            print(f"D = {num_features}")
            for name, seconds in medians.items():
                ratio = seconds / medians["ours, " + name.split(", ")[1]]
                print(f"  {name:20s} {seconds:9.4f} s  ratio {ratio:5.1f}  value {values[name]:.10f}", flush=True)


if __name__ == "__main__":
    main()
