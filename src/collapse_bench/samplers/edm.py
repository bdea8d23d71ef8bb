"""Sampling of EDM models with Heun's method."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.processes import EDM, Process
from collapse_bench.samplers.noisy import Field, NoisySampler


@final
@dataclass(frozen=True, kw_only=True)
class HeunSampler(NoisySampler):
    """Goes from the noisiest sigma to 0 in steps of Heun's method, with fresh noise before each if asked.

    Karras et al. 2022 (arXiv:2206.00364, algorithm 2; without churn algorithm 1).

    Args:
        temperature: see ``Sampler``.
        truncation: see ``Sampler``.
        guidance: see ``Sampler``.
        quantize: see ``Sampler``.
        batch_size: see ``Sampler``.
        num_steps: from ``sigma_max`` to 0; all but the last evaluate the model twice.
        early_stop: see ``NoisySampler``.
        sigma_min: the last sigma above 0.
        sigma_max: the first sigma.
        rho: how much finer steps are at small sigmas; the sigmas are equally spaced in sigma^(1/rho) (eq. 5).
        churn: how much noise is added over all steps, S_churn; 0 solves the ordinary differential equation.
        churn_noise: factor of the standard deviation of that noise, S_noise.
        churn_min: the lowest sigma at which it is added, S_tmin.
        churn_max: the highest one, S_tmax; ``None`` is no bound.
    """

    sigma_min: float
    sigma_max: float
    rho: float
    churn: float
    churn_noise: float
    churn_min: float
    churn_max: float | None

    process_type: ClassVar[type[Process]] = EDM

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sigma_min < self.sigma_max:
            raise ConfigError(
                f"sampler.sigma_min must be above 0 and below sigma_max, got {self.sigma_min} and {self.sigma_max}"
            )
        if not self.rho > 0 or self.churn < 0 or self.churn_noise < 0:
            raise ConfigError(
                f"sampler.rho must be above 0, churn and churn_noise not negative; got {self.rho}, {self.churn} and "
                f"{self.churn_noise}"
            )

    @property
    def outputs_per_step(self) -> int:
        """Two."""
        return 2

    @property
    def num_outputs(self) -> int:
        """Two per step, but one for the last, which ends at 0."""
        return super().num_outputs - (self.num_steps_taken == self.num_steps)

    def levels(self, process: Process) -> list[float]:
        """The sigmas before each step."""
        first, last = self.sigma_max ** (1.0 / self.rho), self.sigma_min ** (1.0 / self.rho)
        spacing = (last - first) / max(1, self.num_steps - 1)
        return [(first + k * spacing) ** self.rho for k in range(self.num_steps)]

    def initial(self, noise: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Noise of standard deviation ``sigma_max``."""
        return self.sigma_max * noise

    def step(
        self, field: Field, x: Float[Tensor, "n c h w"], k: int, levels: list[float], seeds: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """One step of Heun's method; Euler's for the last."""
        sigma, following = levels[k], levels[k + 1] if k + 1 < len(levels) else 0.0
        highest = math.inf if self.churn_max is None else self.churn_max
        if self.churn and self.churn_min <= sigma <= highest:
            raised = sigma * (1.0 + min(self.churn / self.num_steps, math.sqrt(2.0) - 1.0))
            added = self.churn_noise * math.sqrt(raised**2 - sigma**2)
            x, sigma = x + added * self.noise(seeds, tuple(x.shape[1:]), draw=k + 1), raised
        slope = (x - field.denoised(x, sigma)) / sigma
        moved = x + (following - sigma) * slope
        if following == 0:
            return moved
        slope_there = (moved - field.denoised(moved, following)) / following
        return x + (following - sigma) * 0.5 * (slope + slope_there)
