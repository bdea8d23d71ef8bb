"""The control that never sees a sample."""

from dataclasses import dataclass
from typing import final

from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.regimes.base import Regime


@final
@dataclass(frozen=True)
class Real(Regime):
    """D_t = R: every generation is refitted on the real pool, with the same steps as the other arms (control C0)."""

    @property
    def num_pools_needed(self) -> int:
        """None of them."""
        return 0

    def compose(self, now: Now) -> Pool:
        """The real pool."""
        return now.setting.real
