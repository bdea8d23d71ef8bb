"""Features of one encoder beside classes of another."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from collapse_bench.encoders.base import Encoded, Encoder, FittedEncoder
from collapse_bench.encoders.with_classes import WithClasses
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec


class Counting(FittedEncoder):
    """Notes how many images it is given at once."""

    def __init__(self, value: float, batch_size: int) -> None:
        super().__init__()
        self.value, self.batch_size = value, batch_size
        self.counts: list[int] = []

    def forward(self, images: Tensor) -> Encoded:
        self.counts.append(len(images))
        constant = torch.full((len(images), 2), self.value)
        return Encoded(constant, constant)


@dataclass(frozen=True)
class Ready(Encoder):
    has_probabilities = True
    fitted: Counting = field(compare=False)

    def fit(self, real: Pool, spec: ImageSpec, options: TrainerOptions, store: Store) -> FittedEncoder:
        return self.fitted


def test_features_and_classes_come_from_their_encoders_in_batches_that_both_can_hold() -> None:
    features, classifier = Counting(1.0, batch_size=2), Counting(0.5, batch_size=1000)
    images = torch.zeros(5, 1, 4, 4, dtype=torch.uint8)
    real = Pool.real(images, torch.full((5,), UNLABELLED), source="blank")
    spec = ImageSpec(1, 4, 4, ("blank",))
    both = WithClasses(Ready(features), Ready(classifier))  # pyright: ignore[reportArgumentType]
    encoded = both.fit(real, spec, TrainerOptions(), Store(Path("unused"), enabled=False)).encode(images)
    assert encoded.probabilities is not None
    assert encoded.features.eq(1.0).all()
    assert encoded.probabilities.eq(0.5).all()
    assert features.counts == classifier.counts == [2, 2, 1]


def test_the_packages_of_both_are_named() -> None:
    features, classifier = Counting(1.0, batch_size=2), Counting(0.5, batch_size=2)
    features.package = "torch-fidelity 0.4"
    both = WithClasses(Ready(features), Ready(classifier))  # pyright: ignore[reportArgumentType]
    real = Pool.real(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2).long(), source="blank")
    fitted = both.fit(real, ImageSpec(1, 4, 4, ("blank",)), TrainerOptions(), Store(Path("unused"), enabled=False))
    assert fitted.package == "torch-fidelity 0.4"
