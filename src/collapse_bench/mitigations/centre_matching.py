"""Centre matching: a subset with the mean of real images."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Int64
from torch import Tensor

from collapse_bench.mitigations.matching import match_moments
from collapse_bench.mitigations.selection import ReferenceSelection, encode
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw


@final
@dataclass(frozen=True, kw_only=True)
class CentreMatching(ReferenceSelection):
    """Adds, again and again, the candidate that brings the mean of the chosen nearest to the mean of real images.

    One of the moment-matching selections compared by Qiao et al. 2026 (arXiv:2606.13732); that it is done greedily
    is our reading. It looks at the features of the reference. With ``candidates_per_kept=1`` it equals the control
    bit for bit.

    Args:
        candidates_per_kept: see ``Selection``.
        features: see ``ReferenceSelection``.
        reference_classes: see ``ReferenceSelection``.
    """

    reason: ClassVar[str] = "matches the centre"

    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """The chosen ones, in the order in which they were chosen."""
        learnt = self.learn(lambda real, seed: {"mean": real.mean(0)}, now)
        points = encode(candidates.images, self.features, now) - learnt["mean"]
        return match_moments(points, power=1, target=torch.zeros_like(points[:, 0]), num=num_needed)
