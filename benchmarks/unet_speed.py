"""Our U-Net against those of diffusers and denoising-diffusion-pytorch, at equal shape and number of parameters.

The three run in turn, several times, in one process, and ratios of the median times are printed: above 1 ours is faster.
All have three levels with attention at the lowest; the widths of the others are those whose number of parameters is
nearest to ours. Usage::

    uv run --with diffusers --with denoising-diffusion-pytorch python benchmarks/unet_speed.py [--threads 1] [--repeats 7]
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from collapse_bench.networks.unet import UNet
from collapse_bench.types import ImageSpec

BATCH_SIZE = 32
CASES = {
    (1, 28, 28): UNet(channels=32, multipliers=(1, 2, 2), attention_at=(7,)),
    (3, 32, 32): UNet(channels=48, multipliers=(1, 2, 2), attention_at=(8,)),
}


def diffusers_unet(shape: tuple[int, int, int], width: int, extra: int) -> nn.Module:
    from diffusers.models.unets.unet_2d import UNet2DModel

    return UNet2DModel(
        sample_size=shape[1],
        in_channels=shape[0],
        out_channels=shape[0],
        layers_per_block=1,
        block_out_channels=(width, 2 * width + extra, 2 * width + extra),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )


def lucidrains_unet(shape: tuple[int, int, int], width: int, extra: int) -> nn.Module:
    from denoising_diffusion_pytorch import Unet

    return Unet(dim=width, init_dim=width + extra, dim_mults=(1, 2, 2), channels=shape[0])


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def of_size(make: Callable[..., nn.Module], shape: tuple[int, int, int], wanted: int) -> nn.Module:
    """The network whose number of parameters is nearest to the one wanted."""
    widths: Iterable[tuple[int, int]] = itertools.product(range(16, 97, 8), range(-16, 33, 8))
    candidates = []
    for width, extra in widths:
        if width + extra >= 8:
            with torch.device("meta"):
                candidates.append((abs(num_parameters(make(shape, width, extra)) - wanted), width, extra))
    return make(shape, *min(candidates)[1:])


def runners(
    shape: tuple[int, int, int], recipe: UNet
) -> dict[str, tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]]:
    """By name: the network, and what makes images of images and times."""
    ours = recipe.build(ImageSpec(*shape, class_names=("a",)), 0)
    labels = torch.full((BATCH_SIZE,), -1)
    wanted = num_parameters(ours)
    diffusers, lucidrains = (of_size(make, shape, wanted) for make in (diffusers_unet, lucidrains_unet))
    return {
        "ours": (ours, lambda x, times: ours(x, times, labels)),
        "diffusers": (diffusers, lambda x, times: diffusers(x, 1000.0 * times).sample),
        "denoising-diffusion-pytorch": (lucidrains, lambda x, times: lucidrains(x, 1000.0 * times)),
    }


def seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--channels-last", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    print(f"{'shape':10s} {'network':28s} {'parameters':>10s} {'forward ms':>11s} {'step ms':>8s} {'ratios':>12s}")
    for shape, recipe in CASES.items():
        networks = runners(shape, recipe)
        x, times = torch.randn(BATCH_SIZE, *shape), torch.rand(BATCH_SIZE)
        if arguments.channels_last:
            x = x.to(memory_format=torch.channels_last)
            for network, _ in networks.values():
                network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        optimisers = {name: torch.optim.AdamW(net.parameters(), fused=True) for name, (net, _) in networks.items()}

        def forward(name: str) -> None:
            with torch.no_grad():
                networks[name][1](x, times)  # noqa: B023

        def step(name: str) -> None:
            networks[name][1](x, times).square().mean().backward()  # noqa: B023
            optimisers[name].step()  # noqa: B023
            optimisers[name].zero_grad()  # noqa: B023

        taken: dict[tuple[str, str], list[float]] = {}
        for repeat in range(arguments.repeats + 1):
            for name, (what, function) in itertools.product(networks, (("forward", forward), ("step", step))):
                second = seconds(lambda: function(name))  # noqa: B023
                if repeat:  # the first turn warms up
                    taken.setdefault((name, what), []).append(second)
        medians = {key: 1e3 * statistics.median(values) for key, values in taken.items()}
        for name, (network, _) in networks.items():
            milliseconds = [medians[name, what] for what in ("forward", "step")]
            ratios = [medians[name, what] / medians["ours", what] for what in ("forward", "step")]
            print(
                f"{'x'.join(map(str, shape)):10s} {name:28s} {num_parameters(network):10,d} {milliseconds[0]:11.0f} "
                f"{milliseconds[1]:8.0f} {ratios[0]:6.2f}{ratios[1]:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
