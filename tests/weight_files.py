"""Self-made weights for the encoders that come with published ones, and such encoders fitted."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from collapse_bench.encoders.base import FittedEncoder
from collapse_bench.encoders.pretrained import Pretrained
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec


def saved(tensors: Mapping[str, Tensor], path: Path) -> dict[str, str]:
    """The arguments of an encoder whose weights are these tensors."""
    torch.save(tensors, path)
    return {"weights": str(path), "sha256": sha256(path)}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fitted(encoder: Pretrained, channels: int = 3, dtype: str = "uint8") -> FittedEncoder:
    """The encoder for real images of this kind, to whose content it is indifferent."""
    real = Pool.real(torch.zeros(1, channels, 8, 8, dtype=torch.uint8), torch.tensor([UNLABELLED]), source="blank")
    spec = ImageSpec(channels=channels, height=8, width=8, class_names=("blank",), dtype=dtype)
    return encoder.fit(real, spec, TrainerOptions(num_threads=1), Store(Path("unused"), enabled=False))


def pictures() -> Tensor:
    """Three RGB pictures of 32x32 pixels: noise of one, 4x4 and 32x32 patches, so that their features differ."""
    rng = torch.Generator().manual_seed(3)
    noise = [torch.randint(256, (1, 3, side, side), generator=rng, dtype=torch.uint8) for side in (1, 4, 32)]
    return torch.cat([F.interpolate(patches, (32, 32)) for patches in noise])
