"""Standard normal vectors: the data on which the laws of the loop are known in closed form."""

from dataclasses import dataclass
from typing import final

import torch

from collapse_bench.datasets.base import Dataset, RawImages
from collapse_bench.errors import ConfigError
from collapse_bench.seeding import RUN_LEVEL, Stream, image_normal


@final
@dataclass(frozen=True, kw_only=True)
class Gaussian(Dataset):
    """Independent standard normal numbers, float32, in the shape of images of one row and one class.

    The numbers come from a stream of their own under ``split_seed``, so another ``split_seed`` is another data set.

    Args:
        num_images: vectors in all: real pool, reference and control set together.
        num_values: numbers per vector.
    """

    num_images: int
    num_values: int

    def read(self) -> RawImages:
        """All vectors, float32 ``[num_images, 1, 1, num_values]``.

        Raises:
            ConfigError: if one of the two numbers is smaller than 1.
        """
        for option in ("num_images", "num_values"):
            if getattr(self, option) < 1:
                raise ConfigError(f"dataset.{option} must be at least 1, got {getattr(self, option)}")
        seeds = Stream(self.split_seed, RUN_LEVEL, "gaussian_images").image_seeds(0, self.num_images)
        vectors = image_normal(seeds, (1, 1, self.num_values), draw=0)
        return RawImages(vectors, torch.zeros(self.num_images, dtype=torch.int64), ("normal",))
