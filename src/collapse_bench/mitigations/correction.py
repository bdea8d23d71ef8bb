"""What correcting curators share: every sample is moved toward a target of its own."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.base import Curator
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw


@dataclass(frozen=True, kw_only=True)
class Correction(Curator):
    """Keeps as many candidates as are needed, each moved toward its target.

    Grey levels are rounded, so the images stay uint8 where they are. With ``strength=0`` every correction equals the
    control bit for bit.

    Args:
        strength: how far, in [0, 1]: 0 leaves the images as they are, 1 replaces them by their targets.
    """

    changes_images: ClassVar[bool] = True

    reason: ClassVar[str]
    """Why an image was kept, as pools record it."""

    strength: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"mitigation.curator.strength must lie in [0, 1], got {self.strength}")

    @final
    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        """The corrected images; see ``targets``."""
        candidates = draw(num_needed)
        values = candidates.images.float().flatten(1)
        if now.setting.spec.dtype == "uint8" and candidates.images.dtype != torch.uint8:  # samples in [-1, 1]
            targets = self.targets((values + 1) * 127.5, candidates.labels, now) / 127.5 - 1
        else:
            targets = self.targets(values, candidates.labels, now)
        moved = values.lerp(targets, self.strength).view(candidates.images.shape)
        images = moved.round().clamp(0, 255).to(torch.uint8) if candidates.images.dtype == torch.uint8 else moved
        return replace(candidates, images=images).take(torch.arange(num_needed), because=self.reason)

    @abstractmethod
    def targets(self, values: Float[Tensor, "n d"], labels: Tensor, now: Now) -> Float[Tensor, "n d"]:
        """What each image is moved toward.

        Args:
            values: pixels of the candidates: grey levels 0..255, or the numbers themselves where there are none.
            labels: their classes, or ``UNLABELLED``.
            now: this generation.
        """
