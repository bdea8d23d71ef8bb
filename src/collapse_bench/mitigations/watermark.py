"""A mark on samples, by which the next generation knows them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.base import Curator
from collapse_bench.mitigations.detection import Detection
from collapse_bench.now import Now, Setting
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw, Sampler
from collapse_bench.training import FitJob


@final
@dataclass(frozen=True, kw_only=True)
class Mark:
    """A spread-spectrum mark: signs drawn by a key, one for each high frequency of the cosine transform of an image.

    After Cox, Kilian, Leighton and Shamoon, "Secure spread spectrum watermarking for multimedia", IEEE Transactions on
    Image Processing 6, 1997. Frequencies are measured in units of the standard deviation that they have in real
    images, and the mark is strongest where images have least: a matched filter. An image's statistic is the normalised
    correlation of its coefficients with the signs. Colours carry the same mark.

    Args:
        key: of the signs.
        min_frequency: lowest frequency that is marked, in [0, 1) where 1 is that of alternating pixels; of the two
            frequencies of a coefficient the higher one counts.
    """

    key: int
    min_frequency: float

    def __post_init__(self) -> None:
        if not 0 <= self.min_frequency < 1:
            raise ConfigError(f"min_frequency of the watermark must lie in [0, 1), got {self.min_frequency}")

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if images have no grey levels, or none of such high frequencies."""
        assert isinstance(setting.sampler, Sampler)
        if setting.spec.dtype != "uint8" or not setting.sampler.quantize:
            raise ConfigError("mitigation=watermark marks grey levels; choose a data set of pictures and quantize=true")
        if not bool(self._band(setting.spec.height, setting.spec.width).any()):
            raise ConfigError(
                f"min_frequency={self.min_frequency} of mitigation=watermark is higher than all frequencies of images "
                f"of {setting.spec.height}x{setting.spec.width} pixels; lower it"
            )

    def learnt(self, now: Now) -> dict[str, Tensor]:
        """What is learnt once from all trusted real images.

        Returns:
            ``scale``: standard deviation of each coefficient, [h, w]; ``null``: statistics of these images, [n].
        """
        name = f"watermark_{self.key}_{self.min_frequency:g}"  # the mark that is looked for may be another one
        return now.artefact(name, now.setting.trusted, self._learn, self)

    def pattern(self, scale: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
        """What is added to an image, with a root mean square of 1."""
        height, width = scale.shape
        pattern = cosines(height).T @ (self._signs(height, width) / scale) @ cosines(width)
        return pattern / pattern.square().mean().sqrt()

    def statistics(self, images: UInt8[Tensor, "n c h w"], scale: Float[Tensor, "h w"]) -> Float[Tensor, " n"]:
        """Correlation of each image with the mark, in [-1, 1], float64: near 0 without a mark, higher with it."""
        signs = self._signs(*scale.shape)
        found = [(coefficients(batch) / scale * signs.abs()).flatten(1) for batch in images.split(4096)]
        return torch.cat([torch.nn.functional.cosine_similarity(batch, signs.flatten()[None]) for batch in found])

    def _learn(self, real: Pool, job: FitJob) -> Mapping[str, Tensor]:
        del job  # no random numbers
        # A frequency that real images hardly have would take all of the mark: one grey level is the least.
        scale = torch.cat([coefficients(batch) for batch in real.images.split(4096)]).std(0).clamp(min=1.0)
        return {"scale": scale, "null": self.statistics(real.images, scale)}

    def _signs(self, height: int, width: int) -> Float[Tensor, "h w"]:
        """-1 or 1 for the frequencies that are marked, 0 for the others."""
        rng = torch.Generator().manual_seed(self.key)
        return (2.0 * torch.randint(0, 2, (height, width), generator=rng).double() - 1.0) * self._band(height, width)

    def _band(self, height: int, width: int) -> Bool[Tensor, "h w"]:
        rows, columns = torch.arange(height) / height, torch.arange(width) / width
        return torch.maximum(rows.unsqueeze(1), columns) >= self.min_frequency


@final
@dataclass(frozen=True, kw_only=True)
class WatermarkMark(Curator):
    """Keeps as many candidates as are needed, all of them marked. ``strength=0`` leaves every pixel as it is.

    Args:
        mark: which.
        strength: root mean square of the mark in grey levels, before pixels are rounded and clipped.
    """

    changes_images: ClassVar[bool] = True

    mark: Mark
    strength: float

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ConfigError(f"mitigation.curator.strength must not be negative, got {self.strength}")

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if such images cannot be marked."""
        self.mark.check(setting)

    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        """The marked images."""
        candidates = draw(num_needed)
        pattern = self.mark.pattern(self.mark.learnt(now)["scale"])
        marked = (candidates.images + self.strength * pattern).round().clamp(0, 255).to(torch.uint8)
        return replace(candidates, images=marked).take(torch.arange(num_needed), because="marked")


@final
@dataclass(frozen=True, kw_only=True)
class WatermarkExclusion(Detection):
    """Drops or down-weights images that carry the mark.

    Args:
        weight: see ``Detection``.
        frac_false_positive: see ``Detection``.
        mark: which.
    """

    name: ClassVar[str] = "watermark"

    mark: Mark

    def check(self, setting: Setting) -> None:
        """Raises ConfigError as ``Detection`` does, or if such images cannot be marked."""
        super().check(setting)
        self.mark.check(setting)

    def flags(self, images: UInt8[Tensor, "n c h w"], now: Now) -> Bool[Tensor, " n"]:
        """Images whose statistic is above that of all but ``frac_false_positive`` of the trusted real images."""
        learnt = self.mark.learnt(now)
        threshold = learnt["null"].quantile(1.0 - self.frac_false_positive)
        return self.mark.statistics(images, learnt["scale"]) > threshold


def coefficients(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """The orthonormal two-dimensional cosine transform (DCT-II) of the mean over channels, float64."""
    grey = images.double().mean(1)
    return cosines(grey.shape[1]) @ grey @ cosines(grey.shape[2]).T


def cosines(size: int) -> Float[Tensor, "size size"]:
    """The orthonormal DCT-II matrix; row k has frequency k / ``size``."""
    k = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi * k.unsqueeze(1) * (k + 0.5) / size) * math.sqrt(2.0 / size)
    matrix[0] /= math.sqrt(2.0)
    return matrix
