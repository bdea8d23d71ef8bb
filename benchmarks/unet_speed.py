"""Our U-Net against those of diffusers and denoising-diffusion-pytorch, at equal shape and number of parameters.

The three run in turn, several times, in one process; medians of CPU seconds and their ratios are printed, above 1 where
ours is faster. All have three levels with attention at the lowest and one block per level (denoising-diffusion-pytorch
always has two); the widths are such that the numbers of parameters agree within 5 %. Usage::

    uv run --with diffusers --with denoising-diffusion-pytorch python benchmarks/unet_speed.py [--repeats 7]
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from collapse_bench.networks.unet import UNet
from collapse_bench.types import ImageSpec

BATCH_SIZE = 32
CASES = {
    (1, 28, 28): (UNet(channels=32, multipliers=(1, 2, 2), attention_at=(7,)), (24, 64, 64), 26),
    (3, 32, 32): (UNet(channels=48, multipliers=(1, 2, 2), attention_at=(8,)), (48, 88, 88), 40),
}
"""By shape: our recipe, the widths of diffusers' levels, the width of denoising-diffusion-pytorch's first level."""

Forward = Callable[[Tensor, Tensor], Tensor]
"""(images, times in [0, 1]) -> images."""


def ours(shape: tuple[int, int, int], recipe: UNet) -> tuple[nn.Module, Forward]:
    network = recipe.build(ImageSpec(*shape, class_names=("a",)), 0)
    labels = torch.full((BATCH_SIZE,), -1)
    return network, lambda x, times: network(x, times, labels)


def of_diffusers(shape: tuple[int, int, int], widths: tuple[int, int, int]) -> tuple[nn.Module, Forward]:
    from diffusers.models.unets.unet_2d import UNet2DModel  # pyright: ignore[reportMissingImports]

    network = UNet2DModel(
        sample_size=shape[1],
        in_channels=shape[0],
        out_channels=shape[0],
        layers_per_block=1,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    return network, lambda x, times: network(x, 1000.0 * times).sample


def of_denoising_diffusion_pytorch(shape: tuple[int, int, int], width: int) -> tuple[nn.Module, Forward]:
    from denoising_diffusion_pytorch import Unet  # pyright: ignore[reportMissingImports]

    network = Unet(dim=width, dim_mults=(1, 2, 2), channels=shape[0])
    return network, lambda x, times: network(x, 1000.0 * times)


def seconds(function: Callable[[], object]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    print(f"{'shape':10s} {'network':28s} {'parameters':>10s} {'forward ms':>11s} {'step ms':>8s} {'ratios':>12s}")
    for shape, (recipe, widths, width) in CASES.items():
        networks = {
            "ours": ours(shape, recipe),
            "diffusers": of_diffusers(shape, widths),
            "denoising-diffusion-pytorch": of_denoising_diffusion_pytorch(shape, width),
        }
        x, times = torch.randn(BATCH_SIZE, *shape), torch.rand(BATCH_SIZE)
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
            size = sum(parameter.numel() for parameter in network.parameters())
            print(
                f"{'x'.join(map(str, shape)):10s} {name:28s} {size:10,d} {milliseconds[0]:11.0f} "
                f"{milliseconds[1]:8.0f} {ratios[0]:6.2f}{ratios[1]:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
