"""The small shared vocabulary: what an image is, what a budget is, and how grey levels become numbers."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from collapse_bench.errors import ConfigError


@dataclass(frozen=True)
class ImageSpec:
    """Shape and classes of the images of one data set.

    Args:
        channels: number of channels, 1 (grey) or 3 (RGB) for pictures.
        height: pixels.
        width: pixels.
        class_names: one name per class, in label order.
        dtype: ``"uint8"`` for pictures, ``"float32"`` for data that has no grey levels (the Gaussian laws).
    """

    channels: int
    height: int
    width: int
    class_names: tuple[str, ...]
    dtype: str = "uint8"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return (self.channels, self.height, self.width)

    @property
    def num_values(self) -> int:
        """Numbers per image: channels x height x width."""
        return self.channels * self.height * self.width

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


@dataclass(frozen=True)
class Budget:
    """What every arm of a comparison may spend; the same for all arms.

    Args:
        num_generations: generations after generation 0; the chain has ``num_generations + 1`` records.
        num_steps_initial: gradient steps of generation 0, which is fitted on real images only.
        num_steps: gradient steps of every later generation.
        num_synthetic: images that a generation hands to the next; ``None`` is the size of the real pool.
        num_measured: fresh samples that are measured per generation; ``None`` is the size of the control
            set, which is also the most that is allowed, so that the floor has the same count.
        num_floor_splits: random splits of the held-out images from which the real-vs-real floor and its spread
            are computed.
        max_candidates: most candidates a curator may draw per generation, as a multiple of what it keeps.
    """

    num_generations: int
    num_steps_initial: int
    num_steps: int
    num_synthetic: int | None = None
    num_measured: int | None = None
    num_floor_splits: int = 20
    max_candidates: float = 20.0

    def __post_init__(self) -> None:
        for name, low in (("num_generations", 0), ("num_steps_initial", 1), ("num_steps", 1), ("num_floor_splits", 2)):
            if getattr(self, name) < low:
                raise ConfigError(f"budget.{name} must be at least {low}, got {getattr(self, name)}")
        for name in ("num_synthetic", "num_measured"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise ConfigError(f"budget.{name} must be at least 2 (or null for the default), got {value}")
        if not self.max_candidates >= 1:
            raise ConfigError(f"budget.max_candidates must be at least 1, got {self.max_candidates}")

    def num_fit_steps(self, generation: int) -> int:
        """Gradient steps that generation ``generation`` may spend."""
        return self.num_steps_initial if generation == 0 else self.num_steps


def to_float(images: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Images as the float32 numbers that networks see.

    Args:
        images: uint8 grey levels 0..255, which become [-1, 1]; float images pass unchanged.
    """
    if images.dtype == torch.uint8:
        return images.to(torch.float32).div_(127.5).sub_(1.0)
    return images


def to_uint8(images: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """The nearest grey levels 0..255 of float images in [-1, 1]; what lies outside is clipped."""
    return images.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
