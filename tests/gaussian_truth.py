"""Models that predict perfectly because the images are Gaussian, so that what samplers make of them is known."""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from collapse_bench.generators.diffusion import NoisyModel
from collapse_bench.generators.processes import DDPM, EDM, FlowMatching, Process
from collapse_bench.types import ImageSpec

FLOW = FlowMatching(times="uniform", coupling="independent")
COSINE = DDPM(schedule="cosine", num_levels=1000)
LINEAR = DDPM(schedule="linear", num_levels=1000)
KARRAS = EDM(sigma_data=0.5, log_mean=-1.2, log_sd=1.2)


@functools.cache
def published_signal(process: DDPM) -> np.ndarray:
    """alpha_bar of each step, from the formulas of the papers (num_levels 1,000)."""
    steps = np.arange(1, process.num_levels + 1)
    if process.schedule == "linear":
        return np.cumprod(1 - (1e-4 + (0.02 - 1e-4) * (steps - 1) / (process.num_levels - 1)))
    f = np.cos((np.arange(process.num_levels + 1) / process.num_levels + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))


def amplitudes(process: Process, level: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of the image and of the noise at each level, float64."""
    if isinstance(process, FlowMatching):
        return level.double(), 1 - level.double()
    if isinstance(process, DDPM):
        signal = torch.from_numpy(published_signal(process))[level]
        return signal.sqrt(), (1 - signal).sqrt()
    return torch.ones_like(level, dtype=torch.float64), level.double()


class GaussianTruth(NoisyModel):
    """The best prediction for images of independent normal pixels; a class adds to their mean.

    Args:
        process: how images become noise.
        mean: of images without a class.
        sd: standard deviation of the pixels.
        class_shift: label k has the mean ``mean + (k + 1) * class_shift``.
        size: pixels per side.
    """

    def __init__(self, process: Process, mean: float, sd: float, class_shift: float = 0.0, size: int = 2) -> None:
        super().__init__(ImageSpec(1, size, size, ("a", "b")), class_shift != 0, process, 0.1 if class_shift else 0.0)
        self.mean, self.sd, self.class_shift = mean, sd, class_shift
        self.asked: list[Tensor] = []

    def predict(self, x: Tensor, level: Tensor, labels: Tensor) -> Tensor:
        self.asked.append(labels)
        alpha, sigma = (a.view(-1, 1, 1, 1) for a in amplitudes(self.process, level))
        mean = (self.mean + self.class_shift * (labels + 1)).double().view(-1, 1, 1, 1)
        noisy = x.double()
        image = mean + alpha * self.sd**2 / (alpha**2 * self.sd**2 + sigma**2) * (noisy - alpha * mean)
        if isinstance(self.process, FlowMatching):
            prediction = (image - noisy) / sigma
        elif isinstance(self.process, DDPM):
            prediction = (noisy - alpha * image) / sigma
        else:
            prediction = image
        return prediction.float()

    def law(self, level: float | None) -> tuple[float, float]:
        """Mean and standard deviation of noisy images at a level; ``None`` is the images themselves."""
        if level is None:
            return self.mean, self.sd
        alpha, sigma = (a.item() for a in amplitudes(self.process, torch.tensor([level])))
        return alpha * self.mean, math.hypot(alpha * self.sd, sigma)

    def exact_line(self, first: float, last: float | None) -> tuple[float, float]:
        """Slope and offset of what the exact differential equation makes of noisy images, between two levels.

        It keeps how many standard deviations a value is away from the mean.
        """
        (mean, sd), (last_mean, last_sd) = self.law(first), self.law(last)
        return last_sd / sd, last_mean - last_sd / sd * mean
