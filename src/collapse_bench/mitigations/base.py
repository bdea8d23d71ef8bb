"""What a mitigation is: up to three differences from the control, one in each slot."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from collapse_bench.errors import SelectionError
from collapse_bench.generators.base import Model
from collapse_bench.now import Now
from collapse_bench.pool import Pool, VisiblePool
from collapse_bench.samplers.base import Draw


class Weigher(ABC):
    """Says, before fitting, how often each image of the pool is trained on."""

    @abstractmethod
    def weigh(self, train: VisiblePool, now: Now) -> Float[Tensor, " n"]:
        """Sampling probability of each image, up to a factor; 0 leaves the image out.

        Args:
            train: the training pool, without the columns that the scenario declares lost.
            now: this generation.
        """


class Refiner(ABC):
    """Makes another model of the fitted one."""

    @abstractmethod
    def refine(self, fitted: Model, train: Pool, now: Now) -> Model:
        """The model that samples are drawn from.

        Args:
            fitted: the model as fitted; it must not be changed.
            train: the pool that it was fitted to.
            now: this generation; fits made through ``now.fit`` are metered.
        """

    def skeleton(self, fitted: nn.Module) -> nn.Module:
        """An unfitted model of the kind that ``refine`` returns, to load a stored one into."""
        return fitted


class Curator(ABC):
    """Chooses, corrects or marks the images that go to the next generation."""

    @final
    def curate(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        """Exactly ``num_needed`` images.

        Args:
            draw: gives the next k candidates.
            num_needed: how many the next generation needs.
            now: this generation.

        Raises:
            SelectionError: if the quota is not met, exactly; a curator never pads.
        """
        kept = self.choose(draw, num_needed, now)
        if len(kept) != num_needed:
            raise SelectionError(
                f"generation {now.generation}: {type(self).__name__} kept {len(kept)} images of "
                f"{draw.num_drawn} candidates and {num_needed} are needed"
            )
        now.spend(kept=len(kept))
        return kept

    @abstractmethod
    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        """The chosen images, with the reason recorded by ``Pool.take(..., because=...)``."""


@final
@dataclass(frozen=True)
class Mitigation:
    """Three slots; ``control`` fills all of them with the identity.

    Args:
        weigher: before fitting.
        refiner: after fitting.
        curator: after sampling.
    """

    weigher: Weigher
    refiner: Refiner
    curator: Curator
