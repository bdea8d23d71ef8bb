"""How much generated images differ from each other, beside real ones."""

import math
from typing import final

from collapse_bench.errors import ConfigError, MetricError
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.diversity import (
    mean_pairwise_distance,
    neighbour_entropy,
    principal_axes,
    vendi_score,
)
from collapse_bench.metrics.image_set import ImageSet


@final
class VendiScore(GenerativeMetric):
    """``vendi``: effective number of different images by the cosine kernel; best at the floor.

    Friedman and Dieng, arXiv:2210.02410. The features are centred on the real mean, because those of a network that
    ends in ReLU all point one way. Lost classes lower it, noise raises it; it looks at directions only and grows with
    the number of images.
    """

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """``vendi``, see ``functional.diversity.vendi_score``."""
        origin = self.once("mean", lambda: reference.features.double().mean(0))
        return {"vendi": Estimate(vendi_score(generated.features.double() - origin), better="floor")}


@final
class NeighbourEntropy(GenerativeMetric):
    """``knn_entropy_gap``: entropy of generated images minus that of real ones, in nats; best at the floor.

    The Kozachenko-Leonenko estimate on the first principal components of the reference. It is biased by the number of
    images, so the larger side is cut to the size of the smaller. It falls in collapse and rises where samples scatter.
    The floor is a little below 0: the axes are those in which the reference varies most, by chance too. NaN if some
    image is there more than ``num_neighbours`` times.

    Args:
        num_neighbours: k, at least 1; collapsed models repeat images, so not 1.
        num_components: principal components of the reference, at least 1; the estimate needs few. Fewer are used where
            the reference varies in fewer.

    Raises:
        ConfigError: if an argument is not a whole number of at least 1.
    """

    def __init__(self, num_neighbours: int = 5, num_components: int = 8) -> None:
        super().__init__()
        for name, value in (("num_neighbours", num_neighbours), ("num_components", num_components)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"NeighbourEntropy.{name} must be a whole number of at least 1, got {value!r}")
        self.num_neighbours = num_neighbours
        self.num_components = num_components

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """``knn_entropy_gap``, see ``functional.diversity.neighbour_entropy``.

        Raises:
            MetricError: if a side has no more images than ``num_neighbours``.
        """
        # Images come in an order that looks random, so the first are a fair part.
        count = min(len(generated), len(reference))
        if count <= self.num_neighbours:
            raise MetricError(
                f"NeighbourEntropy has {count} images on a side for num_neighbours={self.num_neighbours}; "
                "measure more images or ask for fewer neighbours"
            )
        axes = self.once("axes", lambda: principal_axes(reference.features, self.num_components))
        if axes.directions.shape[1] == 0:
            return {"knn_entropy_gap": Estimate(math.nan, better="floor")}

        def entropy(images: ImageSet) -> float:
            return neighbour_entropy(axes.project(images.features[:count]), self.num_neighbours)

        real_entropy = self.once(f"entropy of {count}", lambda: entropy(reference))
        return {"knn_entropy_gap": Estimate(entropy(generated) - real_entropy, better="floor")}


@final
class PairwiseDistance(GenerativeMetric):
    """``mean_pairwise_distance_ratio``: mean distance between two images, generated over real; 1 is ideal."""

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """``mean_pairwise_distance_ratio``, in [0, inf); NaN if the real images are all equal."""
        real = self.once("distance", lambda: mean_pairwise_distance(reference.features))
        ratio = mean_pairwise_distance(generated.features) / real if real > 0 else math.nan
        return {"mean_pairwise_distance_ratio": Estimate(ratio, better="one")}
