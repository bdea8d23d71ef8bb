"""Stratified draws: the only way in which images get into the real pool, the reference or the control set."""

import torch
from jaxtyping import Int64
from torch import Tensor


def draw(
    labels: Int64[Tensor, " n"], among: Int64[Tensor, " k"], count: int, generator: torch.Generator
) -> tuple[Int64[Tensor, " count"], Int64[Tensor, " rest"]]:
    """A random draw without replacement in which every class has its share, and what it leaves.

    Args:
        labels: class indices of all images, not negative at the positions in ``among``.
        among: positions that may be drawn.
        count: number of positions to draw, at most ``len(among)``.
        generator: source of the random numbers.

    Returns:
        Positions drawn, in random order, and positions left.
    """
    shuffled = among[torch.randperm(len(among), generator=generator)]
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    class_sizes = labels[among].bincount()
    groups = by_class.split(class_sizes.tolist())
    shares = quotas(class_sizes, count).tolist()
    drawn = torch.cat([group[:share] for group, share in zip(groups, shares, strict=True)])
    left = torch.cat([group[share:] for group, share in zip(groups, shares, strict=True)])
    # Metrics halve the reference by the parity of the position, so classes must not stand in blocks.
    return drawn[torch.randperm(count, generator=generator)], left


def quotas(class_sizes: Int64[Tensor, " k"], count: int) -> Int64[Tensor, " k"]:
    """How many of ``count`` images each class gets, by largest remainder; ties go to the lower class index.

    Args:
        class_sizes: images per class, at least one in total.
        count: number of images to share out, at most ``class_sizes.sum()``.
    """
    total = int(class_sizes.sum())
    share = class_sizes * count // total
    remainder = class_sizes * count % total
    largest = remainder.argsort(descending=True, stable=True)
    share[largest[: count - int(share.sum())]] += 1
    return share


def long_tailed(class_sizes: Int64[Tensor, " k"], ratio: float) -> Int64[Tensor, " k"]:
    """The largest class sizes within ``class_sizes`` that fall geometrically from the first class to the last.

    Args:
        class_sizes: images per class that there are.
        ratio: images of the last class per image of the first one, in (0, 1].
    """
    shares = ratio ** torch.linspace(0, 1, len(class_sizes), dtype=torch.float64)
    return ((class_sizes / shares).min() * shares).round().long()
