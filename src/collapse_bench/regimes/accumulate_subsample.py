"""Everything is kept, and a fixed number of images is trained on."""

from dataclasses import dataclass
from typing import final

from collapse_bench.errors import ConfigError
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.regimes.accumulate import Accumulate
from collapse_bench.regimes.base import Regime, random_part
from collapse_bench.seeding import Role


@final
@dataclass(frozen=True)
class AccumulateSubsample(Regime):
    """D_t = n images of R + S_0 + ... + S_(t-1), drawn anew every generation (Kazdan et al. 2025, arXiv:2410.16713).

    The share of real images falls as 1 / (t+1), as under accumulate, but the pool does not grow. While there are no
    more than n images, all are trained on: it equals accumulate.

    Args:
        num_images: n; ``None`` is the size of the real pool. Generation 0 is fitted on the whole real pool whatever
            n is.
    """

    num_images: int | None

    def __post_init__(self) -> None:
        if self.num_images is not None and self.num_images < 1:
            raise ConfigError(
                f"regime.num_images must be at least 1 (or null for the size of the real pool), got {self.num_images}"
            )

    @property
    def num_pools_needed(self) -> None:
        """All of them."""
        return None

    def compose(self, now: Now) -> Pool:
        """A random part of the real pool and all synthetic pools so far."""
        everything = Accumulate().compose(now)
        wanted = len(now.setting.real) if self.num_images is None else self.num_images
        return random_part(everything, min(wanted, len(everything)), now.stream(Role.MIX).generator())
