"""New real images every generation."""

from dataclasses import dataclass
from typing import final

import torch

from collapse_bench.errors import ConfigError
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.regimes.base import Regime
from collapse_bench.seeding import RUN_LEVEL, Role, Stream
from collapse_bench.types import Budget


@final
@dataclass(frozen=True)
class Fresh(Regime):
    """D_0 = n_ini images of R; D_t = n_r new images of R + S_(t-1) (Alemohammad et al. 2024, arXiv:2307.01850).

    The fresh data loop: no real image is trained on in two generations. The number of synthetic images is the
    budget's ``num_synthetic``. The real pool is used up in an order that the seed of the run decides. Parts that decide
    know the images of generation 0. With n_ini the whole real pool and n_r = 0 it equals replace.

    Args:
        num_initial: n_ini; ``None`` is half of the real pool.
        num_fresh: n_r; ``None`` is an equal part, per later generation, of what generation 0 leaves, at
            least 1.
    """

    num_initial: int | None
    num_fresh: int | None

    def __post_init__(self) -> None:
        if self.num_initial is not None and self.num_initial < 1:
            raise ConfigError(
                f"regime.num_initial must be at least 1 (or null for half of the real pool), got {self.num_initial}"
            )
        if self.num_fresh is not None and self.num_fresh < 0:
            raise ConfigError(
                f"regime.num_fresh must not be negative (or null for an equal part of the rest), got {self.num_fresh}"
            )

    def check(self, num_real: int, budget: Budget) -> None:
        """Raises ConfigError if the real pool would run out."""
        num_initial, num_fresh = self._counts(num_real, budget)
        wanted = num_initial + budget.num_generations * num_fresh
        if wanted > num_real:
            raise ConfigError(
                f"regime=fresh needs {num_initial} real images at generation 0 and {num_fresh} new ones in each of "
                f"{budget.num_generations} later generations, {wanted} in all, and the real pool has {num_real}; lower "
                "regime.num_initial, regime.num_fresh or budget.num_generations, or raise dataset.num_real"
            )

    def keeps_real(self, num_real: int, budget: Budget) -> bool:
        """Unless there are no new ones."""
        del num_real, budget
        return self.num_fresh != 0

    def trusted(self, real: Pool, budget: Budget, seed: int) -> Pool:
        """Those of generation 0: the others have not arrived when parts learn what they know of real images."""
        num_initial, _ = self._counts(len(real), budget)
        return self._arrived(real, seed, 0, num_initial)

    def start(self, now: Now) -> Pool:
        """The first ``num_initial`` real images."""
        num_initial, _ = self._counts(len(now.setting.real), now.setting.budget)
        return self._arrived(now.setting.real, now.seed, 0, num_initial)

    def compose(self, now: Now) -> Pool:
        """Real images that no earlier generation has seen, and the previous generation's samples."""
        num_initial, num_fresh = self._counts(len(now.setting.real), now.setting.budget)
        first = num_initial + (now.generation - 1) * num_fresh
        return Pool.concat(
            [self._arrived(now.setting.real, now.seed, first, num_fresh), now.chain.kept(now.generation - 1)]
        )

    def _counts(self, num_real: int, budget: Budget) -> tuple[int, int]:
        """Real images of generation 0 and of every later one."""
        num_initial = max(1, num_real // 2) if self.num_initial is None else self.num_initial
        if self.num_fresh is not None:
            return num_initial, self.num_fresh
        return num_initial, max(1, (num_real - num_initial) // max(1, budget.num_generations))

    def _arrived(self, real: Pool, seed: int, first: int, count: int) -> Pool:
        """``count`` real images from the ``first`` in the order of this run on, in the order of the real pool."""
        order = torch.randperm(len(real), generator=Stream(seed, RUN_LEVEL, Role.FRESH).generator())
        return real.take(order[first : first + count].sort().values)
