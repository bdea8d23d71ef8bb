"""What a decoder's output says of an image: Bernoulli, Gaussian or discretised logistic, each value on its own.

All log-likelihoods are in nats per image, and they are of different things. That of the discretised logistic is the
log-probability of the grey levels: minus D log(2) times the bits per dimension of D values. That of the Gaussian is a
log-density of images in [-1, 1], whose grey levels are 2 / 255 apart: plus D log(2 / 255) it is nearly the
log-probability of the levels, if the standard deviation is several of them. That of the Bernoulli is a
log-probability for black and white images alone; for grey ones it is minus the usual cross-entropy, and compares with
neither.
"""

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from collapse_bench.errors import ConfigError

HALF_LEVEL = 1.0 / 255.0
"""Half the distance of two grey levels in [-1, 1]."""

_MIN_LOG_SCALE = -6.0
_INITIAL_LOG_SCALE = -2.0


class Likelihood(nn.Module, ABC):
    """A distribution of images given a decoder's output, which has their shape."""

    @abstractmethod
    def log_prob(self, output: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Log-likelihood of images in nats, see the module for of what.

        Args:
            output: the decoder's.
            images: in [-1, 1].
        """

    @abstractmethod
    def mean(self, output: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The mean image in the scale of [-1, 1]."""

    @abstractmethod
    def draw(self, output: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """An image of this distribution.

        Args:
            output: the decoder's.
            noise: standard normal, of which a value's quantile decides that of the image; noise that is narrower
                makes images nearer to the likeliest one.
        """


@final
class Bernoulli(Likelihood):
    """Black or white values; the output is the logit of white (Kingma and Welling 2014, arXiv:1312.6114, eq. 11)."""

    def log_prob(self, output: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Minus the cross-entropy, in which a grey level in [0, 1] stands for the probability of white."""
        unit = (images + 1.0) / 2.0
        return -F.binary_cross_entropy_with_logits(output, unit, reduction="none").flatten(1).sum(1)

    def mean(self, output: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The probability of white, in [-1, 1]."""
        return 2.0 * torch.sigmoid(output) - 1.0

    def draw(self, output: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """-1 or 1; NaN where the output is."""
        mean = self.mean(output)
        on = torch.special.ndtr(noise.double()) < (mean + 1.0) / 2.0
        return torch.where(mean.isnan(), mean, 2.0 * on.float() - 1.0)


class ScaledLikelihood(Likelihood):
    """A distribution with a location, which is the decoder's output, and one scale for all values of all images.

    A learnt scale is a parameter like the networks' (the shared sigma of sigma-VAE: Rybkin et al. 2021,
    arXiv:2006.13202, section 3.1). It stays above exp(-6), a third of a grey level, by a softplus.

    Args:
        scale: in units of images in [-1, 1]; ``None`` learns it, from about exp(-2) on.
    """

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.is_learnt = scale is None
        if scale is None:
            self.free_log_scale = nn.Parameter(torch.tensor(_INITIAL_LOG_SCALE))
        else:
            self.register_buffer("stated_log_scale", torch.tensor(math.log(scale)))

    @property
    def log_scale(self) -> Float[Tensor, ""]:
        """Log of the scale."""
        if self.is_learnt:
            return _MIN_LOG_SCALE + F.softplus(self.free_log_scale - _MIN_LOG_SCALE)
        return self.get_buffer("stated_log_scale")


@final
class Gaussian(ScaledLikelihood):
    """A normal distribution of each value; the scale is its standard deviation.

    With a stated scale s the loss is the squared error divided by 2 s^2, up to a constant.
    """

    def log_prob(self, output: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """The log-density of images in the scale of [-1, 1]."""
        error = (images - output.float()) / self.log_scale.exp()
        return (-0.5 * error.square() - self.log_scale - 0.5 * math.log(2.0 * math.pi)).flatten(1).sum(1)

    def mean(self, output: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The output; it may lie outside [-1, 1]."""
        return output

    def draw(self, output: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The mean with noise; it may lie outside [-1, 1]."""
        return output + self.log_scale.exp() * noise


@final
class DiscretisedLogistic(ScaledLikelihood):
    """Grey levels 0..255 with the probability that a logistic distribution rounds to them.

    Salimans et al. 2017 (arXiv:1701.05517, eq. 2, with one component), after Kingma et al. 2016 (arXiv:1606.04934). All
    that lies below level 0 belongs to it, and all above level 255 to that one, so the 256 probabilities add up to 1.
    """

    def log_prob(self, output: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """The log-probability of the nearest grey levels."""
        scale = self.log_scale.exp()
        level = images.add(1.0).mul(127.5).round().clamp(0.0, 255.0)
        distance = level / 127.5 - 1.0 - output.float()
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)); an edge level lacks one of the first two
        # factors, and the third.
        below_upper = F.logsigmoid((distance + HALF_LEVEL) / scale)
        above_lower = F.logsigmoid((HALF_LEVEL - distance) / scale)
        both = torch.log(-torch.expm1(-2.0 * HALF_LEVEL / scale))
        inner = torch.where(level == 0, below_upper, below_upper + above_lower + both)
        return torch.where(level == 255, above_lower, inner).flatten(1).sum(1)

    def mean(self, output: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The mean of the logistic distribution cut off at -1 and 1.

        It is within half a grey level of the mean of the levels, of which it is the limit for many levels, and costs
        two functions instead of 255.
        """
        scale = self.log_scale.exp()
        return scale * (F.softplus((output + 1.0) / scale) - F.softplus((output - 1.0) / scale)) - 1.0

    def draw(self, output: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """A grey level, in [-1, 1]."""
        uniform = torch.special.ndtr(noise.double())
        level = (output + self.log_scale.exp() * uniform.logit() + 1.0).mul(127.5).round().clamp(0.0, 255.0)
        return level.float() / 127.5 - 1.0


def make_likelihood(name: str, scale: float | None) -> Likelihood:
    """The likelihood of a name.

    Args:
        name: ``"bernoulli"``, ``"gaussian"`` or ``"discretised_logistic"``.
        scale: see ``ScaledLikelihood``.

    Raises:
        ConfigError: if the scale is not above 0, or a Bernoulli is given one.
    """
    if scale is not None and not scale > 0:
        raise ConfigError(f"generator.decoder_scale must be above 0 (or null, which learns it), got {scale}")
    if name == "bernoulli":
        if scale is not None:
            raise ConfigError(
                "generator.decoder_scale is that of a Gaussian or discretised-logistic decoder, and "
                "generator.likelihood=bernoulli has none; set it to null"
            )
        return Bernoulli()
    return Gaussian(scale) if name == "gaussian" else DiscretisedLogistic(scale)
