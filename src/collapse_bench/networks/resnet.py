"""A small residual network that classifies images from 8x8 to 64x64."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from collapse_bench.types import ImageSpec


class ResNet(nn.Module):
    """Three stages of residual blocks (He et al. 2016, arXiv:1512.03385), average pooling, a linear layer.

    Group instead of batch normalisation, so that an image's features depend on that image alone.

    Args:
        spec: images and classes.
        width: channels of the first stage, a multiple of 8; the later ones have two and four times as many.
        num_blocks: blocks per stage.
    """

    def __init__(self, spec: ImageSpec, width: int, num_blocks: int) -> None:
        super().__init__()
        # Large images are halved at once; small ones keep their few pixels.
        stride = 2 if spec.height >= 24 else 1
        layers: list[nn.Module] = [nn.Conv2d(spec.channels, width, 3, stride=stride, padding=1)]
        channels = width
        for stage in range(3):
            for block in range(num_blocks):
                out = width * 2**stage
                layers.append(_Block(channels, out, stride=2 if stage and block == 0 else 1))
                channels = out
        self.body = nn.Sequential(*layers, nn.GroupNorm(8, channels), nn.ReLU())
        self.head = nn.Linear(channels, spec.num_classes)

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The average-pooled last activations."""
        return self.body(x).mean((2, 3))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits of the classes."""
        return self.head(self.features(x))


class _Block(nn.Module):
    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        unchanged = channels == out_channels and stride == 1
        self.skip = nn.Identity() if unchanged else nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.relu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.relu(self.norm2(hidden)))
