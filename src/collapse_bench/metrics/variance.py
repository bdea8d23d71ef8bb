"""Variance of the features, in all and within the classes."""

import math
from typing import ClassVar, final

from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.classes import predicted_classes
from collapse_bench.metrics.functional.variance import total_variance, within_class_variance_ratio
from collapse_bench.metrics.image_set import ImageSet


@final
class TotalVariance(GenerativeMetric):
    """``total_variance_ratio``: trace of the feature covariance, generated over real; 1 is ideal.

    It mixes the variance within the classes with that between them, so it does not tell which is lost.
    """

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """``total_variance_ratio``, in [0, inf); NaN if the real images are all equal."""
        real = self.once("variance", lambda: total_variance(reference.features))
        ratio = total_variance(generated.features) / real if real > 0 else math.nan
        return {"total_variance_ratio": Estimate(ratio, better="one")}


@final
class WithinClassVariance(GenerativeMetric):
    """``within_class_variance_ratio``: feature variance within the classes, generated over real; 1 is ideal.

    Below 1 the classes have shrunk, which is the first sign of collapse. It says nothing about lost classes.
    """

    columns: ClassVar[tuple[str, ...]] = ("features", "probabilities")

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """``within_class_variance_ratio``, see the function of that name in ``functional.variance``."""
        ratio = within_class_variance_ratio(
            generated.features,
            predicted_classes(generated.probabilities),
            reference.features,
            predicted_classes(reference.probabilities),
        )
        return {"within_class_variance_ratio": Estimate(ratio, better="one")}
