"""The last few generations' samples."""

from dataclasses import dataclass
from typing import final

from collapse_bench.errors import ConfigError
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.regimes.base import Regime
from collapse_bench.types import Budget


@final
@dataclass(frozen=True)
class Window(Regime):
    """D_t = S_(t-K) + ... + S_(t-1), fewer where t < K (Alemohammad et al. 2024, arXiv:2307.01850, appendix).

    With K = 1 it equals replace. No real image is seen after generation 0, whatever K is.

    Args:
        num_pools: K.
    """

    num_pools: int

    def __post_init__(self) -> None:
        if self.num_pools < 1:
            raise ConfigError(f"regime.num_pools must be at least 1, got {self.num_pools}")

    def keeps_real(self, num_real: int, budget: Budget) -> bool:
        """Not after generation 0."""
        del num_real, budget
        return False

    @property
    def num_pools_needed(self) -> int:
        """The width of the window."""
        return self.num_pools

    def compose(self, now: Now) -> Pool:
        """The last synthetic pools, the oldest first."""
        oldest = max(0, now.generation - self.num_pools)
        return Pool.concat([now.chain.kept(t) for t in range(oldest, now.generation)])
