"""What a mitigation is: up to four differences from the control, one in each slot."""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Bool, Float
from torch import Tensor, nn

from collapse_bench.errors import SelectionError
from collapse_bench.generators.base import Generator, Model
from collapse_bench.now import Now, Setting
from collapse_bench.pool import Pool, VisiblePool
from collapse_bench.samplers.base import Draw, Sampler


class Slot:
    """One of the four places at which a mitigation differs from the control."""

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if this cannot be used in such a setting, before anything is trained."""
        del setting  # those that ask for something look at it


class Weigher(Slot, ABC):
    """Says, before fitting, how often each image of the pool is trained on, and at which noise levels."""

    def flags(self, images: Tensor, now: Now) -> Bool[Tensor, " n"] | None:
        """Which images it takes for synthetic by their pixels; ``None`` if it does not judge images.

        The measuring side asks this of held-out real images, whose answers are the false positives.

        Args:
            images: uint8 or float32.
            now: this generation.
        """
        del images, now  # detectors look at them
        return None

    @abstractmethod
    def weigh(self, train: VisiblePool, now: Now) -> Float[Tensor, " n"]:
        """Sampling probability of each image, up to a factor; 0 leaves the image out.

        Equal weights (but for zeros) are trained on in shuffled epochs, every image once before any twice; unequal
        ones in independent draws. So weights that are almost equal differ from equal ones by more than the weights:
        in one epoch's draws of n images 37 % are absent and others come twice. A sweep toward 1 does not end in the
        control without a jump.

        Args:
            train: the training pool, without the columns that the scenario declares lost.
            now: this generation.
        """

    def gate(self, train: VisiblePool, now: Now) -> Float[Tensor, " n"] | None:
        """Highest log signal-to-noise ratio at which each image is trained on; ``None`` gates no image.

        A second kind of weight, per image and noise level: 1 up to this ratio, 0 above. Only families that make a
        ``NoisyModel`` have noise levels, and a weigher that gates refuses the others in ``check``.

        Args:
            train: see ``weigh``.
            now: this generation.
        """
        del train, now  # time gating looks at them
        return None


class Refiner(Slot, ABC):
    """Makes another model of the fitted one."""

    @abstractmethod
    def refine(self, fitted: Model, train: Pool, now: Now) -> Model:
        """The model that samples are drawn from.

        Args:
            fitted: the model as fitted; it must not be changed.
            train: the pool that it was fitted to.
            now: this generation; samples and fits made through it are metered.
        """

    def skeleton(self, fitted: nn.Module) -> nn.Module:
        """A model of the kind that ``refine`` returns, and not ``fitted`` itself, to load a stored one into."""
        return copy.deepcopy(fitted)


class Curator(Slot, ABC):
    """Chooses, corrects or marks the images that go to the next generation."""

    changes_images: ClassVar[bool] = False
    """Whether kept images are not the sampler's; what the change costs is then measured."""

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


class Steering(Slot, ABC):
    """Changes stated options of the generator and the sampler as a function of the generation; arguments only."""

    @abstractmethod
    def steer_fit(self, generator: Generator, generation: int) -> Generator:
        """The recipe that this generation is fitted with."""

    @abstractmethod
    def steer_sampling(self, sampler: Sampler, generation: int) -> Sampler:
        """The sampler that this generation is sampled with."""


@final
@dataclass(frozen=True)
class Mitigation:
    """Four slots; ``control`` fills all of them with the identity.

    Args:
        steering: options that change with the generation.
        weigher: before fitting.
        refiner: after fitting.
        curator: after sampling.
    """

    steering: Steering
    weigher: Weigher
    refiner: Refiner
    curator: Curator

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if a slot cannot be used in such a setting, before anything is trained."""
        for slot in (self.steering, self.weigher, self.refiner, self.curator):
            slot.check(setting)
