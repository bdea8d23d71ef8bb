"""Tail mass and tail coverage: how many generated images lie far out, and how many of the real ones there are reached.

Both split the reference into its images at even and at odd places, because what decides who is in the tail must not be
what is then counted: only so the law of the counts is known when the generated law is the real one.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from collapse_bench.metrics.functional.manifold import balls
from collapse_bench.metrics.functional.neighbours import (
    ROUNDING,
    Points,
    blocks,
    distinct,
    nearest_distances,
    squared_radii,
)


class TailBorder(NamedTuple):
    """Where the tail begins.

    Args:
        near: features of the images from which distance is taken.
        distance: from the nearest of them, beyond which the tail lies.
    """

    near: Float[Tensor, "h d"]
    distance: float


class TailBalls(NamedTuple):
    """Balls around the real images of the tail.

    Args:
        centres: their features.
        squared_radii: of their balls, float64.
    """

    centres: Float[Tensor, "t d"]
    squared_radii: Float[Tensor, " t"]


def tail_border(reference: Float[Tensor, "n d"], frac_tail: float = 0.05) -> TailBorder:
    """Where the tail of the real law begins, for ``tail_count``.

    Args:
        reference: features of held-out real images, at least two, in an order that has no period of two.
        frac_tail: share of real images that are called tail, in (0, 1).
    """
    near, calibration = reference[0::2], reference[1::2]
    rank = tail_rank(len(calibration), frac_tail)
    return TailBorder(near, nearest_distances(calibration, near).kthvalue(rank).values.item())


def tail_count(generated: Float[Tensor, "m d"], border: TailBorder) -> int:
    """Number of generated images in the tail of the real law; over m it is the tail mass.

    Our definition. *Out there* is the distance to the nearest image of the even half of the reference. The odd half
    calibrates it: the tail begins beyond its order statistic of rank ``tail_rank``.

    Given the even half, generated and odd images have independent distances of one continuous law when both laws
    agree, so the chance to lie beyond an order statistic of rank r of b is Beta(b + 1 - r, r), and the count is
    exactly BetaBinomial(m, b + 1 - r, r), whatever the law and the dimension. Lost tails lower it; bad samples raise
    it, so it is never read without the precision.

    Args:
        generated: features of generated images, any finite values.
        border: of the tail.

    Returns:
        A count from 0 to m; best near the real-vs-real floor.
    """
    return int((nearest_distances(generated, border.near) > border.distance * ROUNDING).sum())


def expected_tail_mass(num_reference: int, frac_tail: float = 0.05) -> float:
    """Mean of the tail mass when both laws agree: (b + 1 - r) / (b + 1), for rank r of the b images of the odd half.

    Args:
        num_reference: held-out real images, at least two.
        frac_tail: share of real images that are called tail, in (0, 1).

    Returns:
        A number in (0, 1), within 1 / (2 (b + 1)) of ``frac_tail``, unless that is below 1 / (b + 1) itself.
    """
    num_calibration = num_reference // 2
    return (num_calibration + 1 - tail_rank(num_calibration, frac_tail)) / (num_calibration + 1)


def tail_rank(num_calibration: int, frac_tail: float) -> int:
    """Rank (from 1, ascending) of the calibration distance at which the tail begins.

    The mean share beyond rank r of b is (b + 1 - r) / (b + 1); this is the rank that brings it nearest to the tail.

    Args:
        num_calibration: b, real images that calibrate: the odd half of the reference.
        frac_tail: share of real images that are called tail, in (0, 1).
    """
    return min(max(round((1 - frac_tail) * (num_calibration + 1)), 1), num_calibration)


def tail_balls(reference: Float[Tensor, "n d"], num_neighbours: int = 5, frac_tail: float = 0.1) -> TailBalls:
    """The balls of the real images where real images are rarest, for ``tail_covered``.

    Args:
        reference: features of held-out real images, more than 2 k + 1, in an order that has no period of two.
        num_neighbours: k, at least 1.
        frac_tail: share of real images that are called tail, in (0, 1).
    """
    half, rest = balls(reference[1::2], num_neighbours), distinct(reference[0::2])[0]
    k = min(num_neighbours, len(rest))
    rarities = squared_radii(rest, k).sqrt()
    border = rarities.sort().values[tail_rank(len(rest), frac_tail) - 1]
    in_tail = (nearest_distances(half.centres, rest, k) > border)[half.owner]
    return TailBalls(half.centres[half.owner][in_tail], half.squared_radii[half.owner][in_tail])


def tail_covered(generated: Float[Tensor, "m d"], tail: TailBalls) -> Bool[Tensor, " t"]:
    """Which real images of the tail have a generated image in their ball; the share is the tail coverage.

    Our definition. A real image of the odd half is in the tail if its k-th nearest image of the even half is farther
    away than it is for a share ``1 - frac_tail`` of the even half itself, each image left out of its own neighbours.
    Its ball reaches to its k-th nearest neighbour in the odd half.

    So who is in the tail follows from its own place and the even half, and its ball from the odd half. Whatever the
    place, the odd and the generated images are then independent draws of one law when both laws agree, and the share of
    balls that hold a generated image has the mean ``expected_coverage`` of half of the reference, exactly, for every
    continuous law and dimension.

    Args:
        generated: features of generated images, any finite values.
        tail: balls of the tail.
    """
    covered = torch.zeros_like(tail.squared_radii, dtype=torch.bool)
    if len(covered) == 0:
        return covered
    points = Points(tail.centres)
    for block in blocks(len(generated), len(covered)):
        inside, real = points.bounds(generated[block]).within(tail.squared_radii[None], wanted=~covered)
        covered[real] = inside.any(0)
    return covered
