"""Kernel distance."""

import math
from typing import final

from collapse_bench.encoders.base import Encoded
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.intervals import normal_interval
from collapse_bench.metrics.functional.kernel import kernel_distance


@final
class KernelDistance(GenerativeMetric):
    """``kid``: unbiased kernel distance of the features, with its 95 % interval; lower is better, 0 is expected.

    Binkowski et al., arXiv:1801.01401. It hardly sees early collapse.
    """

    def score(self, generated: Encoded, reference: Encoded) -> dict[str, Estimate]:
        """``kid``, see ``functional.kernel.kernel_distance``; without interval below four images on a side."""
        distance = kernel_distance(generated.features, reference.features)
        if math.isnan(distance.standard_error):
            return {"kid": Estimate(distance.value, better="lower")}
        return {"kid": Estimate(distance.value, "lower", *normal_interval(distance.value, distance.standard_error))}
