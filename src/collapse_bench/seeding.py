"""Named random numbers: every draw belongs to (run seed, generation, role), and every image has its own seed.

Noise of an image is a pure function of the image's seed, computed for a whole batch at once by the counter-based
generator Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). So the noise of
sample k is the same whatever the batch size, the order or the number of devices.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float, Int64
from torch import Tensor

RUN_LEVEL = -1
"""Stands for the generation in streams that belong to the whole run."""


class Role(StrEnum):
    """What a stream of random numbers is for."""

    SPLIT = "split"
    FLOOR = "floor"
    FIT = "fit"
    MIX = "mix"
    FRESH = "fresh"
    LIVE = "live"
    WEIGH = "weigh"
    REFINE = "refine"
    SAMPLE = "sample"
    CURATE = "curate"
    MEASURE = "measure"
    MEASURE_KEPT = "measure_kept"
    TUNE = "tune"
    GRID = "grid"
    ARTEFACT = "artefact"
    STALE = "artefact/anchors/real"  # anchors had this name before mix shared them, and keep their numbers by it


@dataclass(frozen=True)
class Stream:
    """One named stream of random numbers.

    Args:
        run_seed: seed of the chain.
        generation: generation of the chain, or ``RUN_LEVEL``.
        role: what the numbers are for.
    """

    run_seed: int
    generation: int
    role: str

    @property
    def seed(self) -> int:
        """A 62-bit seed that depends on all three parts of the name and on nothing else."""
        name = f"{self.run_seed}/{self.generation}/{self.role}".encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 2

    def generator(self) -> torch.Generator:
        """A fresh CPU generator at the start of this stream."""
        return torch.Generator().manual_seed(self.seed)

    def image_seeds(self, start: int, count: int) -> Int64[Tensor, " count"]:
        """Seeds of the images ``start`` to ``start + count - 1`` of this stream."""
        return torch.arange(start, start + count, dtype=torch.int64) + self.seed


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seeds torch's global random state inside the block and restores it afterwards, also of the device in use."""
    # A process works on its current device, and leaves those of others alone.
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class _Part:
    """The rows of a batch that this process has, and where the numbers of the whole batch come from."""

    rows: slice
    num_rows: int
    rng: torch.Generator


_part: _Part | None = None


@contextmanager
def part_of_batch(rows: slice, num_rows: int, rng: torch.Generator) -> Iterator[None]:
    """Within the block a batch is some rows of one that several processes share.

    ``batch_normal``, ``batch_uniform`` and ``batch_integers`` then draw for the whole batch, and every process takes
    its rows of it: all of them together see what one process would see. They draw in step, from equal generators.

    Args:
        rows: those of this process.
        num_rows: of the whole batch.
        rng: on the device of the batch; it moves on.
    """
    global _part
    before, _part = _part, _Part(rows, num_rows, rng)
    try:
        yield
    finally:
        _part = before


_in_common = False


@contextmanager
def numbers_in_common() -> Iterator[None]:
    """Within the block all images of a batch have the same random numbers, so that what they are judged by is equal.

    Common random numbers: ``batch_normal``, ``batch_uniform`` and ``batch_integers`` draw for one image. They come from
    torch's global random state, and do not depend on how many images there are.
    """
    global _in_common
    before, _in_common = _in_common, True
    try:
        yield
    finally:
        _in_common = before


def batch_normal(shape: Sequence[int], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers for a batch, from torch's global random state.

    See ``part_of_batch`` and ``numbers_in_common``.

    Args:
        shape: a row per image.
        device: of the batch.
        dtype: of the numbers.
    """
    if _in_common:
        return torch.randn(1, *shape[1:], device=device, dtype=dtype).repeat(shape[0], *[1] * (len(shape) - 1))
    if _part is None:
        return torch.randn(*shape, device=device, dtype=dtype)
    return torch.randn(_part.num_rows, *shape[1:], generator=_part.rng, device=device, dtype=dtype)[_part.rows]


def batch_uniform(num_images: int, device: torch.device) -> Float[Tensor, " num_images"]:
    """Uniform numbers in [0, 1), one per image of a batch; see ``batch_normal``."""
    if _in_common:
        return torch.rand(1, device=device).repeat(num_images)
    if _part is None:
        return torch.rand(num_images, device=device)
    return torch.rand(_part.num_rows, generator=_part.rng, device=device)[_part.rows]


def batch_integers(high: int, num_images: int, device: torch.device) -> Int64[Tensor, " num_images"]:
    """Uniform whole numbers from 0 to ``high`` - 1, one per image of a batch; see ``batch_normal``."""
    if _in_common:
        return torch.randint(high, (1,), device=device).repeat(num_images)
    if _part is None:
        return torch.randint(high, (num_images,), device=device)
    return torch.randint(high, (_part.num_rows,), generator=_part.rng, device=device)[_part.rows]


_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_NUM_ROUNDS = 10


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 of Salmon et al. 2011: four random 32-bit words per counter and key.

    Args:
        counter: four int64 tensors that broadcast together, each with values in [0, 2^32).
        key: two int64 tensors that broadcast with them, likewise.

    Returns:
        Four int64 tensors with values in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_NUM_ROUNDS):
        # int64 products wrap modulo 2^64, so their two halves are exact after masking.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & _MASK) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32 & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = k0 + _KEY_INCREMENTS[0] & _MASK, k1 + _KEY_INCREMENTS[1] & _MASK
    return c0, c1, c2, c3


def _words(seeds: Int64[Tensor, " n"], num_words: int, draw: int) -> Int64[Tensor, "n num_words"]:
    """``num_words`` random 32-bit words per image seed; ``draw`` numbers independent draws of the same image."""
    block = torch.arange(-(-num_words // 4), device=seeds.device).unsqueeze(0)
    key = (seeds.unsqueeze(1) & _MASK, seeds.unsqueeze(1) >> 32 & _MASK)
    zero = torch.zeros_like(block)
    words = philox((block, torch.full_like(block, draw), zero, zero), key)
    return torch.stack(words, dim=-1).flatten(1)[:, :num_words]


def image_uniform(seeds: Int64[Tensor, " n"], shape: tuple[int, ...], draw: int) -> Float[Tensor, "n *shape"]:
    """Uniform numbers in (0, 1), float64, a function of each image's seed, the shape and the draw's number.

    Args:
        seeds: one seed per image; the result is on the same device.
        shape: shape of one image's numbers.
        draw: number of the draw: an image that needs several independent draws counts them.
    """
    words = _words(seeds, math.prod(shape), draw)
    return words.to(torch.float64).add_(0.5).mul_(2.0**-32).reshape(len(seeds), *shape)


def image_normal(seeds: Int64[Tensor, " n"], shape: tuple[int, ...], draw: int) -> Float[Tensor, "n *shape"]:
    """Standard normal numbers, float32, a function of each image's seed, the shape and the draw's number.

    Box and Muller's transform of ``image_uniform``; the arguments are the same.
    """
    num_pairs = -(-math.prod(shape) // 2)
    u = image_uniform(seeds, (num_pairs, 2), draw)
    radius = u[..., 0].log().mul_(-2.0).sqrt_()
    angle = u[..., 1] * (2.0 * math.pi)
    normal = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1).flatten(1)
    return normal[:, : math.prod(shape)].to(torch.float32).reshape(len(seeds), *shape)
