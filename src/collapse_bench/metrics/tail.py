"""Tail mass."""

from typing import final

from collapse_bench.encoders.base import Encoded
from collapse_bench.errors import ConfigError
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.intervals import wilson_interval
from collapse_bench.metrics.functional.tail import tail_count


@final
class TailMass(GenerativeMetric):
    """``tail_mass``: share of generated images as far out as the outermost real ones; best at the floor.

    Lost tails lower it, bad samples raise it: never read it without ``precision``. The interval is over the generated
    images only; the reference is held fixed.

    Args:
        frac_tail: share of real images that are called tail, in (0, 1).

    Raises:
        ConfigError: if ``frac_tail`` is outside (0, 1).
    """

    def __init__(self, frac_tail: float = 0.05) -> None:
        super().__init__()
        if not isinstance(frac_tail, float) or not 0 < frac_tail < 1:
            raise ConfigError(f"TailMass.frac_tail must be a fraction between 0 and 1, got {frac_tail!r}")
        self.frac_tail = frac_tail

    def score(self, generated: Encoded, reference: Encoded) -> dict[str, Estimate]:
        """``tail_mass``, see ``functional.tail.tail_count``."""
        count = tail_count(generated.features, reference.features, self.frac_tail)
        return {"tail_mass": Estimate(count / len(generated), "floor", *wilson_interval(count, len(generated)))}
