"""Sampling of flow-matching models by solving their ordinary differential equation."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.generators.processes import FlowMatching, Process
from collapse_bench.samplers.noisy import Field, NoisySampler


@final
@dataclass(frozen=True, kw_only=True)
class FlowSampler(NoisySampler):
    """Carries noise to images with equal steps in time.

    Args:
        temperature: see ``Sampler``.
        truncation: see ``Sampler``.
        guidance: see ``Sampler``.
        quantize: see ``Sampler``.
        batch_size: see ``Sampler``.
        num_steps: steps from time 0 to 1.
        early_stop: see ``NoisySampler``.
        method: ``"euler"`` (one evaluation per step) or ``"midpoint"`` (two).
    """

    method: Literal["euler", "midpoint"]

    process_type: ClassVar[type[Process]] = FlowMatching

    @property
    def outputs_per_step(self) -> int:
        """One or two."""
        return 2 if self.method == "midpoint" else 1

    def levels(self, process: Process) -> list[float]:
        """Times that are equally far apart."""
        step = 1.0 / self.num_steps
        return [k * step for k in range(self.num_steps)]

    def step(
        self, field: Field, x: Float[Tensor, "n c h w"], k: int, levels: list[float], seeds: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """One step of Euler's or the midpoint method."""
        del seeds  # nothing is random after the start
        step = 1.0 / self.num_steps
        slope = field(x, levels[k])
        if self.method == "midpoint":
            slope = field(x + 0.5 * step * slope, (k + 0.5) * step)
        return x + step * slope
