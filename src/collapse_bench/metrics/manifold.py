"""Precision, recall, density and coverage, of all images and class by class."""

import math
from typing import ClassVar, final

from collapse_bench.errors import ConfigError, MetricError
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.intervals import wilson_interval
from collapse_bench.metrics.functional.manifold import (
    EXPECTED_DENSITY,
    balls,
    expected_coverage,
    overlap,
    share,
    shares_of_classes,
)
from collapse_bench.metrics.image_set import ImageSet


@final
class Manifold(GenerativeMetric):
    """``precision``, ``recall``, ``density``, ``coverage``, and coverage and recall of classes; higher is better.

    Kynkäänniemi et al., arXiv:1904.06991; Naeem et al., arXiv:2002.09797. Precision and density *rise* in early
    collapse.

    ``class_coverage_0``, ``class_coverage_1``, ... is the part of the coverage that falls on the real images with that
    label, ``lowest_class_coverage`` the lowest of them and ``lowest_class_recall`` likewise; they are left out where
    the reference has no labels. A rare class that is lost hardly moves ``coverage`` and takes its own to 0.

    The means of density and coverage for a perfect model are exact when all images are independent draws of a
    continuous law; those of the lowest of classes, precision and recall have no formula. Precision has a 95 % Wilson
    interval over the generated images, the real ones held fixed, and recall one over the real images, the generated
    ones held fixed; balls that share images are not independent, so the others have none.

    Args:
        num_neighbours: the ball of an image reaches to this neighbour, at least 1.

    Raises:
        ConfigError: if ``num_neighbours`` is not a whole number of at least 1.
    """

    columns: ClassVar[tuple[str, ...]] = ("features", "labels")

    def __init__(self, num_neighbours: int = 5) -> None:
        super().__init__()
        check_num_neighbours(type(self).__name__, num_neighbours)
        self.num_neighbours = num_neighbours

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """The numbers, see ``functional.manifold.manifold_scores``.

        Raises:
            MetricError: if a side has no more images than ``num_neighbours``.
        """
        k = self.num_neighbours
        for side, images in (("generated", generated), ("reference", reference)):
            if len(images) <= k:
                raise MetricError(
                    f"Manifold has {len(images)} {side} images for num_neighbours={k}; "
                    "measure more images or ask for fewer neighbours"
                )
        real = self.once("balls", lambda: balls(reference.features, k))
        found = overlap(balls(generated.features, k), real)
        coverage_null = expected_coverage(len(reference), len(generated), k)
        precision = wilson_interval(int(found.precise.sum()), len(generated))
        recall = wilson_interval(int(found.recalled.sum()), len(reference))
        density = found.num_inside / (k * len(generated))
        scores = {
            "precision": Estimate(share(found.precise), "higher", *precision),
            "recall": Estimate(share(found.recalled), "higher", *recall),
            "density": Estimate(density, "higher", null=EXPECTED_DENSITY),
            "coverage": Estimate(share(found.covered), "higher", null=coverage_null),
        }
        if not (reference.labels >= 0).any():
            return scores
        coverages = shares_of_classes(found.covered, reference.labels)
        recalls = shares_of_classes(found.recalled, reference.labels)
        return {
            **scores,
            "lowest_class_coverage": Estimate(_lowest(coverages), "higher"),
            "lowest_class_recall": Estimate(_lowest(recalls), "higher"),
            **{
                f"class_coverage_{label}": Estimate(coverage, "higher", null=coverage_null)
                for label, coverage in enumerate(coverages)
            },
        }


def check_num_neighbours(metric: str, num_neighbours: int) -> None:
    """Raises ConfigError if ``num_neighbours`` is not a whole number of at least 1.

    Args:
        metric: whose argument it is.
        num_neighbours: the argument.
    """
    if not isinstance(num_neighbours, int) or isinstance(num_neighbours, bool) or num_neighbours < 1:
        raise ConfigError(f"{metric}.num_neighbours must be a whole number of at least 1, got {num_neighbours!r}")


def _lowest(shares: list[float]) -> float:
    return min(share for share in shares if not math.isnan(share))
