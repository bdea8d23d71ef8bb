"""Class shares and confidence, as the frozen classifier sees them."""

from typing import ClassVar, final

from collapse_bench.encoders.base import Encoded
from collapse_bench.errors import ConfigError
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.classes import class_counts, class_kl, num_classes_covered
from collapse_bench.metrics.functional.intervals import normal_interval, wilson_interval


@final
class ClassShares(GenerativeMetric):
    """``class_kl``, ``lowest_class_share``, ``num_classes_covered`` and ``class_share_0``, ``class_share_1``, ...

    Shares have 95 % Wilson intervals over the generated images; that of the lowest share does not allow for the choice
    of the lowest. Nothing here sees collapse within a class.

    Args:
        covered_at: a class counts as covered from this part of its reference share on, in (0, 1].

    Raises:
        ConfigError: if ``covered_at`` is outside (0, 1].
    """

    needs_probabilities: ClassVar[bool] = True

    def __init__(self, covered_at: float = 0.1) -> None:
        super().__init__()
        if isinstance(covered_at, bool) or not isinstance(covered_at, int | float) or not 0 < covered_at <= 1:
            raise ConfigError(f"ClassShares.covered_at must be a fraction above 0 and up to 1, got {covered_at!r}")
        self.covered_at = covered_at

    def score(self, generated: Encoded, reference: Encoded) -> dict[str, Estimate]:
        """The divergence (lower), the lowest share and the classes covered (higher), and each share (floor)."""
        # update() has refused images without probabilities.
        assert generated.probabilities is not None
        assert reference.probabilities is not None
        counts, real_counts = class_counts(generated.probabilities), class_counts(reference.probabilities)
        num_images = len(generated)

        def share(count: int, better: str) -> Estimate:
            return Estimate(count / num_images, better, *wilson_interval(count, num_images))

        return {
            "class_kl": Estimate(class_kl(counts, real_counts), better="lower"),
            "lowest_class_share": share(int(counts.min()), better="higher"),
            "num_classes_covered": Estimate(num_classes_covered(counts, real_counts, self.covered_at), better="higher"),
            **{f"class_share_{index}": share(count, "floor") for index, count in enumerate(counts.tolist())},
        }


@final
class Confidence(GenerativeMetric):
    """``confidence``: mean probability of the most probable class, with its 95 % interval; best at the floor.

    Below the floor samples lie between classes; above it they are more typical than real images.
    """

    needs_probabilities: ClassVar[bool] = True

    def score(self, generated: Encoded, reference: Encoded) -> dict[str, Estimate]:
        """``confidence``, in [1/k, 1]; the reference does not enter."""
        # update() has refused images without probabilities.
        assert generated.probabilities is not None
        highest = generated.probabilities.double().amax(1)
        mean, standard_error = highest.mean().item(), highest.std().item() / len(highest) ** 0.5
        return {"confidence": Estimate(mean, "floor", *normal_interval(mean, standard_error))}
