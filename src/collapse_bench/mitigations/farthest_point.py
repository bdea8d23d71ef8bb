"""Greedy farthest-point selection."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.mitigations.selection import FeatureSelection, encode
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw
from collapse_bench.seeding import Role


@final
@dataclass(frozen=True, kw_only=True)
class FarthestPoint(FeatureSelection):
    """Starts from a random candidate and adds, again and again, the one farthest from those chosen.

    Greedy selection of Shi et al. 2025 (arXiv:2509.16499), which chooses n of 2n. It looks at trusted real
    images only where its features are learnt from them. With ``candidates_per_kept=1`` it equals the control bit for
    bit.

    Args:
        candidates_per_kept: see ``Selection``.
        features: in what distances are Euclidean; see ``FeatureSelection``.
    """

    reason: ClassVar[str] = "farthest point"

    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """The chosen ones, in the order in which they were chosen."""
        start = torch.randint(len(candidates), (), generator=now.stream(Role.CURATE).generator())
        return farthest_points(encode(candidates.images, self.features, now), num_needed, int(start))


def farthest_points(points: Float[Tensor, "n d"], num: int, start: int) -> Int64[Tensor, " num"]:
    """Positions of ``num`` points: ``start``, then always the one with the largest distance to the nearest chosen.

    Takes one row of distances per point chosen, and never holds more than one.
    """
    chosen = torch.empty(num, dtype=torch.int64, device=points.device)
    gap = torch.full((len(points),), torch.inf, dtype=points.dtype, device=points.device)
    latest = torch.tensor([start], device=points.device)
    for k in range(num):  # without an index that a GPU is waited for
        chosen[k : k + 1] = latest
        gap = torch.minimum(gap, (points - points.index_select(0, latest)).square().sum(1))
        gap.index_fill_(0, latest, -1.0)  # below the 0 of a copy, so that no point is chosen twice
        latest = gap.argmax(0, keepdim=True)
    return chosen
