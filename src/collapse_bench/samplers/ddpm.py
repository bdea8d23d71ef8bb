"""Sampling of DDPMs: ancestral steps and the deterministic ones of DDIM."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.generators.diffusion import NoisyModel
from collapse_bench.generators.processes import DDPM, Process
from collapse_bench.samplers.noisy import Field, NoisySampler


@final
@dataclass(frozen=True, kw_only=True)
class DDPMSampler(NoisySampler):
    """Goes through equally spaced levels of a DDPM, with more or less fresh noise at each step.

    Song et al. 2021 (arXiv:2010.02502, eq. 12 and 16).

    Args:
        temperature: see ``Sampler``.
        truncation: see ``Sampler``.
        guidance: see ``Sampler``.
        quantize: see ``Sampler``.
        batch_size: see ``Sampler``.
        num_steps: at most the levels of the model.
        early_stop: see ``NoisySampler``.
        eta: 0 adds no noise (DDIM), 1 as much as ancestral sampling does (Ho et al. 2020, arXiv:2006.11239, with the
            posterior variance).
        clip: keep the denoised image of every step within [-1, 1], where grey levels are.
    """

    eta: float
    clip: bool

    process_type: ClassVar[type[Process]] = DDPM

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"sampler.eta must lie in [0, 1], got {self.eta}")

    def check(self, model: Model) -> None:
        """Raises ConfigError as ``Sampler.check`` does.

        Likewise if the model has fewer levels than there are steps, or its images have no bounds to be clipped at.
        """
        super().check(model)
        assert isinstance(model, NoisyModel)
        assert isinstance(model.process, DDPM)
        if self.num_steps > model.process.num_levels:
            raise ConfigError(
                f"sampler.num_steps={self.num_steps}, and the model has {model.process.num_levels} noise levels; lower "
                "it, or raise generator.process.num_levels"
            )
        if self.clip and model.spec.dtype != "uint8":
            raise ConfigError(
                "sampler.clip=true keeps images within [-1, 1], and those of this dataset have no bounds; set it to "
                "false"
            )

    @property
    def outputs_per_step(self) -> int:
        """One."""
        return 1

    def levels(self, process: Process) -> list[float]:
        """Steps of the model from its noisiest one, equally far apart up to rounding."""
        assert isinstance(process, DDPM)
        return [round(level) for level in np.linspace(process.num_levels - 1, 0, self.num_steps)]

    def step(
        self, field: Field, x: Float[Tensor, "n c h w"], k: int, levels: list[float], seeds: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """From one level to the next, or to the image after the last."""
        process = field.process
        assert isinstance(process, DDPM)
        signals = process.signals()
        signal = signals[int(levels[k])]
        next_signal = signals[int(levels[k + 1])] if k + 1 < len(levels) else 1.0

        image = field.denoised(x, levels[k])
        if self.clip:
            image = image.clamp(-1.0, 1.0)
        noise = (x - math.sqrt(signal) * image) / math.sqrt(1.0 - signal)
        fresh = self.eta * math.sqrt((1.0 - next_signal) / (1.0 - signal) * (1.0 - signal / next_signal))
        x = math.sqrt(next_signal) * image + math.sqrt(max(0.0, 1.0 - next_signal - fresh**2)) * noise
        return x + fresh * self.noise(seeds, tuple(x.shape[1:]), draw=k + 1) if fresh else x
