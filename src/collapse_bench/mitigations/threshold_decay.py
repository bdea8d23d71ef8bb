"""The threshold decay filter."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.selection import FeatureSelection, encode
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw
from collapse_bench.seeding import Role


@final
@dataclass(frozen=True, kw_only=True)
class ThresholdDecay(FeatureSelection):
    """Accepts, in random order, what is farther than a threshold from all that was accepted; then lowers it.

    Threshold decay filter of Shi et al. 2025 (arXiv:2509.16499): a pass over the shuffled candidates that ends short
    of n is followed by another one with ``decay`` times the threshold. Where the first threshold comes from is ours:
    a quantile of the distances between successive candidates of the shuffled order, which are random pairs. It looks
    at trusted real images only where its features are learnt from them. With ``candidates_per_kept=1`` it equals the
    control bit for bit.

    Args:
        candidates_per_kept: see ``Selection``.
        features: in what distances are Euclidean; see ``FeatureSelection``.
        start_quantile: of those distances, in [0, 1]; the first threshold.
        decay: factor of the threshold after each pass, in (0, 1).
    """

    reason: ClassVar[str] = "farther than the threshold"

    start_quantile: float
    decay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.start_quantile <= 1:
            raise ConfigError(f"mitigation.curator.start_quantile must lie in [0, 1], got {self.start_quantile}")
        if not 0 < self.decay < 1:
            raise ConfigError(f"mitigation.curator.decay must lie between 0 and 1, got {self.decay}")

    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """The accepted ones, in the order in which they were accepted."""
        order = torch.randperm(len(candidates), generator=now.stream(Role.CURATE).generator())
        points = encode(candidates.images[order], self.features, now)
        gaps = (points[1:] - points[:-1]).square().sum(1).sqrt().sort().values
        start = gaps[round(self.start_quantile * (len(gaps) - 1))].item() if len(gaps) else 0.0
        return order[accept_far(points, num_needed, start, self.decay).cpu()]


def accept_far(points: Float[Tensor, "n d"], num: int, threshold: float, decay: float) -> Int64[Tensor, " num"]:
    """Positions of ``num`` points, accepted in passes with a decaying threshold.

    A threshold above 0 never accepts an exact copy of an accepted point. When nothing but copies is left they are
    accepted in their order, as a threshold below 0 would.

    Args:
        points: in the order of the passes.
        num: how many.
        threshold: of the first pass.
        decay: its factor after each pass.
    """
    chosen: list[int] = []
    gap = torch.full((len(points),), torch.inf, dtype=points.dtype, device=points.device)
    first = 0  # of this pass that is not looked at yet
    while len(chosen) < num:
        far = (gap[first:] > threshold).nonzero()
        if len(far):
            latest = first + int(far[0])
            chosen.append(latest)
            gap = torch.minimum(gap, (points - points[latest]).square().sum(1).sqrt())
            gap[latest] = -torch.inf
            first = latest + 1
        else:
            first = 0
            threshold = threshold * decay if gap.max() > 0 else -1.0
    return torch.tensor(chosen)
