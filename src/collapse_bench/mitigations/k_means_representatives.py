"""k-means representatives: a subset that covers the clusters of real images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.selection import ReferenceSelection, encode, highest, k_means, nearest, shares
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw


@final
@dataclass(frozen=True, kw_only=True)
class KMeansRepresentatives(ReferenceSelection):
    """Keeps, for every cluster of real images, the candidates nearest to its centre, as many as its share.

    One of the coverage-matching selections compared by Qiao et al. 2026 (arXiv:2606.13732); shares in proportion to
    the real images in a cluster are our reading. What a cluster lacks is filled by the candidates that are nearest
    to their own centre among the rest. It looks at the features of the reference. With ``candidates_per_kept=1`` it
    equals the control bit for bit.

    Args:
        candidates_per_kept: see ``Selection``.
        features: see ``ReferenceSelection``.
        reference_classes: see ``ReferenceSelection``.
        num_clusters: of the real images.
    """

    reason: ClassVar[str] = "represents a cluster"

    num_clusters: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_clusters < 1:
            raise ConfigError(f"mitigation.curator.num_clusters must be at least 1, got {self.num_clusters}")

    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """The representatives."""
        learnt = self.learn(self._clusters, now)
        distances, clusters = nearest(encode(candidates.images, self.features, now), learnt["centres"])
        return representatives(distances, clusters, shares(learnt["sizes"], num_needed))

    def _clusters(self, real: Float[Tensor, "n d"], seed: int) -> Mapping[str, Tensor]:
        centres = k_means(real, self.num_clusters, seed)
        return {"centres": centres, "sizes": nearest(real, centres)[1].bincount(minlength=len(centres))}


def representatives(
    distances: Float[Tensor, " n"], clusters: Int64[Tensor, " n"], quotas: Int64[Tensor, " k"]
) -> Int64[Tensor, " num"]:
    """Positions of the nearest members of each cluster, up to its quota; then of the nearest of all the rest.

    Args:
        distances: of each candidate to the centre of its cluster.
        clusters: of each candidate.
        quotas: of each cluster; they sum to ``num``.
    """
    rank = torch.empty_like(clusters)
    for cluster in range(len(quotas)):
        members = (clusters == cluster).nonzero().flatten()
        rank[members[highest(-distances[members], len(members))]] = torch.arange(len(members), device=rank.device)
    within = rank < quotas[clusters]
    # Those within their quota come first, whatever their distance.
    return highest(-torch.where(within, -1.0, distances), int(quotas.sum()))
