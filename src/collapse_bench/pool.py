"""Pools: immutable sets of images that carry, for every image, where it came from."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import pandas as pd
import torch
from jaxtyping import Float, Int64, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from collapse_bench.errors import HiddenColumnError, RunDirError
from collapse_bench.fingerprint import fingerprint
from collapse_bench.records import REAL, birth_name
from collapse_bench.store import write_tensors
from collapse_bench.types import to_float

UNLABELLED = -1
"""Label of an image that was made without a condition."""

PROVENANCE = ("image_id", "born", "seed", "source", "kept_because")
"""Columns that say where an image came from, which a scenario may declare lost."""

_ID_BITS = 40


@dataclass(frozen=True, eq=False)
class Pool:
    """An immutable set of images with provenance.

    Args:
        images: uint8 grey levels, or float32 where quantisation is switched off.
        labels: class index, or ``UNLABELLED``.
        image_id: unique within a run: generation and number of the candidate, or the index of a real image.
        born: generation whose model made the image, ``REAL`` for none.
        seed: the image's own random seed; the index in the data set for real images.
        source: what made each image, as an index into ``sources``.
        kept_because: why each image is here, as an index into ``reasons``.
        sources: names that ``source`` points to.
        reasons: names that ``kept_because`` points to.
        hidden: provenance columns that the scenario declares lost; ``visible`` leaves them out.
    """

    images: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    image_id: Int64[Tensor, " n"]
    born: Int64[Tensor, " n"]
    seed: Int64[Tensor, " n"]
    source: Int64[Tensor, " n"]
    kept_because: Int64[Tensor, " n"]
    sources: tuple[str, ...]
    reasons: tuple[str, ...]
    hidden: frozenset[str] = field(default=frozenset())

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in ("images", "labels", *PROVENANCE)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns of a pool must have one length, got {lengths}")
        if unknown := self.hidden - set(PROVENANCE):
            raise ValueError(f"only provenance columns {PROVENANCE} can be hidden, got {sorted(unknown)}")

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def real(cls, images: Tensor, labels: Int64[Tensor, " n"], source: str) -> Self:
        """A pool of real images; their ids and seeds are their positions.

        Args:
            images: uint8 or float32 images.
            labels: class indices.
            source: name of the data set.
        """
        index = torch.arange(len(images))
        zero = torch.zeros_like(index)
        born = torch.full_like(index, REAL)
        # Every column has memory of its own, because safetensors refuses to save shared memory.
        return cls(images, labels, index, born, index.clone(), zero, zero.clone(), (source,), ("real",))

    @classmethod
    def sampled(
        cls,
        images: Tensor,
        labels: Int64[Tensor, " n"],
        seeds: Int64[Tensor, " n"],
        *,
        start: int,
        born: int,
        source: str,
    ) -> Self:
        """A pool of candidates that one model has just made.

        Args:
            images: uint8 or float32 images.
            labels: their conditions, or ``UNLABELLED``.
            seeds: the images' own seeds.
            start: number of the first of them among the candidates of this generation.
            born: generation of the model.
            source: name of the model's family.
        """
        number = torch.arange(start, start + len(images))
        zero = torch.zeros_like(number)
        image_id = number + ((born + 1) << _ID_BITS)
        return cls(
            images,
            labels,
            image_id,
            torch.full_like(number, born),
            seeds,
            zero,
            zero.clone(),
            (source,),
            ("candidate",),
        )

    @classmethod
    def concat(cls, pools: Sequence["Pool"]) -> Self:
        """All images of several pools, in their order; hidden columns are hidden in the result.

        Where some pools are quantised and others are not, the result is not.
        """
        sources = tuple(dict.fromkeys(name for pool in pools for name in pool.sources))
        reasons = tuple(dict.fromkeys(name for pool in pools for name in pool.reasons))

        def renumbered(codes: Tensor, old: tuple[str, ...], new: tuple[str, ...]) -> Tensor:
            return torch.tensor([new.index(name) for name in old], dtype=torch.int64)[codes]

        quantised = {pool.images.dtype == torch.uint8 for pool in pools}
        return cls(
            torch.cat([to_float(p.images) if len(quantised) > 1 else p.images for p in pools]),
            *(torch.cat([getattr(p, name) for p in pools]) for name in ("labels", "image_id", "born", "seed")),
            source=torch.cat([renumbered(p.source, p.sources, sources) for p in pools]),
            kept_because=torch.cat([renumbered(p.kept_because, p.reasons, reasons) for p in pools]),
            sources=sources,
            reasons=reasons,
            hidden=frozenset().union(*(p.hidden for p in pools)),
        )

    def take(self, index: Int64[Tensor, " k"], because: str | None = None) -> Self:
        """The images at ``index``, in that order.

        Args:
            index: positions in this pool.
            because: why these were chosen; ``None`` leaves the recorded reasons.
        """
        columns = {name: getattr(self, name)[index] for name in ("images", "labels", *PROVENANCE)}
        if because is None:
            return replace(self, **columns)
        columns["kept_because"] = torch.zeros_like(index)
        return replace(self, **columns, reasons=(because,))

    def trained_on(self, weights: Float[Tensor, " n"], gate: Float[Tensor, " n"] | None = None) -> Self:
        """The images that a fit to this pool sees.

        Args:
            weights: sampling probability of each image, up to a factor; 0 leaves it out.
            gate: highest log signal-to-noise ratio at which each image is trained on; -inf leaves it out.
        """
        is_seen = weights > 0 if gate is None else (weights > 0) & (gate > -math.inf)
        return self if bool(is_seen.all()) else self.take(is_seen.nonzero().flatten())

    def hide(self, *columns: str) -> Self:
        """The same pool with provenance columns declared lost."""
        return replace(self, hidden=self.hidden | set(columns))

    def visible(self) -> "VisiblePool":
        """What a part that decides may look at: this pool without its hidden columns."""
        return VisiblePool(self)

    def counts_by_birth(self) -> dict[str, int]:
        """Number of images per origin: ``"real"`` and ``"gen_000"``, ``"gen_001"``, ..., in that order."""
        born, counts = self.born.unique(return_counts=True)
        return {birth_name(int(b)): int(c) for b, c in zip(born, counts, strict=True)}

    def shares_by_birth(self, weights: Float[Tensor, " n"]) -> dict[str, float]:
        """Share of the total weight per origin, named and ordered as in ``counts_by_birth``."""
        born, index = self.born.unique(return_inverse=True)
        totals = torch.bincount(index, weights.double(), len(born))
        return {birth_name(int(b)): share for b, share in zip(born, (totals / totals.sum()).tolist(), strict=True)}

    def class_weights(self, weights: Float[Tensor, " n"], num_classes: int) -> Float[Tensor, " k"]:
        """Sum of the weights of each class, over the images that have a label."""
        labelled = self.labels != UNLABELLED
        return torch.bincount(self.labels[labelled], weights[labelled].double(), num_classes)

    def table(self) -> pd.DataFrame:
        """One row per image, all that is known of it but its pixels; hidden columns too.

        Columns: ``image_id``, ``seed``, ``born``, ``source``, ``label`` and ``because``.
        """
        return pd.DataFrame(
            {
                "image_id": self.image_id.numpy(),
                "seed": self.seed.numpy(),
                "born": self.born.numpy(),
                "source": pd.array(self.sources, dtype="str").take(self.source.numpy()),
                "label": self.labels.numpy(),
                "because": pd.array(self.reasons, dtype="str").take(self.kept_because.numpy()),
            }
        )

    @property
    def content_hash(self) -> str:
        """Hash of the images and labels, that is of all that a fit sees."""
        return fingerprint(self.images, self.labels)

    def save(self, path: Path) -> None:
        """Writes the pool as one safetensors file.

        Raises:
            RunDirError: if the file cannot be written.
        """
        names = {"sources": self.sources, "reasons": self.reasons, "hidden": sorted(self.hidden)}
        columns = {name: getattr(self, name) for name in ("images", "labels", *PROVENANCE)}
        # One entry, because safetensors writes several in any order and equal pools should be equal files.
        write_tensors(path, columns, {"names": json.dumps(names)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what ``save`` wrote.

        Raises:
            RunDirError: if the file is missing or damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                names = json.loads(file.metadata()["names"])
                columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            sources, reasons = tuple(names["sources"]), tuple(names["reasons"])
            return cls(**columns, sources=sources, reasons=reasons, hidden=frozenset(names["hidden"]))
        except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunDirError(
                f"cannot read the pool {path}: {error}; delete its generation folder to redo it"
            ) from error


@dataclass(frozen=True, eq=False, kw_only=True)
class LivePool(Pool):
    """A pool that holds no image: a fit draws every batch from a parent model, and sees no image twice.

    Args:
        parent: generation of that model.
        draw: (start, count) -> images ``start`` to ``start + count - 1`` and their labels, on the parent's device.
        parent_hash: hash of all that decides the images.
        class_shares: how often the parent makes each class.
    """

    parent: int
    draw: Callable[[int, int], tuple[Tensor, Int64[Tensor, " n"]]]
    parent_hash: str
    class_shares: Float[Tensor, " k"]

    def counts_by_birth(self) -> dict[str, int]:
        """No images, and in their name that the parent was sampled while training: ``{"gen_000 live": 0}``."""
        return {f"{birth_name(self.parent)} live": 0}

    def shares_by_birth(self, weights: Float[Tensor, " n"]) -> dict[str, float]:
        """All of what is trained on comes from the parent."""
        del weights
        return {f"{birth_name(self.parent)} live": 1.0}

    def class_weights(self, weights: Float[Tensor, " n"], num_classes: int) -> Float[Tensor, " k"]:
        """How often the parent makes each class; there are no images that could have weights."""
        del weights, num_classes
        return self.class_shares

    @property
    def content_hash(self) -> str:
        """Hash of all that decides the images."""
        return self.parent_hash


class VisiblePool:
    """A pool as a deciding part sees it: hidden columns raise instead of answering.

    Attributes are those of ``Pool``: ``images``, ``labels`` and the provenance columns that are not hidden.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __len__(self) -> int:
        return len(self._pool)

    def revealed(self, column: str) -> Tensor:
        """A provenance column as it is, hidden or not: for an explicit upper bound alone, which calls itself so."""
        return getattr(self._pool, column)

    def __getattr__(self, name: str) -> Tensor:
        pool: Pool = object.__getattribute__(self, "_pool")
        if name in pool.hidden:
            raise HiddenColumnError(
                f"the scenario declares the column {name!r} of the pool lost; a part that needs it cannot be used here"
            )
        if name in ("images", "labels", *PROVENANCE):
            return getattr(pool, name)
        raise AttributeError(f"a visible pool has no {name!r}; it has images, labels and {PROVENANCE}")
