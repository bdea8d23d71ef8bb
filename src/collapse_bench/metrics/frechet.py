"""Fréchet distance."""

from typing import final

from collapse_bench.encoders.base import Encoded
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.frechet import frechet_distance


@final
class FrechetDistance(GenerativeMetric):
    """``fid``: squared Fréchet distance of the features; lower is better. It hardly sees early collapse.

    Heusel et al., arXiv:1706.08500. It is the published FID only with the published Inception features.
    """

    def score(self, generated: Encoded, reference: Encoded) -> dict[str, Estimate]:
        """``fid``, see ``functional.frechet.frechet_distance``."""
        return {"fid": Estimate(frechet_distance(generated.features, reference.features), better="lower")}
