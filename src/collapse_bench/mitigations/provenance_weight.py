"""A constant weight for synthetic images, by their recorded origin."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.base import Weigher
from collapse_bench.now import Now, Setting
from collapse_bench.pool import REAL, VisiblePool


@final
@dataclass(frozen=True)
class ProvenanceWeight(Weigher):
    """Every synthetic image counts ``synthetic_weight`` times as much as a real one.

    It is told the true origin of every image, also where the regime declares it lost: what it reaches is the upper
    bound of every detector. With ``synthetic_weight=1`` it equals the control bit for bit; 0 leaves only real images.

    Args:
        synthetic_weight: in [0, 1]. 0.99 differs from 1 by more than the weight, see ``Weigher.weigh``.
    """

    synthetic_weight: float

    def __post_init__(self) -> None:
        if not 0 <= self.synthetic_weight <= 1:
            raise ConfigError(f"mitigation.weigher.synthetic_weight must lie in [0, 1], got {self.synthetic_weight}")

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if nothing would be left to train on."""
        if self.synthetic_weight == 0 and not setting.keeps_real:
            raise ConfigError(
                "mitigation=provenance_weight with weigher.synthetic_weight=0 leaves real images only, and this regime "
                "trains on none; raise the weight, or choose a regime that keeps real images"
            )

    def weigh(self, train: VisiblePool, now: Now) -> Float[Tensor, " n"]:
        """1 for real images, ``synthetic_weight`` for the others."""
        return torch.where(train.revealed("born") == REAL, 1.0, self.synthetic_weight).double()
