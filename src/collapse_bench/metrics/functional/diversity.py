"""How much the images of a set differ from each other: Vendi score, nearest-neighbour entropy, mean distance."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from collapse_bench.metrics.functional.neighbours import squared_distances, squared_radii

RESOLUTION = 1e-6
"""Distances below this part of the root mean square feature are rounding of float32 features."""


def vendi_score(features: Float[Tensor, "n d"]) -> float:
    """The effective number of different images, by the cosine kernel.

    Friedman and Dieng, "The Vendi score", arXiv:2210.02410, definition 3.1: exp of the entropy of the eigenvalues of
    K / n. Those of the cosine kernel are the ones of the second moment of the unit-length rows, so the smaller of the
    n x n and the d x d matrix is enough. A row at the origin has no direction and counts as one of its own.

    Args:
        features: at least one row; the cosine is taken from the origin, so centre them before.

    Returns:
        A number in [1, min(n, d + 1)]: 1 if all rows have one direction, c for c equal groups of orthogonal ones.
    """
    features = features.double()
    norms = features.norm(dim=1, keepdim=True)
    at_origin = norms == 0
    unit = torch.cat([features / norms.masked_fill(at_origin, 1), at_origin.double()], 1)
    moment = unit.T @ unit if len(unit) > unit.shape[1] else unit @ unit.T
    eigenvalues = torch.linalg.eigvalsh(moment / len(unit)).clamp(min=0)
    return (-torch.xlogy(eigenvalues, eigenvalues)).sum().exp().item()


def neighbour_entropy(points: Float[Tensor, "n d"], num_neighbours: int = 5) -> float:
    """Differential entropy in nats, estimated from the distances to the k-th neighbours.

    Kozachenko and Leonenko 1987; Kraskov et al., "Estimating mutual information", arXiv:cond-mat/0305641, eq. 20:
    ``psi(n) - psi(k) + log V_d + d / n sum_i log r_i``, where r_i is the distance of point i to its k-th nearest other
    point and V_d the volume of the unit ball. It is biased from d = 8 or so up, so compare at equal n, k and d only.

    Args:
        points: more rows than ``num_neighbours``, at least one column, any finite values.
        num_neighbours: k, at least 1.

    Returns:
        A number in nats. NaN if a point has k others within ``RESOLUTION``, as one that is there more than k times: the
        entropy of such a set is minus infinity, or a matter of rounding.
    """
    n, d = points.shape
    points = points.double() - points.double().mean(0)
    squared = squared_radii(points, num_neighbours)
    if squared.min() <= RESOLUTION**2 * points.square().sum(1).mean():
        return math.nan
    log_volume = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    return _digamma(n) - _digamma(num_neighbours) + log_volume + d / 2 * squared.log().mean().item()


class Axes(NamedTuple):
    """The first principal components of a set: where it is centred, and orthonormal columns."""

    origin: Float[Tensor, " d"]
    directions: Float[Tensor, "d c"]

    def project(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Coordinates along the axes, float64."""
        return (features.double() - self.origin) @ self.directions


def principal_axes(features: Float[Tensor, "n d"], num_components: int) -> Axes:
    """The axes along which a set varies most.

    Args:
        features: at least one row.
        num_components: how many; fewer are returned where the set varies in fewer.
    """
    origin = features.double().mean(0)
    centred = features.double() - origin
    variances, directions = torch.linalg.eigh(centred.T @ centred)
    # Squares of singular values have half of their digits.
    varies = variances > 1e-12 * variances[-1]
    return Axes(origin, directions[:, varies][:, -num_components:])


def mean_pairwise_distance(features: Float[Tensor, "n d"]) -> float:
    """Mean Euclidean distance between two different images of a set, in the features' unit; 0 if they are all equal.

    Args:
        features: at least two rows, any finite values.
    """
    points = features.double() - features.double().mean(0)
    total = sum(squared.sqrt().sum().item() for _, squared in squared_distances(points, points))
    return total / (len(points) * (len(points) - 1))


def _digamma(number: int) -> float:
    return torch.digamma(torch.tensor(number, dtype=torch.float64)).item()
