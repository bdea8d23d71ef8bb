"""Class shares, confidence and agreement with the conditions, as the frozen classifier sees them."""

import math
from typing import ClassVar, final

from collapse_bench.errors import ConfigError
from collapse_bench.metrics.base import Estimate, GenerativeMetric, Side
from collapse_bench.metrics.functional.classes import (
    calibration_error,
    class_counts,
    class_entropy,
    class_g_test,
    class_kl,
    expected_class_kl,
    num_classes_covered,
    num_correct,
    num_entangled,
)
from collapse_bench.metrics.functional.intervals import normal_interval, wilson_interval
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.pool import UNLABELLED


@final
class ClassShares(GenerativeMetric):
    """``class_kl``, ``class_g``, ``class_entropy``, ``num_classes_covered``, and the lowest and each class share.

    The shares are ``lowest_class_share`` and ``class_share_0``, ``class_share_1``, ... They have 95 % Wilson intervals
    over the generated images; that of the lowest share does not allow for the choice of the lowest. Nothing here sees
    collapse within a class.

    Args:
        covered_at: a class counts as covered from this part of its reference share on, in (0, 1].

    Raises:
        ConfigError: if ``covered_at`` is outside (0, 1].
    """

    columns: ClassVar[tuple[str, ...]] = ("probabilities",)

    def __init__(self, covered_at: float = 0.1) -> None:
        super().__init__()
        if isinstance(covered_at, bool) or not isinstance(covered_at, int | float) or not 0 < covered_at <= 1:
            raise ConfigError(f"ClassShares.covered_at must be a fraction above 0 and up to 1, got {covered_at!r}")
        self.covered_at = covered_at

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """Divergence and G (lower), lowest share and classes covered (higher), entropy and each share (floor)."""
        counts, real_counts = class_counts(generated.probabilities), class_counts(reference.probabilities)
        num_images = len(generated)

        def share(count: int, better: str) -> Estimate:
            return Estimate(count / num_images, better, *wilson_interval(count, num_images))

        null = expected_class_kl(real_counts, num_images)
        test = class_g_test(counts, real_counts)
        return {
            "class_kl": Estimate(class_kl(counts, real_counts), better="lower", null=null),
            "class_g": Estimate(test.statistic, better="lower", null=float((real_counts > 0).sum() - 1)),
            "class_entropy": Estimate(class_entropy(counts), better="floor"),
            "lowest_class_share": share(int(counts.min()), better="higher"),
            "num_classes_covered": Estimate(num_classes_covered(counts, real_counts, self.covered_at), better="higher"),
            **{f"class_share_{index}": share(count, "floor") for index, count in enumerate(counts.tolist())},
        }


@final
class Confidence(GenerativeMetric):
    """``confidence``: mean probability of the most probable class, with its 95 % interval; best at the floor.

    Below the floor samples lie between classes; above it they are more typical than real images.
    """

    columns: ClassVar[tuple[str, ...]] = ("probabilities",)
    sides: ClassVar[tuple[Side, ...]] = ("generated",)

    def score(self, generated: ImageSet) -> dict[str, Estimate]:
        """``confidence``, in [1/k, 1]."""
        highest = generated.probabilities.double().amax(1)
        mean, standard_error = highest.mean().item(), highest.std().item() / len(highest) ** 0.5
        return {"confidence": Estimate(mean, "floor", *normal_interval(mean, standard_error))}


@final
class Entanglement(GenerativeMetric):
    """``entanglement``: share of images between two classes, with its 95 % Wilson interval; best at the floor.

    An image is between classes when its two highest probabilities differ by less than ``margin``. This is our measure
    of the merging of real modes, one of the definitions of collapse that Schaeffer et al. list (arXiv:2503.03150). It
    needs a classifier that is sure of real images.

    Args:
        margin: in (0, 1].

    Raises:
        ConfigError: if ``margin`` is outside (0, 1].
    """

    columns: ClassVar[tuple[str, ...]] = ("probabilities",)
    sides: ClassVar[tuple[Side, ...]] = ("generated",)

    def __init__(self, margin: float = 0.5) -> None:
        super().__init__()
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 < margin <= 1:
            raise ConfigError(f"Entanglement.margin must be a difference above 0 and up to 1, got {margin!r}")
        self.margin = margin

    def score(self, generated: ImageSet) -> dict[str, Estimate]:
        """``entanglement``, in [0, 1]."""
        count, total = num_entangled(generated.probabilities, self.margin), len(generated)
        return {"entanglement": Estimate(count / total, "floor", *wilson_interval(count, total))}


@final
class LabelAgreement(GenerativeMetric):
    """``label_accuracy`` and ``calibration_error`` of the frozen classifier on the conditions; best at the floor.

    The floor is how well it does on real images with their labels. Accuracy below it means that a model makes another
    class than it was asked for; accuracy above it, that its images are more typical than real ones. NaN where images
    were made without a condition. The accuracy has a 95 % Wilson interval.

    Args:
        num_bins: bins of the confidence over which accuracy is compared with it, at least 1.

    Raises:
        ConfigError: if ``num_bins`` is not a whole number of at least 1.
    """

    columns: ClassVar[tuple[str, ...]] = ("probabilities", "labels")
    sides: ClassVar[tuple[Side, ...]] = ("generated",)

    def __init__(self, num_bins: int = 15) -> None:
        super().__init__()
        if not isinstance(num_bins, int) or isinstance(num_bins, bool) or num_bins < 1:
            raise ConfigError(f"LabelAgreement.num_bins must be a whole number of at least 1, got {num_bins!r}")
        self.num_bins = num_bins

    def score(self, generated: ImageSet) -> dict[str, Estimate]:
        """Both numbers, in [0, 1]."""
        probabilities, labels = generated.probabilities, generated.labels
        if (labels == UNLABELLED).any():
            return {name: Estimate(math.nan, better="floor") for name in ("label_accuracy", "calibration_error")}
        count, total = num_correct(probabilities, labels), len(labels)
        return {
            "label_accuracy": Estimate(count / total, "floor", *wilson_interval(count, total)),
            "calibration_error": Estimate(calibration_error(probabilities, labels, self.num_bins), better="floor"),
        }
