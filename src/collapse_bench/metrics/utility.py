"""What generated images are good for: training a classifier on them."""

import math
from pathlib import Path
from typing import ClassVar, final

from collapse_bench.encoders.classifier import Classifier
from collapse_bench.errors import ConfigError
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.classes import num_correct
from collapse_bench.metrics.functional.intervals import wilson_interval
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec


@final
class ClassificationAccuracy(GenerativeMetric):
    """``classification_accuracy_score``: accuracy on real images of a classifier trained on generated ones.

    Ravuri and Vinyals, "Classification accuracy score", arXiv:1905.10887. Best at the floor, where as many real images
    train the classifier. Lost diversity, lost classes and wrong labels lower it; that one image looks bad does not. The
    95 % Wilson interval is over the reference images only: it holds the classifier fixed.

    Args:
        classifier: what is trained, from scratch and with the same seed for every set of images.
    """

    columns: ClassVar[tuple[str, ...]] = ("images", "labels")
    resampled: ClassVar[bool] = False

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self._checked: tuple[ImageSpec, TrainerOptions] | None = None

    def check(self, spec: ImageSpec, has_probabilities: bool, options: TrainerOptions) -> None:
        """Raises ConfigError if there are no classes, and keeps what the classifier has to know of the images."""
        super().check(spec, has_probabilities, options)
        if spec.num_classes < 2:
            raise ConfigError(
                "the metric ClassificationAccuracy needs images of two classes or more, and these have "
                f"{spec.num_classes}; choose another data set or leave the metric out"
            )
        self._checked = spec, options

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """``classification_accuracy_score``, in [0, 1]; NaN if the generated images were made without a condition."""
        if self._checked is None:
            raise RuntimeError("ClassificationAccuracy.check must be called before score")
        if (generated.labels == UNLABELLED).any():
            return {"classification_accuracy_score": Estimate(math.nan, better="floor")}
        spec, options = self._checked
        # The classifier looks at images and labels alone, so their provenance may be anything.
        pool = Pool.real(generated.images, generated.labels, source="generated")
        fitted = self.classifier.fit(pool, spec, options, Store(Path(), enabled=False))
        probabilities = fitted.encode(reference.images).probabilities
        assert probabilities is not None
        count, total = num_correct(probabilities, reference.labels), len(reference)
        return {"classification_accuracy_score": Estimate(count / total, "floor", *wilson_interval(count, total))}
