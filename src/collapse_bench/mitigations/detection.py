"""What weighers share that judge by an image's pixels whether it is synthetic."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.base import Weigher
from collapse_bench.now import Now, Setting
from collapse_bench.pool import VisiblePool


@dataclass(frozen=True, kw_only=True)
class Detection(Weigher):
    """Images that are taken for synthetic count ``weight`` times as much as others.

    Generation 0 trains on real images only, so nothing is looked for there. With ``weight=1`` the model equals that
    of the control bit for bit, and the detector only watches.

    Args:
        weight: in [0, 1]; 0 drops what is flagged.
        frac_false_positive: share of real images that are known to be real which may be flagged, in (0, 1); it sets
            the threshold. What it is on held-out real images is measured.
    """

    name: ClassVar[str]
    """How errors call it."""

    num_networks: ClassVar[int] = 0
    """Networks that look at each image of the pool."""

    weight: float
    frac_false_positive: float

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ConfigError(f"mitigation.weigher.weight must lie in [0, 1], got {self.weight}")
        if not 0 < self.frac_false_positive < 1:
            raise ConfigError(
                "mitigation.weigher.frac_false_positive must lie between 0 and 1 (exclusive), got "
                f"{self.frac_false_positive}"
            )

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if nothing would be left to train on, or too little is known to be real."""
        if self.weight == 0 and not setting.keeps_real:
            raise ConfigError(
                f"mitigation={self.name} with weigher.weight=0 drops synthetic images, and this regime trains on no "
                "others; raise the weight, or choose a regime that keeps real images"
            )
        if len(setting.trusted) < 8:
            raise ConfigError(
                f"mitigation={self.name} needs at least 8 images that are known to be real, and there are "
                f"{len(setting.trusted)}; raise regime.num_trusted"
            )

    @final
    def weigh(self, train: VisiblePool, now: Now) -> Float[Tensor, " n"]:
        """``weight`` for images that are flagged, 1 for the others."""
        flags = self.flags(train.images, now) if now.generation > 0 else None
        if flags is None:
            return torch.ones(len(train), dtype=torch.float64)
        now.spend(judging_evaluations=len(train) * self.num_networks)
        return torch.where(flags, self.weight, 1.0).double()

    @abstractmethod
    def flags(self, images: Tensor, now: Now) -> Bool[Tensor, " n"] | None:
        """See ``Weigher.flags``."""
