"""Precision, recall, density and coverage: who lies in whose nearest-neighbour balls."""

import math
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from collapse_bench.metrics.functional.neighbours import ROUNDING, centred, squared_distances, squared_radii

EXPECTED_DENSITY = 1.0
"""Mean of the density when both laws agree, for every continuous law, dimension, sample size and k."""


class ManifoldScores(NamedTuple):
    """Precision and recall in [0, 1], density in [0, inf), coverage in [0, 1]; higher is better."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(
    generated: Float[Tensor, "m d"], reference: Float[Tensor, "n d"], num_neighbours: int = 5
) -> ManifoldScores:
    """Improved precision and recall, density and coverage.

    Kynkäänniemi et al., arXiv:1904.06991, and Naeem et al., arXiv:2002.09797. The ball of an
    image reaches to its k-th nearest neighbour of its own set. Differences to the papers, both for samples that
    repeat: the border is inside, and neighbours are counted among distinct images (``squared_radii``).

    Precision: share of generated images in the ball of any real one. Recall: share of real images in the ball of any
    generated one. Density: balls of real images per generated image, over k. Coverage: share of real balls that hold
    a generated image. Precision, density and coverage rise when a generator shrinks inside the real manifold.

    Args:
        generated: features of generated images, any finite values.
        reference: features of held-out real images.
        num_neighbours: k, at least 1 and below the number of distinct reference images.
    """
    generated, reference = centred(generated, reference)
    real_radii = squared_radii(reference, num_neighbours) * ROUNDING
    generated_radii = squared_radii(generated, num_neighbours) * ROUNDING

    num_precise, num_inside = 0, 0
    recalled = real_radii.new_zeros(len(reference)).bool()
    covered = recalled.clone()
    for block, squared in squared_distances(generated, reference):
        in_real_ball = squared <= real_radii
        num_precise += in_real_ball.any(1).sum().item()
        num_inside += in_real_ball.sum().item()
        covered |= in_real_ball.any(0)
        recalled |= (squared <= generated_radii[block, None]).any(0)
    return ManifoldScores(
        precision=num_precise / len(generated),
        recall=recalled.double().mean().item(),
        density=num_inside / (num_neighbours * len(generated)),
        coverage=covered.double().mean().item(),
    )


def expected_coverage(num_reference: int, num_generated: int, num_neighbours: int) -> float:
    """Mean of the coverage when both laws agree: 1 - prod_{i=1..k} (N - i) / (N + M - i).

    Exact for every continuous law and dimension: a ball is empty when the k nearest of the N - 1 real and M generated
    images are all real (Naeem et al., arXiv:2002.09797).

    Args:
        num_reference: N, held-out real images.
        num_generated: M, generated images.
        num_neighbours: k.

    Returns:
        A number in [0, 1].
    """
    n, m = num_reference, num_generated
    return 1 - math.prod((n - i) / (n + m - i) for i in range(1, num_neighbours + 1))
