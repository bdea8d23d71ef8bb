"""What Lightning costs: our fit against a bare PyTorch loop over the same network, batches and steps.

Both sides run in turn, several times, in one process; the ratio of the medians is printed. Usage::

    uv run python benchmarks/fit_overhead.py [--threads 1] [--steps 300] [--repeats 5]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.utils import clip_grad_norm_

from collapse_bench.generators.base import Model
from collapse_bench.generators.diffusion import Diffusion
from collapse_bench.generators.processes import FlowMatching
from collapse_bench.generators.vae import VAE
from collapse_bench.networks.autoencoder import ConvAutoencoder, MLPAutoencoder
from collapse_bench.networks.mlp import ResidualMLP
from collapse_bench.networks.unet import UNet
from collapse_bench.pool import Pool
from collapse_bench.seeding import isolated_rng
from collapse_bench.training import Batches, FitJob, Optimisation, PowerAverage, TrainerOptions
from collapse_bench.types import ImageSpec

FLOW = Optimisation(batch_size=128, learning_rate=3e-3, max_grad_norm=1.0, ema_width=0.05)
ELBO = Optimisation(batch_size=128)


def flow(network: ResidualMLP | UNet) -> Diffusion:
    return Diffusion(
        start="scratch",
        network=network,
        process=FlowMatching(times="logit_normal", coupling="independent"),
        conditional=False,
        condition_dropout=0.0,
        optimisation=FLOW,
    )


def vae(network: MLPAutoencoder | ConvAutoencoder) -> VAE:
    return VAE(
        start="scratch",
        network=network,
        num_latents=20,
        beta=1.0,
        likelihood="bernoulli",
        decoder_scale=None,
        conditional=False,
        encoder_sees_class=False,
        condition_dropout=0.0,
        optimisation=ELBO,
    )


CASES = {
    "digits, flow, residual MLP": (8, flow(ResidualMLP())),
    "digits, flow, U-Net": (8, flow(UNet(channels=16))),
    "MNIST, VAE, MLP": (28, vae(MLPAutoencoder())),
    "MNIST, VAE, convolutional": (28, vae(ConvAutoencoder())),
}


def bare_loop(model: Model, pool: Pool, optimisation: Optimisation, num_steps: int) -> None:
    """The loop that one would write by hand, with the same optimiser, schedule, clipping and average."""
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=optimisation.learning_rate, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: optimisation.rate_at(k, num_steps))
    average = PowerAverage(model, optimisation.ema_width) if optimisation.ema_width else None
    batches = Batches(pool, torch.ones(len(pool)), optimisation.batch_size, num_steps, 0, torch.device("cpu"))
    for images, labels in batches:
        loss = model.loss(images, labels).mean()  # type: ignore[operator]
        optimiser.zero_grad()
        loss.backward()
        if optimisation.max_grad_norm:
            clip_grad_norm_(parameters, optimisation.max_grad_norm)
        optimiser.step()
        schedule.step()
        if average:
            average.update()


def seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    print(f"{'case':30s} {'parameters':>10s} {'bare ms/step':>13s} {'fit ms/step':>12s} {'ratio':>6s}")
    for name, (size, generator) in CASES.items():
        spec = ImageSpec(1, size, size, tuple("0123456789"))
        rng = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (2000, *spec.shape), generator=rng, dtype=torch.uint8)
        pool = Pool.real(images, torch.arange(2000) % 10, "noise")
        num_steps = arguments.steps if "U-Net" not in name and "conv" not in name else arguments.steps // 5
        options = TrainerOptions(num_threads=arguments.threads)
        job = FitJob(num_steps, 0, options, "benchmark")
        times: dict[str, list[float]] = {"bare": [], "fit": []}
        model = generator.empty_model(spec)
        for repeat in range(arguments.repeats + 1):
            with isolated_rng(0):
                bare, fitted = generator.empty_model(spec), generator.empty_model(spec)
            bare_s = seconds(lambda: bare_loop(bare, pool, generator.optimisation, num_steps))  # noqa: B023
            fit_s = seconds(lambda: generator.fit_model(fitted, pool, torch.ones(len(pool)), job))  # noqa: B023
            if repeat:  # the first turn warms up
                times["bare"].append(bare_s)
                times["fit"].append(fit_s)
        bare_ms, fit_ms = (1e3 * statistics.median(times[side]) / num_steps for side in ("bare", "fit"))
        print(
            f"{name:30s} {model.num_parameters:10,d} {bare_ms:13.2f} {fit_ms:12.2f} {fit_ms / bare_ms:6.3f}", flush=True
        )


if __name__ == "__main__":
    main()
