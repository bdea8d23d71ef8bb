"""Precision, recall, density and coverage."""

from typing import final

from collapse_bench.encoders.base import Encoded
from collapse_bench.errors import ConfigError, MetricError
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.manifold import manifold_scores


@final
class Manifold(GenerativeMetric):
    """``precision``, ``recall``, ``density`` and ``coverage``; higher is better.

    Kynkäänniemi et al., arXiv:1904.06991; Naeem et al., arXiv:2002.09797. Precision and density *rise* in early
    collapse.

    Args:
        num_neighbours: the ball of an image reaches to this neighbour, at least 1.

    Raises:
        ConfigError: if ``num_neighbours`` is not a whole number of at least 1.
    """

    def __init__(self, num_neighbours: int = 5) -> None:
        super().__init__()
        if not isinstance(num_neighbours, int) or isinstance(num_neighbours, bool) or num_neighbours < 1:
            raise ConfigError(f"Manifold.num_neighbours must be a whole number of at least 1, got {num_neighbours!r}")
        self.num_neighbours = num_neighbours

    def score(self, generated: Encoded, reference: Encoded) -> dict[str, Estimate]:
        """The four numbers, see ``functional.manifold.manifold_scores``.

        Raises:
            MetricError: if a side has no more images than ``num_neighbours``.
        """
        for side, encoded in (("generated", generated), ("reference", reference)):
            if len(encoded) <= self.num_neighbours:
                raise MetricError(
                    f"Manifold has {len(encoded)} {side} images for num_neighbours={self.num_neighbours}; "
                    "measure more images or ask for fewer neighbours"
                )
        scores = manifold_scores(generated.features, reference.features, self.num_neighbours)
        return {name: Estimate(value, better="higher") for name, value in scores._asdict().items()}
