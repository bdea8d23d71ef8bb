"""Fréchet distance between the Gaussians that two sets of features have as mean and covariance."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from collapse_bench.errors import MetricError


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
    generated, reference = generated.double(), reference.double()
    return frechet_distance_of_gaussians(
        generated.mean(0), covariance_root(generated), reference.mean(0), covariance_root(reference)
    )


def frechet_distance_of_gaussians(
    mean_1: Float[Tensor, " d"],
    root_1: Float[Tensor, "r1 d"],
    mean_2: Float[Tensor, " d"],
    root_2: Float[Tensor, "r2 d"],
) -> float:
    """Squared Fréchet (2-Wasserstein) distance between two Gaussians given by mean and covariance root.

    Dowson and Landau, "The Fréchet distance between multivariate normal distributions", J. Multivariate Analysis 12,
    1982: ``|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))``. With ``S = R^T R`` the last trace is the sum
    of the singular values of ``R1 R2^T``. That needs no matrix square root and no inverse, so it is exact for singular
    covariances too (fewer images than features, dead units, one repeated image).

    Args:
        mean_1: mean of the first Gaussian, float64.
        root_1: any R with R^T R its covariance, float64, of any number of rows.
        mean_2: mean of the second Gaussian.
        root_2: any root of its covariance.

    Returns:
        A number in [0, inf); rounding below zero is cut off.
    """
    trace_term = torch.linalg.svdvals(root_1 @ root_2.T).sum()
    distance = (mean_1 - mean_2).square().sum() + root_1.square().sum() + root_2.square().sum() - 2 * trace_term
    return distance.clamp(min=0).item()


def covariance_root(features: Float[Tensor, "n d"]) -> Float[Tensor, "r d"]:
    """A matrix R with R^T R the unbiased covariance, of min(n, d) rows.

    The triangular factor of the centred features, not of their covariance: squaring would lose half of the digits.

    Args:
        features: at least two rows, float64.
    """
    rows = (features - features.mean(0)) / math.sqrt(len(features) - 1)
    return rows if len(rows) <= rows.shape[1] else torch.linalg.qr(rows, mode="r").R
