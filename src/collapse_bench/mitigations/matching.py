"""Greedy matching of feature statistics."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def match_moments(
    points: Float[Tensor, "n d"], power: int, target: Float[Tensor, " n"], num: int
) -> Int64[Tensor, " num"]:
    """Positions of ``num`` points, each one added because it brings the mean moment nearest to the wanted one.

    The moment of a point x is x itself (``power=1``) or the matrix x x' (``power=2``), and their distance is the
    Euclidean or Frobenius one. With the inner products K(x, y) = (x . y)^power of moments, adding x to the k - 1 points
    chosen gives, up to what is the same for all x and a factor, 2 * sum of K(x, chosen) + K(x, x) - 2 k target(x).
    So a step costs one row of inner products.

    Args:
        points: centred on the mean of the reference.
        power: 1 or 2.
        target: inner product of each point's moment with the wanted mean moment.
        num: how many.
    """
    chosen = torch.empty(num, dtype=torch.int64, device=points.device)
    to_chosen = torch.zeros_like(target)
    to_itself = points.square().sum(1) ** power
    for k in range(num):
        objective = 2 * to_chosen + to_itself - 2 * (k + 1) * target
        objective[chosen[:k]] = torch.inf
        chosen[k] = objective.argmin()
        to_chosen += (points @ points[chosen[k]]) ** power
    return chosen
