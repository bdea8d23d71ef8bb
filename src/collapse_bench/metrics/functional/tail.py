"""Tail mass: how many generated images lie as far out as the outermost real ones."""

import math

from jaxtyping import Float
from torch import Tensor

from collapse_bench.metrics.functional.neighbours import ROUNDING, centred, nearest_distances


def tail_count(generated: Float[Tensor, "m d"], reference: Float[Tensor, "n d"], frac_tail: float = 0.05) -> int:
    """Number of generated images in the tail of the real law; over m it is the tail mass.

    Our definition. The reference is split by the parity of the index. *Out there* is the distance to the nearest image
    of the even half. The odd half calibrates it: the tail begins beyond its order statistic of rank ``tail_rank``.

    Given the even half, generated and odd images have independent distances of one continuous law when both laws
    agree, so the chance to lie beyond an order statistic of rank r of b is Beta(b + 1 - r, r), and the count is
    exactly BetaBinomial(m, b + 1 - r, r), whatever the law and the dimension. Its mean is close to
    ``frac_tail * m``. Lost tails lower it; bad samples raise it, so it is never read without the precision.

    Args:
        generated: features of generated images, any finite values.
        reference: features of held-out real images, at least two, in an order that has no period of two.
        frac_tail: share of real images that are called tail, in (0, 1).

    Returns:
        A count from 0 to m; best near the real-vs-real floor.
    """
    generated, reference = centred(generated, reference)
    near, calibration = reference[0::2], reference[1::2]
    rank = tail_rank(len(calibration), frac_tail)
    border = nearest_distances(calibration, near).kthvalue(rank).values * math.sqrt(ROUNDING)
    return int((nearest_distances(generated, near) > border).sum())


def tail_rank(num_calibration: int, frac_tail: float) -> int:
    """Rank (from 1, ascending) of the calibration distance at which the tail begins.

    The mean share beyond rank r of b is (b + 1 - r) / (b + 1); this is the rank that brings it nearest to the tail.

    Args:
        num_calibration: b, real images that calibrate: the odd half of the reference.
        frac_tail: share of real images that are called tail, in (0, 1).
    """
    return min(max(round((1 - frac_tail) * (num_calibration + 1)), 1), num_calibration)
