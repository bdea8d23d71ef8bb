"""Everything is kept."""

from dataclasses import dataclass
from typing import final

from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.regimes.base import Regime


@final
@dataclass(frozen=True)
class Accumulate(Regime):
    """D_t = R + S_0 + ... + S_(t-1), growing (Gerstgrasser et al. 2024, arXiv:2404.01413)."""

    @property
    def num_pools_needed(self) -> None:
        """All of them."""
        return None

    def compose(self, now: Now) -> Pool:
        """The real pool and all synthetic pools so far."""
        return Pool.concat([now.setting.real, *(now.chain.kept(t) for t in range(now.generation))])
