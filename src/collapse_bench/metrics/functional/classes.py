"""Counts of classes as the frozen classifier sees them, and their divergence."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


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
    freedom when they agree; against a reference of m images its mean is (k - 1) / 2 (1/n + 1/m).

    Args:
        generated: generated images per class, at least one in all.
        reference: held-out real images per class, at least one in all.

    Returns:
        A number in [0, inf]; lower is better; infinite where the reference lacks a class that was generated.
    """
    p, q = generated.double() / generated.sum(), reference.double() / reference.sum()
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum().clamp(min=0).item()


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
