"""Variance, generated over real: that within the classes falls first in collapse."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def within_class_variance_ratio(
    generated: Float[Tensor, "m d"],
    generated_classes: Int64[Tensor, " m"],
    reference: Float[Tensor, "n d"],
    reference_classes: Int64[Tensor, " n"],
) -> float:
    """Variance of the generated features within their classes, over that of the real ones.

    Our definition: ``sum_c w_c V_gen(c) / sum_c w_c V_ref(c)``, where V(c) is the trace of the unbiased covariance of
    the features in class c and w_c the reference share of c, over the classes with two images or more on both sides.
    The shares are the reference's on both sides, so a shift between classes of unequal width is not taken for collapse.

    Args:
        generated: features of generated images, any finite values.
        generated_classes: their classes by the frozen classifier.
        reference: features of held-out real images.
        reference_classes: their classes by the same classifier, not their labels: its errors must be on both sides.

    Returns:
        A number in [0, inf); 1 is ideal, below 1 the classes have shrunk. NaN if no class has two images on both
        sides, or if the real images do not vary.
    """
    numerator, denominator = 0.0, 0.0
    for label in reference_classes.unique():
        here, there = generated[generated_classes == label], reference[reference_classes == label]
        if len(here) >= 2 and len(there) >= 2:
            numerator += len(there) * total_variance(here)
            denominator += len(there) * total_variance(there)
    return numerator / denominator if denominator > 0 else math.nan


def total_variance(features: Float[Tensor, "n d"]) -> float:
    """Trace of the unbiased covariance, in the square of the features' unit.

    Args:
        features: at least two rows, any finite values.
    """
    return torch.var(features.double(), dim=0).sum().item()
