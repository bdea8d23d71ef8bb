"""The fully synthetic loop."""

from dataclasses import dataclass
from typing import final

from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.regimes.base import Regime
from collapse_bench.types import Budget


@final
@dataclass(frozen=True)
class Replace(Regime):
    """D_t = S_(t-1): only the previous generation's samples (Shumailov et al. 2024; Alemohammad et al. 2024)."""

    def keeps_real(self, num_real: int, budget: Budget) -> bool:
        """Not after generation 0."""
        del num_real, budget
        return False

    def compose(self, now: Now) -> Pool:
        """The previous generation's samples."""
        return now.chain.kept(now.generation - 1)
