"""Covariance matching: a subset with the covariance of real images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.mitigations.matching import match_moments
from collapse_bench.mitigations.selection import ReferenceSelection, encode
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw


@final
@dataclass(frozen=True, kw_only=True)
class CovarianceMatching(ReferenceSelection):
    """Adds, again and again, the candidate that brings the covariance of the chosen nearest to that of real images.

    Greedy minimisation of the Frobenius distance, one of the selections compared by Qiao et al. 2026
    (arXiv:2606.13732). Covariances are taken about the mean of the reference, so a shifted mean counts, too. It looks
    at the features of the reference. With ``candidates_per_kept=1`` it equals the control bit for bit.

    Args:
        candidates_per_kept: see ``Selection``.
        features: see ``ReferenceSelection``.
        reference_classes: see ``ReferenceSelection``.
    """

    reason: ClassVar[str] = "matches the covariance"

    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """The chosen ones, in the order in which they were chosen."""
        learnt = self.learn(_moments, now)
        points = encode(candidates.images, self.features, now) - learnt["mean"]
        wanted = ((points @ learnt["covariance"]) * points).sum(1)
        return match_moments(points, power=2, target=wanted, num=num_needed)


def _moments(real: Float[Tensor, "n d"], seed: int) -> Mapping[str, Tensor]:
    del seed
    mean = real.mean(0)
    return {"mean": mean, "covariance": (real - mean).T @ (real - mean) / len(real)}
