"""DS3: whole clusters of candidates, those nearest to real images first."""

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.selection import ReferenceSelection, encode, k_means, nearest
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw
from collapse_bench.seeding import Role


@final
@dataclass(frozen=True, kw_only=True)
class DS3(ReferenceSelection):
    """Clusters the candidates by k-means and keeps the clusters whose centres are nearest to a real image.

    One of the selections compared by Qiao et al. 2026 (arXiv:2606.13732), as we understand it. Of the last cluster
    that is needed, the candidates nearest to its centre are kept. It looks at the features of the reference. With
    ``candidates_per_kept=1`` it equals the control bit for bit.

    Args:
        candidates_per_kept: see ``Selection``.
        features: see ``ReferenceSelection``.
        reference_classes: see ``ReferenceSelection``.
        num_clusters: of the candidates.
    """

    reason: ClassVar[str] = "in a cluster near real images"

    num_clusters: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_clusters < 1:
            raise ConfigError(f"mitigation.curator.num_clusters must be at least 1, got {self.num_clusters}")

    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """The members of the nearest clusters."""
        learnt = self.learn(lambda real, seed: {"features": real}, now)
        points = encode(candidates.images, self.features, now)
        centres = k_means(points, self.num_clusters, now.stream(Role.CURATE).seed)
        return nearest_clusters(points, centres, learnt["features"], num_needed)


def nearest_clusters(
    points: Float[Tensor, "n d"], centres: Float[Tensor, "k d"], real: Float[Tensor, "m d"], num: int
) -> Int64[Tensor, " num"]:
    """Positions of the first ``num`` points, by the distance of their cluster to ``real`` and that to its centre."""
    to_centre, cluster = nearest(points, centres)
    to_real, _ = nearest(centres, real)
    rank = to_real.argsort(stable=True).argsort(stable=True)
    order = to_centre.argsort(stable=True)
    return order[rank[cluster[order]].argsort(stable=True)][:num]
