"""Pixels as features."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from collapse_bench.encoders.base import Encoded, Encoder, FittedEncoder
from collapse_bench.pool import Pool
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec, to_float


@final
@dataclass(frozen=True)
class Pixels(Encoder):
    """The flattened image itself: nothing is learnt, and there are no classes."""

    has_probabilities: ClassVar[bool] = False

    def fit(self, real: Pool, spec: ImageSpec, options: TrainerOptions, store: Store) -> FittedEncoder:
        """The same map for all images; the arguments are not looked at."""
        return _Flatten()


class _Flatten(FittedEncoder):
    def forward(self, images: Tensor) -> Encoded:
        return Encoded(to_float(images).flatten(1))
