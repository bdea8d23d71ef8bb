"""The closed-form Gaussian generator, on which the laws of the self-consuming loop are exact."""

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from collapse_bench.errors import ConfigError, TrainingError
from collapse_bench.generators.base import Generator, Model
from collapse_bench.pool import Pool
from collapse_bench.training import FitJob, Losses
from collapse_bench.types import ImageSpec, to_float


class GaussianModel(Model):
    """A Gaussian on flattened images: ``mean`` + ``factor`` @ standard normal.

    The factor is a matrix for a full covariance and a vector of standard deviations otherwise.
    """

    def __init__(self, spec: ImageSpec, full: bool) -> None:
        super().__init__(spec, conditional=False)
        d = spec.num_values
        self.mean = nn.Parameter(torch.zeros(d, dtype=torch.float64), requires_grad=False)
        factor = torch.eye(d) if full else torch.ones(d)
        self.factor = nn.Parameter(factor.double(), requires_grad=False)

    def loss(self, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The negative log-likelihood of each image in nats; infinite for a covariance that is singular to rounding.

        Args:
            images: of any range.
            labels: ignored.
        """
        factor = self.factor if self.factor.ndim == 2 else self.factor.diag()
        spreads = torch.linalg.svdvals(factor)
        if spreads[-1] <= len(spreads) * torch.finfo(spreads.dtype).eps * spreads[0]:
            return torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)
        whitened = torch.linalg.solve(factor, (images.flatten(1).double() - self.mean).T)
        log_determinant = spreads.log().sum()
        return 0.5 * (whitened.square().sum(0) + self.spec.num_values * math.log(2 * math.pi)) + log_determinant

    def from_noise(self, noise: Float[Tensor, "n d"]) -> Float[Tensor, "n c h w"]:
        """Images for standard normal ``noise``."""
        noise = noise.double()
        spread = noise @ self.factor.T if self.factor.ndim == 2 else noise * self.factor
        return (self.mean + spread).float().view(-1, *self.spec.shape)


@final
@dataclass(frozen=True, kw_only=True)
class Gaussian(Generator):
    """A Gaussian fitted by maximum likelihood; there is nothing to warm-start and no gradient step.

    Under ``replace`` on n samples a chain obeys E[variance after G fits] = ((n-1)/n)^G (unbiased: E[sd] = c4(n)^G).

    Args:
        start: only ``"scratch"``.
        covariance: ``"full"``, ``"diagonal"``, or ``"identity"`` (only the mean is fitted).
        unbiased: divide by n - 1 instead of n.
    """

    start: Literal["warm", "scratch"] = "scratch"
    covariance: Literal["full", "diagonal", "identity"] = "full"
    unbiased: bool = False

    def __post_init__(self) -> None:
        if self.start != "scratch":
            raise ConfigError("generator.start=warm makes no sense for the closed-form Gaussian; use start=scratch")

    @property
    def takes_steps(self) -> bool:
        """No."""
        return False

    def empty_model(self, spec: ImageSpec) -> GaussianModel:
        """A standard normal distribution."""
        return GaussianModel(spec, full=self.covariance == "full")

    @torch.no_grad()
    def fit_model(self, model: Model, pool: Pool, weights: Float[Tensor, " n"], job: FitJob) -> Losses:
        """Sets the mean and the covariance to their (weighted) estimates; no steps, no losses.

        Raises:
            TrainingError: if fewer than two images have a positive weight.
        """
        assert isinstance(model, GaussianModel)
        present = weights > 0
        if int(present.sum()) < 2:
            raise TrainingError(f"a Gaussian needs at least two images with a positive weight, {job.what} has fewer")
        x = to_float(pool.images[present]).flatten(1).double()
        w = weights[present].double()
        w = w / w.sum()
        mean = w @ x
        model.mean.copy_(mean)
        if self.covariance == "identity":
            return ()
        # For equal weights sum(w^2) is 1/n, so this is Bessel's n / (n - 1).
        correction = 1.0 / (1.0 - (w**2).sum()) if self.unbiased else 1.0
        scaled = (x - mean) * (w * correction).sqrt().unsqueeze(1)
        if self.covariance == "diagonal":
            model.factor.copy_((scaled**2).sum(0).sqrt())
        else:
            # The symmetric square root exists also where the covariance is singular (fewer images than values).
            values, vectors = torch.linalg.eigh(scaled.T @ scaled)
            model.factor.copy_(vectors * values.clamp(min=0).sqrt() @ vectors.T)
        return ()
