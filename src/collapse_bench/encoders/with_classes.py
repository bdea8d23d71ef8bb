"""Features of one encoder, classes of another."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from collapse_bench.encoders.base import Encoded, Encoder, FittedEncoder
from collapse_bench.encoders.classifier import Classifier
from collapse_bench.pool import Pool
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec


@final
@dataclass(frozen=True)
class WithClasses(Encoder):
    """Features that owe nothing to classes, with class probabilities from the frozen classifier.

    A classifier pulls its classes together and everything unusual apart, so its own features can call a set of
    samples diverse that has shrunk in pixel space.

    Args:
        features: gives the features.
        classifier: gives the class probabilities.
    """

    has_probabilities: ClassVar[bool] = True

    features: Encoder
    classifier: Classifier

    @property
    def gradient_steps(self) -> int:
        """Gradient steps that a fit of both takes."""
        return self.features.gradient_steps + self.classifier.gradient_steps

    def check(self, real: Pool, spec: ImageSpec) -> None:
        """Raises ConfigError if one of the two cannot be learnt from these real images."""
        self.features.check(real, spec)
        self.classifier.check(real, spec)

    def fit(self, real: Pool, spec: ImageSpec, options: TrainerOptions, store: Store) -> FittedEncoder:
        """Both encoders for these real images."""
        return _Both(self.features.fit(real, spec, options, store), self.classifier.fit(real, spec, options, store))


class _Both(FittedEncoder):
    def __init__(self, features: FittedEncoder, classifier: FittedEncoder) -> None:
        super().__init__()
        self.features, self.classifier = features, classifier
        self.batch_size = min(features.batch_size, classifier.batch_size)
        self.num_networks = features.num_networks + classifier.num_networks
        self.package = " ".join(encoder.package for encoder in (features, classifier) if encoder.package)

    def forward(self, images: Tensor) -> Encoded:
        return Encoded(self.features(images).features, self.classifier(images).probabilities)
