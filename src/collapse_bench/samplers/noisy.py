"""What samplers of diffusion and flow-matching models share."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.generators.diffusion import NoisyModel
from collapse_bench.generators.processes import Process
from collapse_bench.samplers.base import Sampler


@dataclass(frozen=True, kw_only=True)
class NoisySampler(Sampler):
    """Carries noise to images in steps.

    Args:
        temperature: see ``Sampler``.
        truncation: see ``Sampler``.
        guidance: see ``Sampler``.
        quantize: see ``Sampler``.
        batch_size: see ``Sampler``.
        num_steps: from noise to images.
        early_stop: part of the steps that is left out at the end, in [0, 1), to whole steps. The sample is then the
            noisy image of that level (Khelifa et al. 2026, arXiv:2606.13796, abstract): an image x plus noise for EDM,
            x + sigma z, so that its law is that of the images smoothed with noise. For flow matching, t x + (1 - t) z,
            and DDPM, sqrt(signal) x + sqrt(1 - signal) z, it is also scaled down toward mid-grey: contrast is lost
            beside what noise adds.
    """

    num_steps: int
    early_stop: float

    model_type: ClassVar[type[Model]] = NoisyModel
    process_type: ClassVar[type[Process]]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_steps < 1:
            raise ConfigError(f"sampler.num_steps must be at least 1, got {self.num_steps}")
        if not 0 <= self.early_stop < 1:
            raise ConfigError(f"sampler.early_stop must lie in [0, 1), got {self.early_stop}")
        if self.num_steps_taken < 1:
            raise ConfigError(
                f"sampler.early_stop={self.early_stop:g} leaves out all {self.num_steps} steps; lower it, or raise "
                "sampler.num_steps"
            )

    @property
    @abstractmethod
    def outputs_per_step(self) -> int:
        """Outputs of the model that a step takes."""

    @abstractmethod
    def levels(self, process: Process) -> list[float]:
        """The noise levels before each step, in the process's own terms."""

    @abstractmethod
    def step(
        self, field: "Field", x: Float[Tensor, "n c h w"], k: int, levels: list[float], seeds: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The images after step ``k``, which counts from 0.

        Args:
            field: the model's predictions.
            x: the images before it.
            k: number of the step.
            levels: what ``levels`` says.
            seeds: of the images, for a step that adds noise; draw 0 is the noise that sampling starts from.
        """

    @property
    def num_steps_taken(self) -> int:
        """Steps that are not left out."""
        return self.num_steps - round(self.early_stop * self.num_steps)

    @property
    def num_outputs(self) -> int:
        """Those of the steps that are taken."""
        return self.num_steps_taken * self.outputs_per_step

    def initial(self, noise: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """What sampling starts from, made of standard normal noise."""
        return noise

    @final
    def fits(self, model: Model) -> bool:
        """Whether the model is one of the sampler's process."""
        return isinstance(model, NoisyModel) and isinstance(model.process, self.process_type)

    @final
    def sample_batch(
        self, model: Model, seeds: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """See ``Sampler.sample_batch``."""
        assert isinstance(model, NoisyModel)
        field = Field(self, model, labels)
        levels = self.levels(model.process)
        x = self.initial(self.noise(seeds, model.spec.shape, draw=0))
        for k in range(self.num_steps_taken):
            x = self.step(field, x, k, levels, seeds)
        return x


@final
class Field:
    """What a model predicts for some images, with the sampler's guidance.

    Args:
        sampler: says how much guidance.
        model: predicts.
        labels: conditions of the images.
    """

    def __init__(self, sampler: NoisySampler, model: NoisyModel, labels: Int64[Tensor, " n"]) -> None:
        self._sampler, self._model, self._labels = sampler, model, labels
        self.process = model.process

    def __call__(self, x: Float[Tensor, "n c h w"], level: float) -> Float[Tensor, "n c h w"]:
        """The prediction at one noise level."""
        levels = torch.full((len(x),), level, device=x.device)
        return self._sampler.guided(lambda labels: self._model.predict(x, levels, labels), self._labels)

    def denoised(self, x: Float[Tensor, "n c h w"], level: float) -> Float[Tensor, "n c h w"]:
        """The image that the prediction amounts to."""
        return self.process.denoised(x, torch.full((len(x),), level, device=x.device), self(x, level))
