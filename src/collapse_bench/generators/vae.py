"""Variational autoencoders (Kingma and Welling 2014, arXiv:1312.6114)."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Generator, Model
from collapse_bench.networks.autoencoder import ConvAutoencoder, MLPAutoencoder
from collapse_bench.pool import Pool
from collapse_bench.training import FitJob, Losses, Optimisation, train
from collapse_bench.types import ImageSpec


class VAEModel(Model):
    """A VAE whose decoder gives the Bernoulli mean of every value of an image in [0, 1]."""

    def __init__(self, spec: ImageSpec, recipe: "VAE") -> None:
        super().__init__(spec, recipe.conditional)
        self.num_latents = recipe.num_latents
        self.beta = recipe.beta
        self.encoder, self.decoder = recipe.network.build(spec, recipe.num_latents, self.num_conditions)

    def loss(self, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The negative evidence lower bound of each image in nats, with the KL term weighted by beta.

        Args:
            images: in [-1, 1].
            labels: classes; ignored by an unconditional model.
        """
        unit = (images + 1.0) / 2.0
        mean, log_variance = self.posterior(images)
        latents = torch.addcmul(mean, torch.exp(0.5 * log_variance), torch.randn_like(mean))
        logits = self._logits(latents, labels)
        reconstruction = F.binary_cross_entropy_with_logits(logits, unit, reduction="none").flatten(1).sum(1)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(1)
        return reconstruction + self.beta * divergence

    def posterior(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n l"], Float[Tensor, "n l"]]:
        """Mean and log-variance of the latents of each image, which is in [-1, 1]."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, latents: Float[Tensor, "n l"], labels: Int64[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """The decoder's mean, in [-1, 1]."""
        return 2.0 * torch.sigmoid(self._logits(latents, labels)) - 1.0

    def _logits(self, latents: Tensor, labels: Tensor) -> Tensor:
        if self.conditional:
            latents = torch.cat([latents, F.one_hot(labels, self.num_conditions).to(latents.dtype)], dim=1)
        return self.decoder(latents)


@final
@dataclass(frozen=True, kw_only=True)
class VAE(Generator):
    """A variational autoencoder with a standard normal prior and a Bernoulli decoder.

    Args:
        start: warm or from scratch, see ``Generator``.
        network: encoder and decoder.
        num_latents: length of the latent vector.
        beta: weight of the KL term; 1 is the evidence lower bound.
        conditional: the decoder sees the class.
        optimisation: how it is fitted.
    """

    network: MLPAutoencoder | ConvAutoencoder
    num_latents: int
    beta: float
    conditional: bool
    optimisation: Optimisation

    def __post_init__(self) -> None:
        if self.num_latents < 1:
            raise ConfigError(f"generator.num_latents must be at least 1, got {self.num_latents}")
        if self.beta < 0:
            raise ConfigError(f"generator.beta must not be negative, got {self.beta}")

    def empty_model(self, spec: ImageSpec) -> VAEModel:
        """An unfitted VAE.

        Raises:
            ConfigError: if the images have no grey levels.
        """
        if spec.dtype != "uint8":
            raise ConfigError("generator=vae needs pictures; this data set has none, use generator=gaussian")
        return VAEModel(spec, self)

    def fit_model(self, model: Model, pool: Pool, weights: Float[Tensor, " n"], job: FitJob) -> Losses:
        """Maximises the evidence lower bound by gradient descent; see ``Generator.fit_model``."""
        assert isinstance(model, VAEModel)
        model.learn_label_shares(pool, weights)
        return train(model, model.loss, pool, weights, self.optimisation, job)
