"""A collapse, and then real images again."""

from dataclasses import dataclass
from typing import final

from collapse_bench.errors import ConfigError
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.regimes.base import Regime
from collapse_bench.regimes.mix import Mix
from collapse_bench.regimes.replace import Replace
from collapse_bench.types import Budget


@final
@dataclass(frozen=True)
class Recover(Regime):
    """D_t = S_(t-1) up to generation k, then a n images of R + (1-a) n of S_(t-1) (Bohacek and Farid 2023).

    arXiv:2311.12202. n is the size of the real pool. Up to generation k it equals replace, with k = 0 it equals mix.
    What is asked is whether a collapsed model heals, so ``generator.start=warm`` is meant; a model from scratch knows
    the collapse by the rest of its pool only.

    Args:
        num_collapsing: k, generations after generation 0 that see no real image.
        frac_real: a, the fraction of the later pools that is real; 1 is the real pool.
    """

    num_collapsing: int
    frac_real: float

    def __post_init__(self) -> None:
        if self.num_collapsing < 0:
            raise ConfigError(f"regime.num_collapsing must not be negative, got {self.num_collapsing}")
        self._rule(self.num_collapsing + 1)  # checks the fraction

    def keeps_real(self, num_real: int, budget: Budget) -> bool:
        """Only if there is no collapse to recover from."""
        return self.num_collapsing == 0 and self._rule(1).keeps_real(num_real, budget)

    def compose(self, now: Now) -> Pool:
        """The pool of whichever rule holds in this generation."""
        return self._rule(now.generation).compose(now)

    def num_needed(self, generation: int, now: Now) -> int:
        """As many as the rule of the next generation needs."""
        return self._rule(generation).num_needed(generation, now)

    def _rule(self, generation: int) -> Regime:
        return Replace() if generation <= self.num_collapsing else Mix(self.frac_real, redraw_real=True)
