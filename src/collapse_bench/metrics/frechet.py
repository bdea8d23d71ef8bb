"""Fréchet distance."""

import math
from typing import final

from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.frechet import (
    blocks_of_moments,
    extrapolated_distance,
    frechet_distance_of_gaussians,
    moments,
)
from collapse_bench.metrics.image_set import ImageSet


@final
class FrechetDistance(GenerativeMetric):
    """``fid`` and ``fid_infinity``: squared Fréchet distance of the features; lower is better.

    Heusel et al., arXiv:1706.08500. ``fid`` is the published FID only with the published Inception features. Finite
    samples bias it upwards, and less for a generator of lower variance, so that it flatters a collapsed model.
    ``fid_infinity`` extrapolates both sides to infinitely many images (after Chong and Forsyth, arXiv:1911.07023); 0 is
    expected of a perfect model. It is NaN where a quarter of a side has no more images than features: the
    extrapolation would be wrong. Both hardly see early collapse.
    """

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """Both, see ``functional.frechet.frechet_distance`` and ``extrapolated_distance``."""
        real = self.once("moments", lambda: moments(reference.features))
        real_blocks = self.once("blocks", lambda: blocks_of_moments(reference.features))
        distance = frechet_distance_of_gaussians(moments(generated.features), real)
        infinity = extrapolated_distance(distance, blocks_of_moments(generated.features), real_blocks)
        interval = (None, None) if math.isnan(infinity.value) else (infinity.low, infinity.high)
        return {
            "fid": Estimate(distance, "lower"),
            "fid_infinity": Estimate(infinity.value, "lower", *interval),
        }
