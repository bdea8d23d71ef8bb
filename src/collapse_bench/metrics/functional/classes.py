"""Counts of classes as the frozen classifier sees them, their divergence, and its confidence in them."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error


def predicted_classes(probabilities: Float[Tensor, "n k"]) -> Int64[Tensor, " n"]:
    """The most probable class of every image.

    Args:
        probabilities: class probabilities of the frozen classifier, in [0, 1].
    """
    return probabilities.argmax(1)


def class_counts(probabilities: Float[Tensor, "n k"]) -> Int64[Tensor, " k"]:
    """Images per most probable class.

    Args:
        probabilities: class probabilities of the frozen classifier, in [0, 1].
    """
    return torch.bincount(predicted_classes(probabilities), minlength=probabilities.shape[1])


def class_kl(generated: Int64[Tensor, " k"], reference: Int64[Tensor, " k"]) -> float:
    """Kullback-Leibler divergence of the generated from the reference class shares, in nats.

    ``sum_c p_c log(p_c / q_c)``, with 0 log 0 = 0. Against known shares 2 n KL is chi-square of k - 1 degrees of
    freedom when they agree; see ``expected_class_kl`` for a reference of finitely many images.

    Args:
        generated: generated images per class, at least one in all.
        reference: held-out real images per class, at least one in all.

    Returns:
        A number in [0, inf]; lower is better; infinite where the reference lacks a class that was generated.
    """
    p, q = generated.double() / generated.sum(), reference.double() / reference.sum()
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum().clamp(min=0).item()


def expected_class_kl(reference: Int64[Tensor, " k"], num_generated: int) -> float | None:
    """Mean of ``class_kl`` when both laws agree: (k - 1) / 2 (1/n + 1/m), asymptotically in both sample sizes.

    With equal shares the next order is k^2 (1/n^2 + 5/m^2) / 12, so within two percent from 50 images per class on.

    Args:
        reference: held-out real images per class, m in all.
        num_generated: n, generated images.

    Returns:
        A number in nats, or None where the reference lacks a class: its sample is too small for the formula then.
    """
    if not (reference > 0).all():
        return None
    return (len(reference) - 1) / 2 * (1 / num_generated + 1 / int(reference.sum()))


class GTest(NamedTuple):
    """A two-sample G-test: its statistic, degrees of freedom (the statistic's mean under the null) and p-value."""

    statistic: float
    num_freedoms: int
    p_value: float


def class_g_test(generated: Int64[Tensor, " k"], reference: Int64[Tensor, " k"]) -> GTest:
    """The two-sample G-test that generated and reference images have the same class shares.

    ``G = 2 sum O log(O / E)`` over both rows of the table, with E from the pooled shares; chi-square of (classes that
    occur) - 1 degrees of freedom when the shares agree and no class is rare (Wilks 1938). Unlike ``class_kl`` it allows
    for the finite reference and stays finite where that lacks a class.

    Args:
        generated: generated images per class, at least one in all.
        reference: held-out real images per class, at least one in all.

    Returns:
        G in [0, inf), lower is better; 0 with p-value 1 if only one class occurs.
    """
    observed = torch.stack([generated, reference]).double()
    observed = observed[:, observed.sum(0) > 0]
    expected = observed.sum(1, keepdim=True) * observed.sum(0) / observed.sum()
    statistic = 2 * (torch.xlogy(observed, observed) - torch.xlogy(observed, expected)).sum().clamp(min=0)
    num_freedoms = observed.shape[1] - 1
    if num_freedoms == 0:
        return GTest(0.0, 0, 1.0)
    p_value = torch.special.gammaincc(statistic.new_tensor(num_freedoms / 2), statistic / 2)
    return GTest(statistic.item(), num_freedoms, p_value.item())


def class_entropy(counts: Int64[Tensor, " k"]) -> float:
    """Entropy of the class shares, in nats.

    The plug-in estimate: too low by (k - 1) / 2n on average, so compare at equal n.

    Args:
        counts: images per class, at least one in all.

    Returns:
        A number in [0, log k]; log k for equal shares.
    """
    shares = counts.double() / counts.sum()
    return (-torch.xlogy(shares, shares)).sum().item()


def num_classes_covered(generated: Int64[Tensor, " k"], reference: Int64[Tensor, " k"], covered_at: float = 0.1) -> int:
    """Number of reference classes whose generated share is at least a part of their reference share.

    Args:
        generated: generated images per class, at least one in all.
        reference: held-out real images per class; a class without any is not counted.
        covered_at: the part that is asked for, in (0, 1].

    Returns:
        A count from 0 to k; higher is better.
    """
    p, q = generated.double() / generated.sum(), reference.double() / reference.sum()
    return int(((p >= covered_at * q) & (q > 0)).sum())


def num_entangled(probabilities: Float[Tensor, "n k"], margin: float) -> int:
    """Number of images whose two highest class probabilities differ by less than a margin.

    Args:
        probabilities: class probabilities of the frozen classifier, of two classes or more.
        margin: in (0, 1].
    """
    highest = probabilities.topk(2, dim=1).values
    return int((highest[:, 0] - highest[:, 1] < margin).sum())


def num_correct(probabilities: Float[Tensor, "n k"], labels: Int64[Tensor, " n"]) -> int:
    """Number of images whose most probable class is their label.

    Args:
        probabilities: class probabilities of the frozen classifier.
        labels: classes that were asked for.
    """
    return int((predicted_classes(probabilities) == labels).sum())


def calibration_error(probabilities: Float[Tensor, "n k"], labels: Int64[Tensor, " n"], num_bins: int = 15) -> float:
    """Expected calibration error: mean over images of |accuracy - confidence| of their bin of confidence.

    Guo et al., "On calibration of modern neural networks", arXiv:1706.04599, eq. 3, with bins of equal width. A finite
    sample makes it positive even for a calibrated classifier.

    Args:
        probabilities: class probabilities of the frozen classifier, of two classes or more.
        labels: classes that were asked for, 0 to k - 1.
        num_bins: at least 1.

    Returns:
        A number in [0, 1].
    """
    # It rounds to float32, in which a confidence of 1 has a bin of its own; so none is.
    probabilities = probabilities.clamp(max=1.0 - 2.0**-24)
    return multiclass_calibration_error(probabilities, labels, probabilities.shape[1], n_bins=num_bins).item()
