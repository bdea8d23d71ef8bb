"""How near generated images come to the images that a model was trained on."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from collapse_bench.metrics.functional.neighbours import ROUNDING, distinct, squared_distances


class Nearest(NamedTuple):
    """Distance of every query to its nearest point, in the features' unit, and the point's row; inf and 0 for none."""

    distances: Float[Tensor, " q"]
    rows: Int64[Tensor, " q"]


def nearest(queries: Float[Tensor, "q d"], points: Float[Tensor, "p d"], among: Bool[Tensor, " p"]) -> Nearest:
    """The nearest point of every query, in blocks.

    Args:
        queries: one row per query, float64, near the origin.
        points: one row per point, likewise.
        among: which points are looked at, none or more; rows count all points.
    """
    rows = among.nonzero().flatten()
    if len(rows) == 0:
        return Nearest(queries.new_full((len(queries),), torch.inf), rows.new_zeros(len(queries)))
    found = rows[torch.cat([squared.argmin(1) for _, squared in squared_distances(queries, points[rows])])]
    # From the differences, because sums of products are a little above 0 for equal rows.
    return Nearest((queries - points[found]).square().sum(1).sqrt(), found)


def num_authentic(closest: Nearest, training: Float[Tensor, "n d"]) -> int | None:
    """Number of images farther from their nearest training image than that one is from its own nearest.

    Alaa et al., "How faithful is your synthetic data?", arXiv:2102.08921; its share is known as AuthPct.
    A training image's own nearest is another *distinct* one, because a pool that repeats images would call every image
    but an exact copy authentic.

    When the laws agree the share tends to 1/3 in one dimension, for every smooth density: with spacings in their mean,
    an image falls into a gap L of law Gamma(2, 1), at d uniform in (0, L/2) from its nearer end, whose other gap is
    Exp(1); authentic is Exp(1) < d, so 1 - E[exp(-d)] = 1/3. It grows with the dimension, and falls when a generator
    shrinks: only its difference to held-out images means anything.

    Args:
        closest: the nearest training image of every image.
        training: features of the training images, float64, near the origin.

    Returns:
        A count from 0 to the number of images; near 0 for copies, near that of held-out images for a good model. None
        where all training images are equal, so that none has a nearest other one.
    """
    chosen, position = closest.rows.unique(return_inverse=True)
    owner = distinct(training)[1]
    if not owner.any():
        return None
    radii = training.new_empty(len(chosen))
    for block, squared in squared_distances(training[chosen], training):
        is_same = owner[chosen[block]][:, None] == owner
        radii[block] = squared.masked_fill_(is_same, torch.inf).amin(1).sqrt()
    return int((closest.distances > radii[position] * math.sqrt(ROUNDING)).sum())


def median_ratio(generated: Float[Tensor, " m"], held_out: Float[Tensor, " n"]) -> float:
    """Median distance of generated images over that of held-out real ones, both to the same training images.

    Our definition. Held-out images say how near an image comes without having been learnt by heart; medians, because a
    few samples that are simply bad would dominate a mean.

    Args:
        generated: distance of every generated image to its nearest training image; all infinite if there is none.
        held_out: that of every held-out real image.

    Returns:
        A number in [0, inf); 1 is ideal, 0 if most are copies. NaN without training images, or if most of the held-out
        images are among them.
    """
    above, below = generated.median().item(), held_out.median().item()
    return above / below if 0 < below < math.inf else math.nan
