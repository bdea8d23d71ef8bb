"""Anchoring: samples are pulled to the local moments of stale real images."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.correction import Correction
from collapse_bench.mitigations.selection import check_real
from collapse_bench.now import Now, Setting


@final
@dataclass(frozen=True, kw_only=True)
class Anchoring(Correction):
    """Gives every sample the local mean and standard deviation of its nearest anchors, in place of its neighbours'.

    After Chandwani et al. 2026, as we understand it. Anchors are a fixed pool of stale real images, the same at
    every generation. For a sample x with mean m and standard deviation s of its k nearest samples (itself one of
    them), and mean a and standard deviation b of its k nearest anchors, all per pixel, the target is
    a + (x - m) * b / s. It looks at the anchors; the control that it is compared with trains on the same real
    images instead: ``regime=mix regime.redraw_real=false`` with ``regime.frac_real=num_anchors/n``, where n is the
    size of the real pool. With ``strength=0`` it equals the control bit for bit.

    Args:
        strength: see ``Correction``.
        num_anchors: stale real images.
        num_neighbours: k.
    """

    reason: ClassVar[str] = "anchored"

    num_anchors: int
    num_neighbours: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_neighbours < 1:
            raise ConfigError(f"mitigation.curator.num_neighbours must be at least 1, got {self.num_neighbours}")

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if there are not that many real images."""
        check_real(setting, self.num_anchors)

    def targets(self, values: Float[Tensor, "n d"], labels: Tensor, now: Now) -> Float[Tensor, "n d"]:
        """The matched images."""
        learnt = now.artefact(
            "anchors", now.stale_real(self.num_anchors), lambda real, job: {"pixels": real.images.float().flatten(1)}
        )
        return match_locally(values, learnt["pixels"], self.num_neighbours)


def match_locally(
    values: Float[Tensor, "n d"], anchors: Float[Tensor, "m d"], num_neighbours: int
) -> Float[Tensor, "n d"]:
    """Values whose local means and standard deviations are those of the nearest anchors."""
    matched = []
    for chunk in values.split(256):
        mean, spread = local_moments(chunk, values, num_neighbours)
        anchor_mean, anchor_spread = local_moments(chunk, anchors, num_neighbours)
        # Without spread a value is its own local mean, and any ratio will do.
        ratio = anchor_spread / torch.where(spread > 0, spread, 1.0)
        matched.append(anchor_mean + (chunk - mean) * ratio)
    return torch.cat(matched)


def local_moments(
    points: Float[Tensor, "n d"], others: Float[Tensor, "m d"], num_neighbours: int
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Mean and standard deviation, per pixel, of the nearest of ``others``; of all of them if there are fewer."""
    # In float32 the inner products that this takes would lose small distances, and with them a point's own copy.
    distances = torch.cdist(points.double(), others.double())
    neighbours = others[distances.topk(min(num_neighbours, len(others)), largest=False).indices]
    return neighbours.mean(1), neighbours.std(1, correction=0)
