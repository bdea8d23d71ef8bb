"""The fully synthetic loop on a growing pool."""

from dataclasses import dataclass
from typing import final

from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.regimes.base import Regime
from collapse_bench.types import Budget


@final
@dataclass(frozen=True)
class ReplaceMultiple(Regime):
    """D_t = n + t k images of generation t-1, as many as accumulate has (Gerstgrasser et al. 2024, arXiv:2404.01413).

    n is the size of the real pool and k the budget's ``num_synthetic``, by default n, so that the pool has (t+1) n
    images. Set against accumulate it tells "more unique images" from "real images are kept" (control C2); generation
    1 has twice the images that it has under replace.
    """

    def keeps_real(self, num_real: int, budget: Budget) -> bool:
        """Not after generation 0."""
        del num_real, budget
        return False

    def compose(self, now: Now) -> Pool:
        """The previous generation's samples, all of them."""
        return now.chain.kept(now.generation - 1)

    def num_needed(self, generation: int, now: Now) -> int:
        """As many images as accumulate has at ``generation``."""
        return len(now.setting.real) + generation * now.num_synthetic
