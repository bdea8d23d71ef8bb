"""Real images and the previous generation's samples."""

from dataclasses import dataclass
from typing import final

from collapse_bench.errors import ConfigError
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.regimes.base import Regime, random_part
from collapse_bench.seeding import Role


@final
@dataclass(frozen=True)
class Augment(Regime):
    """D_t = R + a random part of S_(t-1) (Alemohammad et al. 2024; Bertrand et al. 2024, arXiv:2310.00429).

    Args:
        synthetic_per_real: synthetic images per real image; 0 trains on the real pool alone.
    """

    synthetic_per_real: float

    def __post_init__(self) -> None:
        if self.synthetic_per_real < 0:
            raise ConfigError(f"regime.synthetic_per_real must not be negative, got {self.synthetic_per_real}")

    def compose(self, now: Now) -> Pool:
        """The real pool and a random part of the previous generation's samples."""
        synthetic = now.chain.kept(now.generation - 1)
        part = random_part(synthetic, self._num_synthetic(now), now.stream(Role.MIX).generator())
        return Pool.concat([now.setting.real, part])

    def num_needed(self, generation: int, now: Now) -> int:
        """At least as many as the next pool takes."""
        return max(super().num_needed(generation, now), self._num_synthetic(now))

    def _num_synthetic(self, now: Now) -> int:
        return round(self.synthetic_per_real * len(now.setting.real))
