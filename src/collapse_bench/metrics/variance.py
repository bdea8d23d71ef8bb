"""Variance within the classes."""

from typing import ClassVar, final

from collapse_bench.encoders.base import Encoded
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.classes import predicted_classes
from collapse_bench.metrics.functional.variance import within_class_variance_ratio


@final
class WithinClassVariance(GenerativeMetric):
    """``within_class_variance_ratio``: feature variance within the classes, generated over real; 1 is ideal.

    Below 1 the classes have shrunk, which is the first sign of collapse. It says nothing about lost classes.
    """

    needs_probabilities: ClassVar[bool] = True

    def score(self, generated: Encoded, reference: Encoded) -> dict[str, Estimate]:
        """``within_class_variance_ratio``, see the function of that name in ``functional.variance``."""
        # update() has refused images without probabilities.
        assert generated.probabilities is not None
        assert reference.probabilities is not None
        ratio = within_class_variance_ratio(
            generated.features,
            predicted_classes(generated.probabilities),
            reference.features,
            predicted_classes(reference.probabilities),
        )
        return {"within_class_variance_ratio": Estimate(ratio, better="one")}
