"""A set of images as metrics see it."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import MetricError
from collapse_bench.types import to_float, to_uint8

_REMEDY = {
    "probabilities": (
        "needs class probabilities and this encoder has none; choose encoder=pca or encoder=classifier, or "
        "metrics=features"
    ),
}


@final
class ImageSet:
    """A set of images: columns of equal length, of which it holds those that are known.

    Args:
        columns: some of

            - ``images``: uint8 grey levels or float32, [n, c, h, w];
            - ``labels``: the class of a real image, the condition of a generated one, or ``UNLABELLED``, int64 [n];
            - ``features``: of an encoder, [n, d];
            - ``probabilities``: of the classes, by the frozen classifier, [n, k];
            - ``born``: generation whose model made the image, ``REAL`` for none, int64 [n].

    Raises:
        ValueError: if a column has another length or an unknown name.
    """

    def __init__(self, **columns: Tensor) -> None:
        if unknown := {*columns} - {"images", "labels", "features", "probabilities", "born", "hashes"}:
            raise ValueError(f"a set of images has no columns {sorted(unknown)}")
        if len({len(rows) for rows in columns.values()}) != 1:
            raise ValueError(f"columns must have one length, got { {name: len(c) for name, c in columns.items()} }")
        self._columns: Mapping[str, Tensor] = columns

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __contains__(self, name: str) -> bool:
        return name in self._columns or (name == "hashes" and "images" in self._columns)

    def column(self, name: str) -> Tensor:
        """A column by name.

        Raises:
            MetricError: if it is not known, with the remedy.
        """
        if name not in self._columns:
            raise MetricError(_REMEDY.get(name, f"needs the {name} of images, which are not known here"))
        return self._columns[name]

    def take(self, index: Tensor | slice) -> "ImageSet":
        """The images at ``index``."""
        return ImageSet(**{name: rows[index] for name, rows in self._columns.items()})

    @classmethod
    def concat(cls, sets: Sequence["ImageSet"]) -> "ImageSet":
        """All images of several sets that have the same columns."""
        return cls(**{name: torch.cat([s._columns[name] for s in sets]) for name in sets[0]._columns})

    def with_columns(self, **columns: Tensor) -> "ImageSet":
        """The same images with these columns added or replaced."""
        return ImageSet(**{**self._columns, **columns})

    @property
    def images(self) -> Tensor:
        """Grey levels (uint8) or float32, [n, c, h, w]."""
        return self.column("images")

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """Classes of real images, conditions of generated ones, or ``UNLABELLED``."""
        return self.column("labels")

    @property
    def features(self) -> Float[Tensor, "n d"]:
        """One row per image."""
        return self.column("features")

    @property
    def probabilities(self) -> Float[Tensor, "n k"]:
        """Class probabilities by the frozen classifier."""
        return self.column("probabilities")

    @property
    def born(self) -> Int64[Tensor, " n"]:
        """Generation whose model made each image; ``REAL`` for none."""
        return self.column("born")

    @cached_property
    def order_keys(self) -> Int64[Tensor, " n"]:
        """A number per image that looks random and follows from its pixels, or from its features where none are known.

        Pixels, because the last digits of features depend on the machine.
        """
        if "hashes" in self:
            return self.hashes[:, 0]
        rows = next(iter(self._columns.values()))
        return torch.cat([_mixed(block) for block in rows.flatten(1).split(4096)])

    @cached_property
    def hashes(self) -> Int64[Tensor, "n 2"]:
        """128 bits of BLAKE2b over the bytes of each image: equal if and only if the pixels are.

        A float image whose pixels are all grey levels exactly is hashed as these, so that it equals a uint8 one.
        """
        if "hashes" in self._columns:
            return self._columns["hashes"]
        images = self.images.cpu()
        rows = images.contiguous().flatten(1).numpy()
        if images.dtype != torch.uint8:
            levels = to_uint8(images)
            is_grey = (to_float(levels) == images).flatten(1).all(1).tolist()
            grey = levels.flatten(1).numpy()
            rows = [grey[k] if is_grey[k] else rows[k] for k in range(len(rows))]
        digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)
        if not digests:
            return torch.empty(0, 2, dtype=torch.int64)
        return torch.frombuffer(bytearray(digests), dtype=torch.int64).view(-1, 2)


def random_looking_order(keys: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """The order of images by their ``order_keys``, with equal images apart from each other.

    Sorted by their keys alone, all copies of one image would stand together, and a part of the set would have all of
    them or none. So every copy but the first has a key of its own, made of the common one and the copy's number.

    Args:
        keys: ``order_keys`` of the images, as they came.

    Returns:
        Positions, as ``argsort`` gives them; the images in this order do not depend on how they came.
    """
    order = keys.argsort(stable=True)
    keys = keys[order]
    copy_number = torch.arange(len(keys), device=keys.device) - torch.searchsorted(keys, keys)
    keys = torch.where(copy_number == 0, keys, _mixed((keys + copy_number).unsqueeze(1)))
    return order[keys.argsort(stable=True)]


def _mixed(rows: Tensor) -> Int64[Tensor, " n"]:
    """64 bits per row: the sum of its numbers, each mixed with its position as in SplitMix64."""
    bits = rows.double().view(torch.int64) if rows.is_floating_point() else rows.long()
    key = bits + (torch.arange(bits.shape[1], device=bits.device) + 1) * -7046029254386353131
    key = (key ^ (key >> 30)) * -4658895280553007687
    key = (key ^ (key >> 27)) * -7723592293110705685
    return (key ^ (key >> 31)).sum(1)
