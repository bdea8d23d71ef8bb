"""What a data set is: real images as uint8 tensors, split into a real pool and two held-out sets."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from collapse_bench.errors import ConfigError
from collapse_bench.pool import Pool
from collapse_bench.seeding import RUN_LEVEL, Role, Stream
from collapse_bench.types import ImageSpec


@dataclass(frozen=True, eq=False)
class RawImages:
    """Images as a reader finds them.

    Args:
        images: uint8 (float32 for data without grey levels).
        labels: index into ``class_names``.
        class_names: one name per class.
        test_images: the published test images, where there is such a split.
        test_labels: their labels.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    class_names: tuple[str, ...]
    test_images: UInt8[Tensor, "m c h w"] | None = None
    test_labels: Int64[Tensor, " m"] | None = None


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Real images that nothing but the measuring side sees.

    Args:
        reference: what is measured against.
        control: real images that are scored exactly as generated ones are: the real-vs-real floor.
    """

    reference: Pool
    control: Pool


@dataclass(frozen=True, eq=False)
class RealImages:
    """One data set, split.

    Args:
        name: how tables call it.
        spec: shape and classes.
        pool: the real images that may be trained on.
        held_out: the real images that are measured with.
    """

    name: str
    spec: ImageSpec
    pool: Pool
    held_out: HeldOut


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """Real images and how they are split. Concrete data sets are frozen dataclasses that implement ``read``.

    The published test images, where there are any, are the reference, and the control set is drawn from the
    training images. Otherwise both are drawn from all images. Draws are stratified by class and depend on
    ``split_seed`` only, so all runs share one split.

    Args:
        name: how tables call the data set.
        image_size: height and width in pixels after resizing (antialiased bilinear); ``None`` keeps the size.
        classes: names of the classes to keep, in this order; ``None`` keeps all.
        num_real: images in the real pool, a stratified subset; ``None`` is all that are not held out.
        num_reference: images measured against; ``None`` is all test images where there is a published test
            set, otherwise a quarter of the images, at most 10,000.
        num_control: images that make the floor; ``None`` is a quarter of the images, at most 10,000 and at most
            the number of reference images.
        split_seed: seed of the split.
    """

    name: str
    image_size: int | None = None
    classes: tuple[str, ...] | None = None
    num_real: int | None = None
    num_reference: int | None = None
    num_control: int | None = None
    split_seed: int = 0

    @abstractmethod
    def read(self) -> RawImages:
        """All images, as found.

        Raises:
            DataError: if a file is missing, damaged, or cannot be downloaded.
        """

    @final
    def load(self) -> RealImages:
        """The data set, resized, restricted to the chosen classes, and split.

        Raises:
            DataError: if a file is missing, damaged, or cannot be downloaded.
            ConfigError: if an option asks for a class or a number of images that is not there.
        """
        raise NotImplementedError  # the next commit
