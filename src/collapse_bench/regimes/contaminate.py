"""Real images, some of which are not."""

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch

from collapse_bench.errors import ConfigError
from collapse_bench.now import Now
from collapse_bench.pool import PROVENANCE, UNLABELLED, Pool
from collapse_bench.regimes.base import Regime, random_part
from collapse_bench.seeding import RUN_LEVEL, Role, Stream
from collapse_bench.types import Budget


@final
@dataclass(frozen=True)
class Contaminate(Regime):
    """D_t = R, of which a fraction is replaced by images of S_(t-1), and nobody knows which.

    Hataya et al. 2023, arXiv:2211.08095; Bohacek and Farid 2023, arXiv:2311.12202. The size stays that of R, and the
    pool is distributed as that of mix is; what differs is that its provenance is hidden, also in generation 0, whose
    owner does not know that it is clean. If the model makes images without labels, none has a label, because a label
    would give a real image away. A fraction of 0 equals the real arm.

    A part that decides may look at the pool and at ``now.setting.trusted``. It must not compare the pool with
    ``now.setting.real``, which holds the real images of the pool.

    Args:
        frac_synthetic: the fraction that is replaced.
        redraw_real: draw anew every generation which real images stay, so that the chain sees all of R in time;
            otherwise the same ones stay.
        num_trusted: real images whose origin is known: the first ones of the real pool, whose order is random. They
            remain in the pool like any other.
    """

    hidden: ClassVar[frozenset[str]] = frozenset(PROVENANCE)

    frac_synthetic: float
    redraw_real: bool
    num_trusted: int

    def __post_init__(self) -> None:
        if not 0 <= self.frac_synthetic <= 1:
            raise ConfigError(f"regime.frac_synthetic must lie in [0, 1], got {self.frac_synthetic}")
        if self.num_trusted < 0:
            raise ConfigError(f"regime.num_trusted must not be negative, got {self.num_trusted}")

    def check(self, num_real: int, budget: Budget) -> None:
        """Raises ConfigError if more real images are trusted than there are."""
        del budget
        if self.num_trusted > num_real:
            raise ConfigError(
                f"regime.num_trusted is {self.num_trusted} and the real pool has {num_real} images; lower it or raise "
                "dataset.num_real"
            )

    def keeps_real(self, num_real: int, budget: Budget) -> bool:
        """Unless all are replaced."""
        del budget
        return self._num_synthetic(num_real) < num_real

    def trusted(self, real: Pool, budget: Budget, seed: int) -> Pool:
        """The first ``num_trusted`` real images."""
        del budget, seed
        return real.take(torch.arange(self.num_trusted))

    def start(self, now: Now) -> Pool:
        """The real pool, without its provenance."""
        return now.setting.real.hide(*self.hidden)

    def compose(self, now: Now) -> Pool:
        """The real pool with samples of the previous generation in random places."""
        real = now.setting.real
        count = self._num_synthetic(len(real))
        rng = now.stream(Role.MIX).generator()
        synthetic = random_part(now.chain.kept(now.generation - 1), count, rng)
        # Places are drawn too, because in a pool with its real images first the order would say what is real.
        source = torch.arange(len(real))
        places = rng if self.redraw_real else Stream(now.seed, RUN_LEVEL, Role.MIX).generator()
        source[torch.randperm(len(real), generator=places)[:count]] = len(real) + torch.arange(count)
        pool = Pool.concat([real, synthetic]).take(source)
        if (pool.labels == UNLABELLED).any():
            pool = replace(pool, labels=torch.full_like(pool.labels, UNLABELLED))
        return pool.hide(*self.hidden)

    def num_needed(self, generation: int, now: Now) -> int:
        """At least as many as the next pool takes."""
        return max(super().num_needed(generation, now), self._num_synthetic(len(now.setting.real)))

    def _num_synthetic(self, num_real: int) -> int:
        return round(self.frac_synthetic * num_real)
