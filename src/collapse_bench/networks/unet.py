"""A small U-Net for images from 8x8 to 64x64, after Dhariwal and Nichol 2021 (arXiv:2105.05233)."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from collapse_bench.errors import ConfigError
from collapse_bench.networks.embedding import ConditionEmbedding
from collapse_bench.types import ImageSpec


@final
@dataclass(frozen=True)
class UNet:
    """Recipe of a U-Net, conditioned on time and class.

    Each level halves the resolution. A level has ``num_blocks`` residual blocks on the way down and as many plus
    one on the way up, with skip connections between them.

    Args:
        channels: channels at full resolution; a multiple of 8.
        multipliers: channels of each level, in units of ``channels``.
        num_blocks: residual blocks per level.
        attention_at: resolutions (pixels) with self-attention.
        dropout: probability within residual blocks.
    """

    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    num_blocks: int = 1
    attention_at: tuple[int, ...] = (4,)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.channels < 8 or self.channels % 8:
            raise ConfigError(f"generator.network.channels must be a positive multiple of 8, got {self.channels}")
        if not self.multipliers or min(self.multipliers) < 1 or self.num_blocks < 1:
            raise ConfigError(
                "generator.network needs at least one level (multipliers, all at least 1) and one block per level "
                f"(num_blocks), got multipliers={list(self.multipliers)}, num_blocks={self.num_blocks}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"generator.network.dropout must lie in [0, 1), got {self.dropout}")

    def build(self, spec: ImageSpec, num_classes: int) -> nn.Module:
        """The network: (images, time, labels) -> images' shape; ``num_classes`` 0 is unconditional.

        Raises:
            ConfigError: if the image size cannot be halved often enough.
        """
        factor = 2 ** (len(self.multipliers) - 1)
        if spec.height % factor or spec.width % factor:
            raise ConfigError(
                f"a U-Net with {len(self.multipliers)} levels needs image sides divisible by {factor}, got "
                f"{spec.height}x{spec.width}; use fewer generator.network.multipliers or another dataset.image_size"
            )
        return UNetNetwork(spec, num_classes, self)


class UNetNetwork(nn.Module):
    """See ``UNet``."""

    def __init__(self, spec: ImageSpec, num_classes: int, recipe: UNet) -> None:
        super().__init__()
        width = 4 * recipe.channels
        self.condition = ConditionEmbedding(width, num_classes)
        self.first = nn.Conv2d(spec.channels, recipe.channels, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()

        channels, size = recipe.channels, spec.height
        skips = [channels]
        for level, multiplier in enumerate(recipe.multipliers):
            if level:
                self.down.append(_Layer(channels, channels, width, recipe.dropout, resample="down"))
                size //= 2
                skips.append(channels)
            for _ in range(recipe.num_blocks):
                out = multiplier * recipe.channels
                self.down.append(_Layer(channels, out, width, recipe.dropout, attention=size in recipe.attention_at))
                channels = out
                skips.append(channels)

        self.middle = _Layer(channels, channels, width, recipe.dropout, attention=True)

        for level, multiplier in reversed(list(enumerate(recipe.multipliers))):
            for _ in range(recipe.num_blocks + 1):
                out = multiplier * recipe.channels
                attention = size in recipe.attention_at
                self.up.append(_Layer(channels + skips.pop(), out, width, recipe.dropout, attention=attention))
                channels = out
            if level:
                self.up.append(_Layer(channels, channels, width, recipe.dropout, resample="up"))
                size *= 2

        self.norm = nn.GroupNorm(8, channels)
        self.last = _zero(nn.Conv2d(channels, spec.channels, 3, padding=1))

    def forward(
        self, x: Float[Tensor, "n c h w"], time: Float[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The network's output for noisy images ``x`` at ``time``."""
        condition = F.silu(self.condition(time, labels))
        hidden = self.first(x)
        skips = [hidden]
        for layer in self.down:
            hidden = layer(hidden, condition)
            skips.append(hidden)
        hidden = self.middle(hidden, condition)
        for layer in self.up:
            hidden = layer(hidden if layer.resample else torch.cat([hidden, skips.pop()], dim=1), condition)
        return self.last(F.silu(self.norm(hidden)))


class _Layer(nn.Module):
    """A residual block, with a change of resolution before it or self-attention after it where asked."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        condition_width: int,
        dropout: float,
        attention: bool = False,
        resample: str | None = None,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.scale_shift = nn.Linear(condition_width, 2 * out_channels)
        self.norm2 = nn.GroupNorm(8, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        self.attention = _Attention(out_channels) if attention else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = F.silu(self.norm1(x))
        if self.resample == "down":
            x, hidden = F.avg_pool2d(x, 2), F.avg_pool2d(hidden, 2)
        elif self.resample == "up":
            x, hidden = (F.interpolate(t, scale_factor=2, mode="nearest") for t in (x, hidden))
        hidden = self.conv1(hidden)
        scale, shift = self.scale_shift(condition)[:, :, None, None].chunk(2, dim=1)
        hidden = torch.addcmul(shift, self.norm2(hidden), scale + 1.0)
        hidden = self.conv2(self.dropout(F.silu(hidden)))
        out = self.skip(x) + hidden
        return out if self.attention is None else self.attention(out)


class _Attention(nn.Module):
    """Residual self-attention over the pixels, in heads of up to 32 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_heads = next(h for h in range(max(1, channels // 32), 0, -1) if channels % h == 0)
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).view(n, 3, self.num_heads, c // self.num_heads, h * w).transpose(3, 4)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(1))
        return x + self.out(mixed.transpose(2, 3).reshape(n, c, h, w))


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with zero weights, so that a residual branch starts as nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
