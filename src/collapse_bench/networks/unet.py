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

    Each level after the first halves the resolution. A level has ``num_blocks`` residual blocks on the way down and as
    many plus one on the way up, with skip connections between them. Between levels there is a plain average on the way
    down and a plain repetition on the way up: the time of convolutions there is better spent on wider levels.

    Args:
        channels: channels of the first level; a multiple of 8.
        multipliers: channels of each level, in units of ``channels``.
        num_blocks: residual blocks per level.
        attention_at: resolutions, in pixels after folding, at which levels have self-attention, those that there are;
            the block in the middle has it always.
        dropout: probability within residual blocks.
        patch: side of the squares of pixels that become the channels of one pixel at the input, and squares again at
            the output (Shi et al. 2016, arXiv:1609.05158); with 2 the first level has half the resolution of the image.
    """

    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    num_blocks: int = 1
    attention_at: tuple[int, ...] = (4,)
    dropout: float = 0.0
    patch: int = 1

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
        if self.patch < 1:
            raise ConfigError(f"generator.network.patch must be at least 1, got {self.patch}")

    def build(self, spec: ImageSpec, num_classes: int) -> nn.Module:
        """The network: (images, time, labels) -> images' shape; ``num_classes`` 0 is unconditional.

        Raises:
            ConfigError: if the image size cannot be halved often enough.
        """
        factor = self.patch * 2 ** (len(self.multipliers) - 1)
        if spec.height % factor or spec.width % factor:
            raise ConfigError(
                f"a U-Net with {len(self.multipliers)} levels and patch {self.patch} needs image sides divisible by "
                f"{factor}, got {spec.height}x{spec.width}; use fewer generator.network.multipliers, a smaller "
                "generator.network.patch or another dataset.image_size"
            )
        return UNetNetwork(spec, num_classes, self)


class UNetNetwork(nn.Module):
    """See ``UNet``."""

    def __init__(self, spec: ImageSpec, num_classes: int, recipe: UNet) -> None:
        super().__init__()
        width = 4 * recipe.channels
        folded = spec.channels * recipe.patch**2
        sizes = [spec.height // recipe.patch // 2**level for level in range(len(recipe.multipliers))]
        levels = [
            (multiplier * recipe.channels, size in recipe.attention_at)
            for multiplier, size in zip(recipe.multipliers, sizes, strict=True)
        ]
        self.patch = recipe.patch
        self.condition = ConditionEmbedding(width, num_classes)
        self.first = nn.Conv2d(folded, recipe.channels, 3, padding=1)

        channels = recipe.channels
        skips: list[int] = []
        self.down = nn.ModuleList()
        for out, attention in levels:
            skips.append(channels)
            blocks = nn.ModuleList()
            for _ in range(recipe.num_blocks):
                blocks.append(_Block(channels, out, width, recipe.dropout, attention))
                channels = out
                skips.append(channels)
            self.down.append(blocks)

        self.middle = _Block(channels, channels, width, recipe.dropout, attention=True)

        self.up = nn.ModuleList()
        for out, attention in reversed(levels):
            blocks = nn.ModuleList()
            for _ in range(recipe.num_blocks + 1):
                blocks.append(_Block(channels + skips.pop(), out, width, recipe.dropout, attention))
                channels = out
            self.up.append(blocks)

        self.norm = nn.GroupNorm(8, channels)
        self.last = _zero(nn.Conv2d(channels, folded, 3, padding=1))

    def forward(
        self, x: Float[Tensor, "n c h w"], time: Float[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The network's output for noisy images ``x`` at ``time``."""
        condition = F.silu(self.condition(time, labels))
        hidden = self.first(F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x)
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                hidden = F.avg_pool2d(hidden, 2)
            skips.append(hidden)
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                hidden = block(hidden, condition)
                skips.append(hidden)
        hidden = self.middle(hidden, condition)
        for level, blocks in enumerate(self.up):
            if level:
                hidden = F.interpolate(hidden, scale_factor=2, mode="nearest")
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                hidden = block(torch.cat([hidden, skips.pop()], dim=1), condition)
        output = self.last(F.silu(self.norm(hidden)))
        return F.pixel_shuffle(output, self.patch) if self.patch > 1 else output


class _Block(nn.Module):
    """A residual block, with self-attention after it where asked."""

    def __init__(self, channels: int, out_channels: int, condition_width: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.scale_shift = nn.Linear(condition_width, 2 * out_channels)
        self.norm2 = nn.GroupNorm(8, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        self.attention = _Attention(out_channels) if attention else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.scale_shift(condition)[:, :, None, None].chunk(2, dim=1)
        hidden = torch.addcmul(shift, self.norm2(hidden), scale + 1.0)
        hidden = self.conv2(self.dropout(F.silu(hidden)))
        return self.attention(self.skip(x) + hidden)


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
        # Fused kernels want neighbours in memory; without them torch falls back to one that holds all weights.
        mixed = F.scaled_dot_product_attention(*(part.contiguous() for part in qkv.unbind(1)))
        return x + self.out(mixed.transpose(2, 3).reshape(n, c, h, w))


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with zero weights, so that a residual branch starts as nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
