"""A constant share of real images, whatever the sizes of the pools."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from collapse_bench.errors import ConfigError, SelectionError
from collapse_bench.mitigations.base import Weigher
from collapse_bench.now import Now, Setting
from collapse_bench.pool import REAL, VisiblePool


@final
@dataclass(frozen=True)
class OptimalMix(Weigher):
    """All real images together have the share ``frac_real`` of the sampling probability.

    He, Xu and Cheng 2025 (arXiv:2502.18049) find the reciprocal of the golden ratio, 0.618, optimal when a fresh real
    set is mixed with samples of the previous model. A pool of only real images, as in generation 0, has equal weights.
    Where ``frac_real`` is the real images' share of the pool it equals the control (in a pool of equal halves with
    0.5 bit for bit).

    Args:
        frac_real: in [0, 1].
    """

    frac_real: float

    def __post_init__(self) -> None:
        if not 0 <= self.frac_real <= 1:
            raise ConfigError(f"mitigation.weigher.frac_real must lie in [0, 1], got {self.frac_real}")

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if there is nothing to mix, or no telling what is real."""
        if "born" in setting.hidden:
            raise ConfigError("mitigation=optimal_mix must know which images are real, and this regime hides it")
        if not setting.keeps_real:
            raise ConfigError(
                "mitigation=optimal_mix weighs real against synthetic images, and this regime trains on no real ones; "
                "choose one that keeps them, such as regime=augment"
            )

    def weigh(self, train: VisiblePool, now: Now) -> Float[Tensor, " n"]:
        """One weight for all real images and one for all others.

        Raises:
            SelectionError: if no image is real.
        """
        real = train.born == REAL
        num_real, num_synthetic = int(real.sum()), int((~real).sum())
        if num_real == 0:
            raise SelectionError(
                f"generation {now.generation}: mitigation=optimal_mix has no real image to give a share of "
                f"{self.frac_real:g}: the regime left none in this pool; choose one that keeps them (regime=augment)"
            )
        if num_synthetic == 0:
            return torch.ones(len(train), dtype=torch.float64)
        # Both are multiplied by the size of both parts, so that equal parts have exactly equal weights.
        weight_real, weight_synthetic = self.frac_real * num_synthetic, (1 - self.frac_real) * num_real
        return torch.where(real, weight_real, weight_synthetic).double()
