"""A residual multilayer perceptron for small images."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from collapse_bench.errors import ConfigError
from collapse_bench.networks.embedding import ConditionEmbedding
from collapse_bench.types import ImageSpec


@final
@dataclass(frozen=True)
class ResidualMLP:
    """Recipe of a residual multilayer perceptron on flattened pixels, conditioned on time and class.

    Args:
        width: hidden units.
        num_blocks: residual blocks.
    """

    width: int = 256
    num_blocks: int = 4

    def __post_init__(self) -> None:
        if self.width < 2 or self.num_blocks < 0:
            raise ConfigError(
                f"generator.network needs width >= 2 and num_blocks >= 0, got {self.width} and {self.num_blocks}"
            )

    def build(self, spec: ImageSpec, num_classes: int) -> nn.Module:
        """The network: (images, time, labels) -> images' shape; ``num_classes`` 0 is unconditional."""
        return ResidualMLPNetwork(spec, num_classes, self.width, self.num_blocks)


class ResidualMLPNetwork(nn.Module):
    """See ``ResidualMLP``."""

    def __init__(self, spec: ImageSpec, num_classes: int, width: int, num_blocks: int) -> None:
        super().__init__()
        self.condition = ConditionEmbedding(width, num_classes)
        self.inner = nn.Linear(spec.num_values, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.outer = nn.Linear(width, spec.num_values)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(
        self, x: Float[Tensor, "n c h w"], time: Float[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The network's output for noisy images ``x`` at ``time``."""
        condition = nn.functional.silu(self.condition(time, labels))
        hidden = self.inner(x.flatten(1))
        for block in self.blocks:
            hidden = block(hidden, condition)
        return self.outer(self.norm(hidden)).view_as(x)


class _Block(nn.Module):
    """A residual block whose hidden units are scaled and shifted by the condition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.first = nn.Linear(width, width)
        self.scale_shift = nn.Linear(width, 2 * width)
        self.second = nn.Linear(width, width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.scale_shift(condition).chunk(2, dim=1)
        out = torch.addcmul(shift, self.first(self.norm(hidden)), scale + 1.0)
        return hidden + self.second(nn.functional.silu(out))
