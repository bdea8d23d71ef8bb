"""Kernel distance."""

import math
from typing import final

from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.intervals import normal_interval
from collapse_bench.metrics.functional.kernel import kernel_distance_of_fits, kernel_fit
from collapse_bench.metrics.image_set import ImageSet


@final
class KernelDistance(GenerativeMetric):
    """``kid``: unbiased kernel distance of the features, with its 95 % interval; lower is better.

    Its mean is exactly 0 for a perfect model, so that it may be negative.
    Binkowski et al., arXiv:1801.01401. It hardly sees early collapse.
    """

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """``kid``, see ``functional.kernel.kernel_distance``; without interval below four images on a side."""
        real = self.once("fit", lambda: kernel_fit(reference.features))
        across = kernel_fit(generated.features, reference.features)
        distance = kernel_distance_of_fits(kernel_fit(generated.features), real, across)
        interval = (None, None)
        if not math.isnan(distance.standard_error):
            interval = normal_interval(distance.value, distance.standard_error)
        return {"kid": Estimate(distance.value, "lower", *interval, null=0.0)}
