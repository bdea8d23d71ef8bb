"""The share of real images that is best where fresh ones are mixed with samples."""

import math
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
    """All real images together have one share of the sampling probability.

    He, Xu and Cheng 2025 (arXiv:2502.18049) ask for the share w that is best in the long run when a fresh real set is
    mixed with samples of the previous model, see ``optimal_share``. Where real images are not fresh (``augment``,
    ``accumulate``) their derivation does not hold, and the share is a rule of thumb. A pool of only real images, as in
    generation 0, has equal weights. Where ``frac_real`` is the real images' share of the pool it equals the control,
    bit for bit.

    Args:
        frac_real: the share, in [0, 1]; ``None`` is the best one for the numbers of images in the pool.
    """

    frac_real: float | None

    def __post_init__(self) -> None:
        if self.frac_real is not None and not 0 <= self.frac_real <= 1:
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
                f"generation {now.generation}: mitigation=optimal_mix has no real image to give a share to: "
                "the regime left none in this pool; choose one that keeps them (regime=augment)"
            )
        if num_synthetic == 0:
            return torch.ones(len(train), dtype=torch.float64)
        share = optimal_share(num_real, num_synthetic) if self.frac_real is None else self.frac_real
        weight_real, weight_synthetic = share * num_synthetic, (1 - share) * num_real
        if math.isclose(weight_real, weight_synthetic):  # exactly equal weights alone are drawn as the control draws
            return torch.ones(len(train), dtype=torch.float64)
        return torch.where(real, weight_real, weight_synthetic).double()


def optimal_share(num_real: int, num_synthetic: int) -> float:
    """The share of real images with the least variance in the long run: (sqrt(k^2 + 4 k) - k) / 2, k real per sample.

    A mean that is estimated as w times that of the fresh real images plus 1 - w times that of the samples of the
    previous estimate has the variance V = (w^2 + k (1 - w)^2) / (2 w - w^2) in the limit, in units of that of the real
    images alone; this w minimises it. It is the reciprocal of the golden ratio, 0.618, for equally many of both.

    Args:
        num_real: at least 1.
        num_synthetic: at least 1.
    """
    k = num_real / num_synthetic
    return (math.sqrt(k * k + 4.0 * k) - k) / 2.0
