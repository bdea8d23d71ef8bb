"""Digits: small enough for a whole chain in seconds."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from sklearn.datasets import load_digits

from collapse_bench.datasets.base import Dataset, RawImages

_MAX_INK = 16


@final
@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """1,797 real handwritten digits of 8x8 pixels that come with scikit-learn.

    E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998. Ink is published in
    17 levels, 0..16, which become the grey levels 0..255.
    """

    def read(self) -> RawImages:
        """All images, ``[1797, 1, 8, 8]``; there is no published test split."""
        ink, labels = (torch.from_numpy(np.asarray(column)) for column in load_digits(return_X_y=True))
        images = (ink * (255 / _MAX_INK)).round().to(torch.uint8).reshape(-1, 1, 8, 8)
        return RawImages(images, labels.to(torch.int64), tuple("0123456789"))
