"""A constant number of images, of which a constant fraction is real."""

from dataclasses import dataclass
from typing import final

from collapse_bench.errors import ConfigError
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.regimes.base import Regime, random_part
from collapse_bench.seeding import Role
from collapse_bench.types import Budget


@final
@dataclass(frozen=True)
class Mix(Regime):
    """D_t = a n images of R + (1-a) n images of S_(t-1), both drawn at random (Khelifa et al. 2026, arXiv:2606.13796).

    n is the size of the real pool. With a = 1 it equals the real arm, with a = 0 and ``budget.num_synthetic=null``
    it equals replace.

    Args:
        frac_real: a, the fraction of the pool that is real.
        redraw_real: draw the real images anew every generation, so that the chain sees all of R in time; otherwise
            the same ones stay, which are the anchors of ``mitigation=anchoring``.
    """

    frac_real: float
    redraw_real: bool

    def __post_init__(self) -> None:
        if not 0 <= self.frac_real <= 1:
            raise ConfigError(f"regime.frac_real must lie in [0, 1], got {self.frac_real}")

    def keeps_real(self, num_real: int, budget: Budget) -> bool:
        """Unless the fraction is less than half an image."""
        del budget
        return self._num_real(num_real) > 0

    def compose(self, now: Now) -> Pool:
        """Random parts of the real pool and of the previous generation's samples."""
        rng = now.stream(Role.MIX).generator()
        num_real = self._num_real(len(now.setting.real))
        real = random_part(now.setting.real, num_real, rng) if self.redraw_real else now.stale_real(num_real)
        synthetic = random_part(now.chain.kept(now.generation - 1), len(now.setting.real) - len(real), rng)
        return Pool.concat([real, synthetic])

    def num_needed(self, generation: int, now: Now) -> int:
        """At least as many as the next pool takes."""
        return max(super().num_needed(generation, now), len(now.setting.real) - self._num_real(len(now.setting.real)))

    def _num_real(self, num_real: int) -> int:
        return round(self.frac_real * num_real)
