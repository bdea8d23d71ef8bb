"""Counts of equal images, by the hashes of their pixels."""

import torch
from jaxtyping import Int64
from torch import Tensor


def num_repeats(hashes: Int64[Tensor, "n w"]) -> int:
    """Number of images that repeat one before them: n less the number of different ones.

    Args:
        hashes: one row per image, equal if and only if the images are.
    """
    return len(hashes) - len(hashes.unique(dim=0))


def num_copies(hashes: Int64[Tensor, "n w"], originals: Int64[Tensor, "m w"]) -> int:
    """Number of images that are also among the originals.

    Args:
        hashes: one row per image, equal if and only if the images are.
        originals: hashes of those that may have been copied.
    """
    distinct, owner = torch.cat([hashes, originals]).unique(dim=0, return_inverse=True)
    is_original = torch.zeros(len(distinct), dtype=torch.bool, device=hashes.device)
    is_original[owner[len(hashes) :]] = True
    return int(is_original[owner[: len(hashes)]].sum())
