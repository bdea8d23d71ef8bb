"""Tail mass and tail coverage: what becomes of the rare images."""

from typing import final

from collapse_bench.errors import ConfigError, MetricError
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.intervals import wilson_interval
from collapse_bench.metrics.functional.manifold import expected_coverage, share
from collapse_bench.metrics.functional.tail import expected_tail_mass, tail_balls, tail_border, tail_count, tail_covered
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.metrics.manifold import check_num_neighbours


@final
class TailMass(GenerativeMetric):
    """``tail_mass``: share of generated images as far out as the outermost real ones; best at the floor.

    Lost tails lower it, bad samples raise it: never read it without ``precision``. The interval is over the generated
    images only; the reference is held fixed. Its mean for a perfect model is exact.

    Args:
        frac_tail: share of real images that are called tail, in (0, 1).

    Raises:
        ConfigError: if ``frac_tail`` is outside (0, 1).
    """

    def __init__(self, frac_tail: float = 0.05) -> None:
        super().__init__()
        _check_frac_tail(type(self).__name__, frac_tail)
        self.frac_tail = frac_tail

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """``tail_mass``, see ``functional.tail.tail_count``."""
        border = self.once("border", lambda: tail_border(reference.features, self.frac_tail))
        count = tail_count(generated.features, border)
        interval = wilson_interval(count, len(generated))
        null = expected_tail_mass(len(reference), self.frac_tail)
        return {"tail_mass": Estimate(count / len(generated), "floor", *interval, null=null)}


@final
class TailCoverage(GenerativeMetric):
    """``tail_coverage``: coverage of the real images where real images are rarest; higher is better.

    The first number of coverage that falls when a model forgets what is rare. Its mean for a perfect model is exact for
    independent draws of a continuous law; balls that share images are not independent, so there is no interval.

    Args:
        num_neighbours: the ball of an image reaches to this neighbour, at least 1.
        frac_tail: share of real images that are called tail, in (0, 1).

    Raises:
        ConfigError: if an argument is outside its range.
    """

    def __init__(self, num_neighbours: int = 5, frac_tail: float = 0.1) -> None:
        super().__init__()
        check_num_neighbours(type(self).__name__, num_neighbours)
        _check_frac_tail(type(self).__name__, frac_tail)
        self.num_neighbours, self.frac_tail = num_neighbours, frac_tail

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """``tail_coverage``, see ``functional.tail.tail_covered``; NaN where no real image of its half is in the tail.

        Raises:
            MetricError: if half of the reference has no more images than ``num_neighbours``.
        """
        k, num_half = self.num_neighbours, len(reference) // 2
        if num_half <= k:
            raise MetricError(
                f"TailCoverage has {num_half} images in half of the reference for num_neighbours={k}; "
                "hold out more images or ask for fewer neighbours"
            )
        tail = self.once("balls", lambda: tail_balls(reference.features, k, self.frac_tail))
        covered = tail_covered(generated.features, tail)
        null = expected_coverage(num_half, len(generated), k)
        return {"tail_coverage": Estimate(share(covered), "higher", null=null)}


def _check_frac_tail(metric: str, frac_tail: float) -> None:
    if not isinstance(frac_tail, float) or not 0 < frac_tail < 1:
        raise ConfigError(f"{metric}.frac_tail must be a fraction between 0 and 1, got {frac_tail!r}")
