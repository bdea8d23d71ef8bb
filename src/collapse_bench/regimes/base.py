"""What a regime is: the rule that composes the training pool of a generation."""

from abc import ABC, abstractmethod
from typing import ClassVar, final

from collapse_bench.now import Now
from collapse_bench.pool import Pool


class Regime(ABC):
    """The rule that composes the next training pool. Concrete regimes are frozen dataclasses."""

    num_pools_needed: ClassVar[int | None]
    """How many of the last synthetic pools the rule looks at; ``None`` is all of them."""

    @final
    def mix(self, now: Now) -> Pool:
        """The training pool of this generation; that of generation 0 is the real pool, in every regime."""
        return now.setting.real if now.generation == 0 else self.compose(now)

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
