"""Precision, recall, density and coverage: who lies in whose nearest-neighbour balls."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from collapse_bench.metrics.functional.neighbours import Points, blocks, distinct, squared_radii

EXPECTED_DENSITY = 1.0
"""Mean of the density when both laws agree, for every continuous law, dimension, sample size and k."""


class Balls(NamedTuple):
    """A ball around each distinct image of a set, that reaches to its k-th nearest neighbour in the set.

    Args:
        centres: features of the distinct images.
        squared_radii: of their balls, float64.
        owner: for every image of the set, which of the balls is its own.
    """

    centres: Float[Tensor, "u d"]
    squared_radii: Float[Tensor, " u"]
    owner: Int64[Tensor, " n"]

    @property
    def counts(self) -> Int64[Tensor, " u"]:
        """Images per ball."""
        return torch.bincount(self.owner, minlength=len(self.centres))


class Overlap(NamedTuple):
    """How two sets of balls overlap.

    Args:
        precise: generated images that lie in the ball of a real one.
        recalled: real images that lie in the ball of a generated one.
        covered: real images whose ball holds a generated image.
        num_inside: pairs of a generated image and a real ball that holds it.
    """

    precise: Bool[Tensor, " m"]
    recalled: Bool[Tensor, " n"]
    covered: Bool[Tensor, " n"]
    num_inside: int


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

    Kynkäänniemi et al., arXiv:1904.06991, and Naeem et al., arXiv:2002.09797. Differences to the papers, both for
    samples that repeat: the border of a ball is inside, and neighbours are counted among distinct images.

    Precision: share of generated images in the ball of any real one. Recall: share of real images in the ball of any
    generated one. Density: balls of real images per generated image, over k. Coverage: share of real balls that hold
    a generated image. Precision, density and coverage rise when a generator shrinks inside the real manifold.

    Args:
        generated: features of generated images, any finite values.
        reference: features of held-out real images.
        num_neighbours: k, at least 1 and below the number of distinct reference images.
    """
    found = overlap(balls(generated, num_neighbours), balls(reference, num_neighbours))
    return ManifoldScores(
        precision=share(found.precise),
        recall=share(found.recalled),
        density=found.num_inside / (num_neighbours * len(generated)),
        coverage=share(found.covered),
    )


def balls(features: Float[Tensor, "n d"], num_neighbours: int) -> Balls:
    """The ball of each distinct image.

    Args:
        features: of one set of images, any finite values.
        num_neighbours: a ball reaches to this neighbour, at least 1; to the farthest where there are fewer.
    """
    centres, owner = distinct(features)
    return Balls(centres, squared_radii(centres, num_neighbours), owner)


def overlap(generated: Balls, reference: Balls) -> Overlap:
    """Who lies in whose balls, from one pass over the distances from generated to real images.

    Args:
        generated: balls of the generated images.
        reference: balls of the real ones.
    """
    points = Points(reference.centres)
    precise = torch.zeros_like(generated.squared_radii, dtype=torch.bool)
    recalled = torch.zeros_like(reference.squared_radii, dtype=torch.bool)
    covered = recalled.clone()
    generated_counts, reference_counts = generated.counts.double(), reference.counts.double()
    num_inside = 0
    for block in blocks(len(generated.centres), len(reference.centres)):
        bounds = points.bounds(generated.centres[block])
        inside, real = bounds.within(reference.squared_radii[None])
        precise[block] = inside.any(1)
        covered[real] |= inside.any(0)
        num_inside += int(generated_counts[block] @ (inside.double() @ reference_counts[real]))
        inside, real = bounds.within(generated.squared_radii[block, None], wanted=~recalled)
        recalled[real] = inside.any(0)
    return Overlap(precise[generated.owner], recalled[reference.owner], covered[reference.owner], num_inside)


def share(chosen: Bool[Tensor, " n"]) -> float:
    """Share of the images that are chosen, in [0, 1]; NaN of none."""
    return chosen.double().mean().item()


def shares_of_classes(chosen: Bool[Tensor, " n"], labels: Int64[Tensor, " n"]) -> list[float]:
    """Share of the images that are chosen, in each class.

    Args:
        chosen: a property of images, such as being covered.
        labels: their classes; those below 0 have none and are left out.

    Returns:
        A number in [0, 1] per class from 0 to the largest label, NaN where a class has no images.
    """
    labelled = labels >= 0
    labels, chosen = labels[labelled], chosen[labelled]
    return (torch.bincount(labels, weights=chosen.double()) / torch.bincount(labels)).tolist()


def expected_coverage(num_reference: int, num_generated: int, num_neighbours: int) -> float:
    """Mean of the coverage when both laws agree: 1 - prod_{i=1..k} (N - i) / (N + M - i).

    Exact for every continuous law and dimension: a ball is empty when the k nearest of the N - 1 real and M generated
    images are all real (Naeem et al., arXiv:2002.09797). Wherever the centre lies, so that the mean is the same for any
    part of the real images that is chosen without a look at the balls, such as a class.

    Args:
        num_reference: N, held-out real images among which radii were found.
        num_generated: M, generated images.
        num_neighbours: k, below N.

    Returns:
        A number in [0, 1].
    """
    n, m = num_reference, num_generated
    return 1 - math.prod((n - i) / (n + m - i) for i in range(1, num_neighbours + 1))
