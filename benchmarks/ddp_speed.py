"""Two processes against one: training steps and samples per second of the flow U-Net on images of 28x28.

Two processes of one thread each (DDP), one process of one thread and one process of two threads take turns on the same
number of cores; ratios are to the first of these. Usage::

    uv run python benchmarks/ddp_speed.py [--steps 20] [--samples 64] [--repeats 3]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from collapse_bench.distributed import from_main, is_main, join
from collapse_bench.generators.diffusion import Diffusion
from collapse_bench.generators.processes import FlowMatching
from collapse_bench.networks.unet import UNet
from collapse_bench.pool import Pool
from collapse_bench.samplers.flow import FlowSampler
from collapse_bench.seeding import isolated_rng
from collapse_bench.training import FitJob, Optimisation, TrainerOptions
from collapse_bench.types import ImageSpec

SPEC = ImageSpec(1, 28, 28, tuple("0123456789"))
SETTINGS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread": (2, 1)}


def generator() -> Diffusion:
    """The U-Net of ``generator=flow_unet generator/network=unet_small``."""
    return Diffusion(
        start="scratch",
        network=UNet(channels=48, multipliers=(1, 2), attention_at=(7, 8), patch=2),
        process=FlowMatching(times="logit_normal", coupling="independent"),
        conditional=False,
        condition_dropout=0.0,
        optimisation=Optimisation(batch_size=64, max_grad_norm=1.0, ema_width=0.05),
    )


def measure(num_processes: int, num_threads: int, num_steps: int, num_samples: int) -> None:
    """Prints the seconds of one fit and of one sampling, after both have been warmed up; what the parent reads."""
    strategy = "ddp" if num_processes > 1 else "single"
    options = TrainerOptions(num_threads=num_threads, strategy=strategy, num_processes=num_processes)
    join(options.strategy, options.num_processes, options.accelerator)
    options.apply()
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1000, *SPEC.shape), generator=rng, dtype=torch.uint8)
    pool = Pool.real(images, torch.arange(1000) % 10, "noise")
    recipe = generator()
    with isolated_rng(0):
        model = recipe.empty_model(SPEC)
    sampler = FlowSampler(
        temperature=1.0, truncation=None, guidance=0.0, quantize=True, batch_size=20, num_steps=10, early_stop=0.0,
        method="euler",
    )  # fmt: skip

    def fit(steps: int) -> None:
        recipe.fit_model(model, pool, torch.ones(len(pool)), FitJob(steps, 0, options, "the benchmark"))

    def sample(count: int) -> None:
        sampler.sample(model.eval(), torch.arange(count))

    fit(2)
    sample(4)
    times = {"fit": seconds(lambda: fit(num_steps)), "sample": seconds(lambda: sample(num_samples))}
    if is_main():
        print(json.dumps(times))


def seconds(function: Callable[[], object]) -> float:
    from_main(lambda: None)  # all processes begin together
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def turn(num_processes: int, num_threads: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds in processes of their own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    command = [
        *(sys.executable, *(launcher if num_processes > 1 else []), __file__),
        *(f"--measure={num_processes},{num_threads}", f"--steps={arguments.steps}", f"--samples={arguments.samples}"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", help="processes,threads: take one turn and print its seconds")
    arguments = parser.parse_args()
    if arguments.measure:
        num_processes, num_threads = map(int, arguments.measure.split(","))
        measure(num_processes, num_threads, arguments.steps, arguments.samples)
        return
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    for _ in range(arguments.repeats):
        for name, (num_processes, num_threads) in SETTINGS.items():
            turns[name].append(turn(num_processes, num_threads, arguments))
    print(f"{'':22s} {'steps/s':>8s} {'ratio':>6s} {'samples/s':>10s} {'ratio':>6s}")
    first: tuple[float, float] | None = None
    for name, times in turns.items():
        steps = arguments.steps / statistics.median(t["fit"] for t in times)
        samples = arguments.samples / statistics.median(t["sample"] for t in times)
        first = first or (steps, samples)
        print(f"{name:22s} {steps:8.2f} {steps / first[0]:6.2f} {samples:10.2f} {samples / first[1]:6.2f}")


if __name__ == "__main__":
    main()
