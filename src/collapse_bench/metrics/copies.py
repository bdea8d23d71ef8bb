"""Images that are equal pixel by pixel: repeats within the samples, copies of training and of real images."""

from typing import ClassVar, final

from collapse_bench.metrics.base import Estimate, GenerativeMetric, Side
from collapse_bench.metrics.functional.copies import num_copies, num_repeats
from collapse_bench.metrics.functional.intervals import wilson_interval
from collapse_bench.metrics.image_set import ImageSet


@final
class Duplicates(GenerativeMetric):
    """``duplicates``: share of generated images that repeat another one, 1 - different / all; best at the floor.

    It grows with the number of images. There is no interval: images are compared with each other, so the count is not
    binomial.
    """

    columns: ClassVar[tuple[str, ...]] = ("hashes",)
    sides: ClassVar[tuple[Side, ...]] = ("generated",)

    def score(self, generated: ImageSet) -> dict[str, Estimate]:
        """``duplicates``, in [0, 1)."""
        return {"duplicates": Estimate(num_repeats(generated.hashes) / len(generated), better="floor")}


@final
class TrainingCopies(GenerativeMetric):
    """``copies_of_training``: share of generated images that are in the model's training pool; best at the floor."""

    columns: ClassVar[tuple[str, ...]] = ("hashes",)
    sides: ClassVar[tuple[Side, ...]] = ("generated", "training")

    def score(self, generated: ImageSet, training: ImageSet) -> dict[str, Estimate]:
        """``copies_of_training`` with its 95 % Wilson interval, the pool held fixed."""
        return {"copies_of_training": _share_of_copies(generated, training)}


@final
class RealCopies(GenerativeMetric):
    """``copies_of_real``: share of generated images that are in the real pool; best at the floor.

    The whole real pool counts, also what the regime has not shown to the latest model: copies pass down a chain.
    """

    columns: ClassVar[tuple[str, ...]] = ("hashes",)
    sides: ClassVar[tuple[Side, ...]] = ("generated", "real")

    def score(self, generated: ImageSet, real: ImageSet) -> dict[str, Estimate]:
        """``copies_of_real`` with its 95 % Wilson interval, the pool held fixed."""
        return {"copies_of_real": _share_of_copies(generated, real)}


def _share_of_copies(generated: ImageSet, originals: ImageSet) -> Estimate:
    count = num_copies(generated.hashes, originals.hashes)
    return Estimate(count / len(generated), "floor", *wilson_interval(count, len(generated)))
