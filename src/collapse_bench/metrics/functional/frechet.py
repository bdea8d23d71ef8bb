"""Fréchet distance between the Gaussians that two sets of features have as mean and covariance."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from collapse_bench.errors import MetricError

NUM_BLOCKS = 4
"""Disjoint blocks of images that the extrapolation compares with the whole."""

_EXACT_UP_TO = 1024
"""Singular values of matrices up to this size are found directly, of larger ones through their squares."""
_STUDENT_95 = 3.182446305284263
"""Student's quantile at 97.5 % for one degree of freedom less than there are blocks."""


class Moments(NamedTuple):
    """A Gaussian.

    Args:
        mean: its mean, float64.
        root: a matrix R with R^T R its covariance, with zeros below the diagonal, float64.
    """

    mean: Float[Tensor, " d"]
    root: Float[Tensor, "r d"]


class Extrapolated(NamedTuple):
    """A squared Fréchet distance extrapolated to infinitely many images on both sides; NaN where it cannot be.

    Args:
        value: the distance; may be negative.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


def frechet_distance(generated: Float[Tensor, "m d"], reference: Float[Tensor, "n d"]) -> float:
    """Squared Fréchet distance between two sets of features, in float64 with unbiased covariances.

    Heusel et al., "GANs trained by a two time-scale update rule", arXiv:1706.08500, eq. 6. With Inception features
    this is the FID. It is biased upwards by the finite samples, and less so for a generator of lower variance.

    Args:
        generated: features of generated images, at least two rows, any finite values.
        reference: features of held-out real images, at least two rows.

    Returns:
        A number in [0, inf), in the square of the features' unit; lower is better.

    Raises:
        MetricError: if a feature is NaN or infinite.
    """
    for side, features in (("generated", generated), ("reference", reference)):
        if not torch.isfinite(features).all():
            raise MetricError(f"Fréchet distance: the {side} features contain NaN or infinite values")
    return frechet_distance_of_gaussians(moments(generated), moments(reference))


def frechet_distance_of_gaussians(first: Moments, second: Moments) -> float:
    """Squared Fréchet (2-Wasserstein) distance between two Gaussians.

    Dowson and Landau, "The Fréchet distance between multivariate normal distributions", J. Multivariate Analysis 12,
    1982: ``|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))``. With ``S = R^T R`` the last trace is the sum of the
    singular values of ``R1 R2^T``. That needs no matrix square root and no inverse, so it is right for singular
    covariances too (fewer images than features, dead units, one repeated image).

    Up to 1,024 features or images it is exact to rounding. Beyond, singular values come from their squares, which is
    faster and loses half of the digits of those that are nearly 0: each is wrong by at most about 1e-8 of the largest.

    Args:
        first: one of them.
        second: the other.

    Returns:
        A number in [0, inf); rounding below zero is cut off.
    """
    trace_term = _sum_of_singular_values(_product(first.root, second.root))
    variances = torch.linalg.vector_norm(first.root).square() + torch.linalg.vector_norm(second.root).square()
    return ((first.mean - second.mean).square().sum() + variances - 2 * trace_term).clamp(min=0).item()


def moments(features: Float[Tensor, "n d"]) -> Moments:
    """Mean and unbiased covariance of a set of features; the root has min(n, d) rows.

    The root is the triangular factor of the centred features, not of their covariance: squaring would lose half of the
    digits.

    Args:
        features: at least two rows, any finite values.
    """
    features = features.double()
    mean = features.mean(0)
    root = torch.linalg.qr((features - mean) / math.sqrt(len(features) - 1), mode="r").R
    return Moments(mean, root.contiguous())  # LAPACK's order of the axes makes the products below slower


def blocks_of_moments(features: Float[Tensor, "n d"]) -> list[Moments] | None:
    """Moments of disjoint blocks of consecutive images, for ``extrapolated_distance``.

    Args:
        features: in an order that looks random.

    Returns:
        The moments of each block. None where a block has no more images than features: its covariance is singular by
        the lack of images, and the distance no longer falls in proportion to their number.
    """
    if len(features) // NUM_BLOCKS <= features.shape[1]:
        return None
    return [moments(block) for block in features.tensor_split(NUM_BLOCKS)]


def extrapolated_distance(
    distance: float, generated: list[Moments] | None, reference: list[Moments] | None
) -> Extrapolated:
    """Squared Fréchet distance extrapolated to infinitely many images on both sides.

    After Chong and Forsyth, "Effectively unbiased FID and Inception score and where to find them", arXiv:1911.07023,
    for both sides and without random numbers. The bias is a / m + b / n to first order. So with both sides cut into B
    blocks the mean distance T_B of the pairs of blocks, which use every image once, is a straight line in B, with the
    value ``T_1 + (T_1 - T_B) / (B - 1)`` at B = 0. Simulated on Gaussians, one block count (B = 4) has no more variance
    than a regression on many, and a second-order term costs more variance than it saves bias.

    The blocks are independent, so the standard error of T_B is known from their spread, with B - 1 degrees of
    freedom. First-order noise is the same in T_1, T_B and the extrapolation, second-order noise is larger in T_B; so
    the interval is a little wide where both laws nearly agree. Simulated, it holds the truth in 93 to 100 % of draws.

    Args:
        distance: T_1, of all images.
        generated: moments of the blocks of generated images.
        reference: moments of those of real images.

    Returns:
        The value, with its interval; lower is better, 0 is expected for equal laws. NaN where a side has no blocks.
    """
    if generated is None or reference is None:
        return Extrapolated(math.nan, math.nan, math.nan)
    pairs = zip(generated, reference, strict=True)
    of_blocks = torch.tensor([frechet_distance_of_gaussians(*pair) for pair in pairs], dtype=torch.float64)
    value = distance + (distance - of_blocks.mean().item()) / (NUM_BLOCKS - 1)
    half = _STUDENT_95 * of_blocks.std().item() / math.sqrt(NUM_BLOCKS)
    return Extrapolated(value, value - half, value + half)


def _product(first: Float[Tensor, "p d"], second: Float[Tensor, "q d"]) -> Float[Tensor, "p q"]:
    """``first @ second.T`` of two matrices with zeros below the diagonal, which are not multiplied."""
    product = first.new_empty(len(first), len(second))
    for rows in _blocks(len(first)):
        for columns in _blocks(len(second)):
            start = max(rows.start, columns.start)
            product[rows, columns] = first[rows, start:] @ second[columns, start:].T
    return product


def _sum_of_singular_values(matrix: Float[Tensor, "p q"]) -> Float[Tensor, ""]:
    if min(matrix.shape) <= _EXACT_UP_TO:
        return torch.linalg.svdvals(matrix).sum()
    matrix = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    squares = matrix.new_zeros(len(matrix), len(matrix))
    for rows in _blocks(len(matrix)):
        # Only what lies on or below the diagonal is looked at.
        squares[rows, : rows.stop] = matrix[rows] @ matrix[: rows.stop].T
    return torch.linalg.eigvalsh(squares).clamp(min=0).sqrt().sum()


def _blocks(size: int) -> list[slice]:
    return [slice(start, min(start + 256, size)) for start in range(0, size, 256)]
