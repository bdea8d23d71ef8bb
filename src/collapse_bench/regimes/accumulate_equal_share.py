"""Everything is kept, and every generation has the same share of a pool of constant size."""

from dataclasses import dataclass
from typing import final

from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.regimes.base import Regime, random_part
from collapse_bench.seeding import Role


@final
@dataclass(frozen=True)
class AccumulateEqualShare(Regime):
    """D_t = n / (t+1) images of each of R, S_0, ..., S_(t-1), drawn anew (Shi et al. 2025, arXiv:2509.16499, code).

    n is the size of the real pool. What n leaves when divided by t+1 is dealt one image each to R, S_0, S_1, ..., in
    this order. Up to generation 1 it equals mix with half of the images real, if n is even.
    """

    @property
    def num_pools_needed(self) -> None:
        """All of them."""
        return None

    def compose(self, now: Now) -> Pool:
        """An equal part of the real pool and of each synthetic pool so far."""
        num_sources = now.generation + 1
        share, remainder = divmod(len(now.setting.real), num_sources)
        rng = now.stream(Role.MIX).generator()
        sources = [now.setting.real, *(now.chain.kept(t) for t in range(now.generation))]
        return Pool.concat([random_part(source, share + (k < remainder), rng) for k, source in enumerate(sources)])

    def num_needed(self, generation: int, now: Now) -> int:
        """At least the newest share, which is the largest that these images will ever be asked for."""
        return max(super().num_needed(generation, now), len(now.setting.real) // (generation + 1))
