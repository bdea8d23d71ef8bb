"""Sampling of flow-matching models by solving their ordinary differential equation."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.generators.flow import VelocityModel
from collapse_bench.samplers.base import Sampler
from collapse_bench.seeding import image_normal


@final
@dataclass(frozen=True, kw_only=True)
class FlowSampler(Sampler):
    """Carries noise to images with equal steps in time.

    Args:
        temperature: standard deviation of the initial noise.
        quantize: see ``Sampler``.
        batch_size: see ``Sampler``.
        method: ``"euler"`` (one evaluation per step) or ``"midpoint"`` (two).
        num_steps: steps from time 0 to 1.
    """

    method: Literal["euler", "midpoint"]
    num_steps: int

    model_type: ClassVar[type[Model]] = VelocityModel

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_steps < 1:
            raise ConfigError(f"sampler.num_steps must be at least 1, got {self.num_steps}")

    @property
    def num_evaluations(self) -> int:
        """One or two per step."""
        return self.num_steps * (2 if self.method == "midpoint" else 1)

    def sample_batch(
        self, model: Model, seeds: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """See ``Sampler.sample_batch``."""
        assert isinstance(model, VelocityModel)
        x = self.temperature * image_normal(seeds, model.spec.shape, draw=0)
        step = 1.0 / self.num_steps

        def velocity(x: Tensor, time: float) -> Tensor:
            return model.velocity(x, torch.full((len(x),), time, device=x.device), labels)

        for k in range(self.num_steps):
            slope = velocity(x, k * step)
            if self.method == "midpoint":
                slope = velocity(x + 0.5 * step * slope, (k + 0.5) * step)
            x = x + step * slope
        return x
