"""How images become noise, and what a network learns of it: flow matching, DDPM and EDM.

All of them make a noisy image as alpha image + sigma standard normal noise, and differ in the levels that they know,
in how often each is trained on, and in what is predicted. A prediction is the score times a number that depends on the
level alone, plus what depends on the noisy image and the level alone. So predictions of two networks, or with and
without a class, combine as scores do where their weights add up to 1.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from collapse_bench.errors import ConfigError
from collapse_bench.seeding import batch_integers, batch_normal, batch_uniform


class Process(ABC):
    """A family of noise levels and what is predicted at them. Concrete processes are frozen dataclasses."""

    @abstractmethod
    def predict(
        self, network: nn.Module, x: Float[Tensor, "n c h w"], level: Tensor, labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """What the network says of noisy images.

        Args:
            network: (images, time in [0, 1], labels) -> images' shape.
            x: noisy images.
            level: noise level of each, in the process's own terms.
            labels: classes; ``UNLABELLED`` asks for no class.
        """

    @abstractmethod
    def losses(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        images: Float[Tensor, "n c h w"],
        conditions: Int64[Tensor, " n"] | None,
    ) -> tuple[Float[Tensor, " n"], Tensor]:
        """The error of predictions at one random level per image, and the levels.

        Args:
            predict: (noisy images, levels) -> predictions.
            images: in [-1, 1], a batch or a part of one; noise is that of ``seeding.batch_normal``.
            conditions: what samples are asked for by, one per image; ``None`` if they are asked for by nothing.
        """

    @abstractmethod
    def log_snr(self, level: Tensor) -> Float[Tensor, " n"]:
        """Log signal-to-noise ratio log(alpha^2 / sigma^2) of levels."""

    @abstractmethod
    def denoised(
        self, x: Float[Tensor, "n c h w"], level: Tensor, prediction: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """The image that a prediction amounts to: an estimate of the mean of all images that ``x`` may come from."""


@final
@dataclass(frozen=True, kw_only=True)
class FlowMatching(Process):
    """Straight paths from standard normal noise (time 0) to images (time 1). Levels are times, predictions velocities.

    Lipman et al. 2023 (arXiv:2210.02747, eq. 23 with sigma_min 0); Liu et al. 2023 (arXiv:2209.03003).

    Args:
        times: how training draws times: ``"uniform"``, or ``"logit_normal"`` with location 0.5 and scale 1, which
            favours the middle and the late ones (Esser et al. 2024, arXiv:2403.03206, eq. 19, where time runs from
            images to noise, so that their location is -0.5).
        coupling: which noise becomes which image: ``"independent"``, or ``"minibatch_ot"``, the permutation of the
            batch with the least squared distance (OT-CFM: Tong et al. 2024, arXiv:2302.00482, section 3.3). In a
            conditional model noise is permuted within each class: sampling starts every class from all noise, and
            across classes each would learn to start from a part of it alone. Where several processes share a batch,
            each permutes its own part.
    """

    times: Literal["uniform", "logit_normal"]
    coupling: Literal["independent", "minibatch_ot"]

    def predict(
        self, network: nn.Module, x: Float[Tensor, "n c h w"], level: Tensor, labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The velocity: the network's output."""
        return network(x, level, labels)

    def losses(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        images: Float[Tensor, "n c h w"],
        conditions: Int64[Tensor, " n"] | None,
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Mean squared error of the velocity, per image."""
        noise = batch_normal(images.shape, images.device)
        if self.coupling == "minibatch_ot":
            noise = nearest_noise(noise, images, conditions)
        if self.times == "uniform":
            time = batch_uniform(len(images), images.device)
        else:
            time = batch_normal((len(images),), images.device).add_(0.5).sigmoid_()
        noisy = torch.lerp(noise, images, time.view(-1, 1, 1, 1))
        return (predict(noisy, time) - (images - noise)).square().flatten(1).mean(1), time

    def log_snr(self, level: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """2 log(t / (1 - t)), finite at both ends."""
        return 2.0 * level.logit(eps=1e-6)

    def denoised(
        self, x: Float[Tensor, "n c h w"], level: Float[Tensor, " n"], prediction: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """The end of the straight path: x + (1 - t) v."""
        return x + (1.0 - level.view(-1, 1, 1, 1)) * prediction


def nearest_noise(
    noise: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"], conditions: Int64[Tensor, " n"] | None
) -> Float[Tensor, "n c h w"]:
    """The noise in the order that makes the sum of squared distances to the images least.

    Where there are conditions, noise is exchanged among images of the same one only.
    """
    cost = torch.cdist(images.flatten(1), noise.flatten(1)).square()
    if conditions is not None:
        cost.masked_fill_(conditions.unsqueeze(1) != conditions, math.inf)
    _, order = linear_sum_assignment(cost.cpu().numpy())
    return noise[torch.from_numpy(order).to(noise.device)]


@final
@dataclass(frozen=True, kw_only=True)
class DDPM(Process):
    """Steps 0 (hardly any noise) to ``num_levels`` - 1 (hardly any image); a prediction is the noise.

    Ho et al. 2020 (arXiv:2006.11239), with the simple loss (eq. 14).

    Args:
        schedule: ``"linear"``, variances from 1e-4 to 0.02 for 1,000 levels (section 4), scaled for another number; or
            ``"cosine"`` (Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17).
        num_levels: how many.
    """

    schedule: Literal["linear", "cosine"]
    num_levels: int

    def __post_init__(self) -> None:
        if self.num_levels < 2:
            raise ConfigError(f"generator.process.num_levels must be at least 2, got {self.num_levels}")
        if self.schedule == "linear" and self.num_levels < 21:
            raise ConfigError(
                f"the linear schedule needs generator.process.num_levels of at least 21, got {self.num_levels}; with "
                "fewer its last variance would be 1 or more"
            )

    def predict(
        self, network: nn.Module, x: Float[Tensor, "n c h w"], level: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The noise: the network's output at time (step + 1) / ``num_levels``."""
        return network(x, (level + 1) / self.num_levels, labels)

    def losses(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        images: Float[Tensor, "n c h w"],
        conditions: Int64[Tensor, " n"] | None,
    ) -> tuple[Float[Tensor, " n"], Int64[Tensor, " n"]]:
        """Mean squared error of the noise, per image."""
        del conditions
        noise = batch_normal(images.shape, images.device)
        step = batch_integers(self.num_levels, len(images), images.device)
        alpha, sigma = self._amplitudes(step)
        noisy = alpha * images + sigma * noise
        return (predict(noisy, step) - noise).square().flatten(1).mean(1), step

    def log_snr(self, level: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Log of the signal's variance over the noise's."""
        return self.signal(level).logit().float()

    def denoised(
        self, x: Float[Tensor, "n c h w"], level: Int64[Tensor, " n"], prediction: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """The image without the predicted noise (arXiv:2006.11239, eq. 15)."""
        alpha, sigma = self._amplitudes(level)
        return (x - sigma * prediction) / alpha

    def signal(self, level: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The share of the image in the variance at a step, in (0, 1), float64: the product of 1 - beta up to it."""
        return _signals_on(level.device, self.schedule, self.num_levels)[level]

    def signals(self) -> list[float]:
        """``signal`` of all steps, as plain numbers."""
        return _signals(self.schedule, self.num_levels)

    def _amplitudes(self, level: Int64[Tensor, " n"]) -> tuple[Float[Tensor, "n 1 1 1"], Float[Tensor, "n 1 1 1"]]:
        """What the image and the noise are multiplied by."""
        signal = self.signal(level).view(-1, 1, 1, 1)
        return signal.sqrt().float(), (1.0 - signal).sqrt().float()


@functools.cache
def _signals(schedule: Literal["linear", "cosine"], num_levels: int) -> list[float]:
    """The cumulative product of 1 - beta over the steps; at the first ones it is close to 1."""
    if schedule == "linear":
        scale = 1000.0 / num_levels
        variances = np.linspace(scale * 1e-4, scale * 0.02, num_levels)
    else:
        time = np.arange(num_levels + 1) / num_levels
        signal = np.cos((time + 0.008) / 1.008 * math.pi / 2.0) ** 2
        variances = np.minimum(1.0 - signal[1:] / signal[:-1], 0.999)
    return np.cumprod(1.0 - variances).tolist()


@torch.compiler.assume_constant_result  # a compiler that looked into it would break off here
def _signals_on(device: torch.device, schedule: Literal["linear", "cosine"], num_levels: int) -> Float[Tensor, " k"]:
    """As a float64 tensor on a device."""
    return _table_of_signals(device, schedule, num_levels)


@functools.cache
def _table_of_signals(
    device: torch.device, schedule: Literal["linear", "cosine"], num_levels: int
) -> Float[Tensor, " k"]:
    return torch.tensor(_signals(schedule, num_levels), dtype=torch.float64, device=device)


@final
@dataclass(frozen=True, kw_only=True)
class EDM(Process):
    """Images plus noise of standard deviation sigma, which is the level; a prediction is the denoised image.

    Karras et al. 2022 (arXiv:2206.00364, table 1): the network's input and output are scaled so that both have unit
    variance at every level (as far as ``sigma_data`` is right), and the loss is weighted so that all levels count
    equally at first.

    Args:
        sigma_data: standard deviation of the images' values, as it is assumed to be; theirs is 0.5 for all data sets.
        log_mean: mean of log sigma in training.
        log_sd: standard deviation of log sigma in training.
    """

    sigma_data: float
    log_mean: float
    log_sd: float

    def __post_init__(self) -> None:
        if not self.sigma_data > 0 or not self.log_sd > 0:
            raise ConfigError(
                f"generator.process.sigma_data and log_sd must be above 0, got {self.sigma_data} and {self.log_sd}"
            )

    def predict(
        self, network: nn.Module, x: Float[Tensor, "n c h w"], level: Float[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The denoised image (eq. 7). The network sees log sigma as a time: 0.002 is time 0 and 80 is time 1."""
        sigma = level.view(-1, 1, 1, 1)
        total = (sigma.square() + self.sigma_data**2).sqrt()
        time = (level.log() - math.log(0.002)) / (math.log(80.0) - math.log(0.002))
        output = network(x / total, time, labels)
        return x * (self.sigma_data / total).square() + output * (sigma * self.sigma_data / total)

    def losses(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        images: Float[Tensor, "n c h w"],
        conditions: Int64[Tensor, " n"] | None,
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Weighted mean squared error of the denoised image, per image (eq. 8)."""
        del conditions
        noise = batch_normal(images.shape, images.device)
        sigma = batch_normal((len(images),), images.device).mul_(self.log_sd).add_(self.log_mean).exp_()
        error = (predict(images + sigma.view(-1, 1, 1, 1) * noise, sigma) - images).square().flatten(1).mean(1)
        return error * (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square(), sigma

    def log_snr(self, level: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """-2 log sigma."""
        return -2.0 * level.log()

    def denoised(
        self, x: Float[Tensor, "n c h w"], level: Float[Tensor, " n"], prediction: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """The prediction itself."""
        del x, level
        return prediction
