"""Tail first: the rarest candidates go on."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.selection import FeatureSelection, encode, highest
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw


@final
@dataclass(frozen=True, kw_only=True)
class TailFirst(FeatureSelection):
    """Keeps the candidates of lowest density, that is with the farthest k-th neighbour among all candidates.

    A hypothesis without a reviewed source. Rare is meant among the candidates and not among real images, because
    what is far from every real image is first of all a bad sample. It looks at trusted real images only where its
    features are learnt from them. With ``candidates_per_kept=1`` it equals the control bit for bit.

    Args:
        candidates_per_kept: see ``Selection``.
        features: in what distances are Euclidean; see ``FeatureSelection``.
        num_neighbours: k.
    """

    reason: ClassVar[str] = "rare"

    num_neighbours: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_neighbours < 1:
            raise ConfigError(f"mitigation.curator.num_neighbours must be at least 1, got {self.num_neighbours}")

    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """The rarest ones."""
        points = encode(candidates.images, self.features, now)
        return highest(neighbour_distances(points, self.num_neighbours), num_needed)


def neighbour_distances(points: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    """Distance of each point to its k-th neighbour, itself not counted; to its last one where there are fewer."""
    k = min(k, len(points) - 1)
    rows = [torch.cdist(chunk, points).topk(k + 1, largest=False).values[:, k] for chunk in points.split(1024)]
    return torch.cat(rows)
