import pytest
import torch
from chains import composed
from torch import nn

from collapse_bench.cli.config import build
from collapse_bench.errors import ConfigError
from collapse_bench.networks.unet import UNet
from collapse_bench.types import ImageSpec


def spec(side: int, channels: int = 1) -> ImageSpec:
    return ImageSpec(channels, side, side, ("a", "b", "c"))


def built(recipe: UNet, images: ImageSpec, num_classes: int = 0) -> nn.Module:
    torch.manual_seed(0)
    network = recipe.build(images, num_classes)
    for parameter in network.parameters():  # the last layer and every residual branch start at zero
        nn.init.normal_(parameter, std=0.05)
    return network.eval()


@pytest.mark.parametrize("side", [8, 16, 28, 64])
@pytest.mark.parametrize("patch", [1, 2])
def test_it_scales_from_8_to_64_pixels_with_and_without_folding(side: int, patch: int) -> None:
    images = spec(side, channels=3)
    network = built(UNet(channels=8, multipliers=(1, 2), attention_at=(4,), patch=patch), images)
    x = torch.randn(2, *images.shape)
    output = network(x, torch.rand(2), torch.full((2,), -1))
    assert output.shape == x.shape
    assert output.flatten(1).std(1).min() > 0


def test_folding_keeps_pixels_in_their_places() -> None:
    network = built(UNet(channels=8, multipliers=(1,), attention_at=(), patch=2), spec(16))
    x = torch.zeros(1, 1, 16, 16)
    x[..., 8, 8] = 1.0
    x.requires_grad_()
    output = network(x, torch.zeros(1), torch.full((1,), -1))
    (gradient,) = torch.autograd.grad(output[..., 8:10, 8:10].sum(), x)
    size = gradient.abs().squeeze()
    assert size[8:10, 8:10].mean() > 4 * size[0:2, 0:2].mean(), "what is near counts most"


def test_a_zero_start_predicts_nothing() -> None:
    network = UNet(channels=8, multipliers=(1, 2), patch=2).build(spec(8), 3)
    output = network(torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([0, 2]))
    assert output.abs().max() == 0


def test_time_class_and_every_block_matter() -> None:
    network = built(UNet(channels=8, multipliers=(1, 2), attention_at=(4,)), spec(8), num_classes=3)
    x, time, labels = torch.randn(1, 1, 8, 8), torch.tensor([0.3]), torch.tensor([1])
    output = network(x, time, labels)
    assert not torch.allclose(output, network(x, time + 0.1, labels))
    assert not torch.allclose(output, network(x, time, labels + 1))
    assert not torch.allclose(output, network(x, time, torch.tensor([-1])))
    output.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize(
    ("option", "images", "millions", "num_attentions"),
    [("unet_tiny", (1, 8), 0.16, 7), ("unet_small", (1, 28), 1.4, 4), ("unet_cifar", (3, 32), 34, 6)],
)
def test_the_sizes_are_those_of_their_comments_and_attention_is_where_it_is_asked_for(
    option: str, images: tuple[int, int], millions: float, num_attentions: int
) -> None:
    channels, side = images
    recipe = build(composed("generator=flow_unet", f"generator/network={option}")["generator"], "generator").network
    network = recipe.build(spec(side, channels), 0)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.05)
    # One after each block of its level, down and up, and the middle one.
    assert sum(type(module).__name__ == "_Attention" for module in network.modules()) == num_attentions


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    network = built(UNet(channels=8, multipliers=(1, 2), attention_at=(4,), patch=2), spec(16))
    x, time, labels = torch.randn(3, 1, 16, 16), torch.rand(3), torch.full((3,), -1)
    together = network(x, time, labels)
    alone = torch.cat([network(*(t[k : k + 1] for t in (x, time, labels))) for k in range(3)])
    torch.testing.assert_close(together, alone)


def test_sides_that_cannot_be_folded_and_halved_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 levels and patch 2 needs image sides divisible by 4, got 6x6"):
        UNet(multipliers=(1, 2), patch=2).build(spec(6), 0)
    with pytest.raises(ConfigError, match=r"network\.patch must be at least 1"):
        UNet(patch=0)
