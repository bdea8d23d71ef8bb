"""What a regime is: the rule that composes the training pool of a generation."""

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch

from collapse_bench.errors import SelectionError
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.types import Budget


class Regime(ABC):
    """The rule that composes the next training pool. Concrete regimes are frozen dataclasses."""

    has_pool: ClassVar[bool] = True
    """Whether the training images are a finite pool, which a mitigation can act on."""

    hidden: ClassVar[frozenset[str]] = frozenset()
    """Provenance columns of its pools that it declares lost."""

    def keeps_real(self, num_real: int, budget: Budget) -> bool:
        """Whether every training pool holds real images.

        Args:
            num_real: images in the real pool.
            budget: of the chain.
        """
        del num_real, budget  # fractions of the pool look at them
        return True

    @property
    def num_pools_needed(self) -> int | None:
        """How many of the last synthetic pools the rule looks at; ``None`` is all of them."""
        return 1

    def check(self, num_real: int, budget: Budget) -> None:  # noqa: B027 (most rules can always be followed)
        """Raises ConfigError if the rule cannot be followed to the end of the chain.

        Args:
            num_real: images in the real pool.
            budget: of the chain.
        """

    def trusted(self, real: Pool, budget: Budget, seed: int) -> Pool:
        """The real images that a deciding part may know to be real, the same in all generations.

        All, unless the rule says that origin is lost, or that some arrive later: then at most those of generation 0,
        because what is learnt once is learnt then.

        Args:
            real: the real pool.
            budget: of the chain.
            seed: of the chain.
        """
        del budget, seed  # rules that save images for later look at them
        return real

    @final
    def mix(self, now: Now) -> Pool:
        """The training pool of this generation."""
        return self.start(now) if now.generation == 0 else self.compose(now)

    def start(self, now: Now) -> Pool:
        """The training pool of generation 0: real images only, and all of them unless the rule saves some for later."""
        return now.setting.real

    @abstractmethod
    def compose(self, now: Now) -> Pool:
        """The training pool of a generation after 0.

        Args:
            now: this generation; ``now.chain.kept(t)`` is what generation t handed on, ``now.setting.real`` the
                real pool.
        """

    def num_needed(self, generation: int, now: Now) -> int:
        """Images that the next ``generation`` needs of this one.

        Args:
            generation: the generation that will train on them.
            now: this generation.
        """
        del generation  # rules with a growing quota look at it
        return now.num_synthetic


def random_part(pool: Pool, count: int, rng: torch.Generator) -> Pool:
    """``count`` images of a pool, drawn uniformly without replacement, in the order of the pool.

    Raises:
        SelectionError: if the pool has fewer.
    """
    if count > len(pool):
        raise SelectionError(
            f"the regime wants {count} images of a pool of {len(pool)}; raise budget.num_synthetic, or set it to null"
        )
    chosen = torch.randperm(len(pool), generator=rng)[:count]
    return pool.take(chosen.sort().values)
