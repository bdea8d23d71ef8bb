"""Variational autoencoders (Kingma and Welling 2014, arXiv:1312.6114), also with classes (Sohn et al. 2015)."""

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model, TrainedGenerator, check_condition_dropout, drop_conditions
from collapse_bench.generators.likelihoods import make_likelihood
from collapse_bench.networks.autoencoder import ConvAutoencoder, MLPAutoencoder
from collapse_bench.pool import Pool
from collapse_bench.seeding import batch_normal
from collapse_bench.training import FitJob, Losses, train
from collapse_bench.types import ImageSpec


class VAEModel(Model):
    """A VAE: an encoder, a decoder, and what the decoder's output says of an image."""

    def __init__(self, spec: ImageSpec, recipe: "VAE") -> None:
        super().__init__(spec, recipe.conditional)
        self.num_latents = recipe.num_latents
        self.beta = recipe.beta
        self.encoder_sees_class = recipe.encoder_sees_class
        self.condition_dropout = recipe.condition_dropout
        self.encoder, self.decoder = recipe.network.build(
            spec, recipe.num_latents, self.num_conditions * recipe.encoder_sees_class, self.num_conditions
        )
        self.likelihood = make_likelihood(recipe.likelihood, recipe.decoder_scale)

    @property
    def has_guidance(self) -> bool:
        """Whether it has learnt to decode with and without a class."""
        return self.conditional and self.condition_dropout > 0

    def loss(self, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The negative evidence lower bound of each image in nats, with the KL term weighted by beta.

        Args:
            images: in [-1, 1].
            labels: classes; ``UNLABELLED`` is no class; ignored by an unconditional model.
        """
        if self.training and self.has_guidance:
            labels = drop_conditions(labels, self.condition_dropout)
        mean, log_variance = self.posterior(images, labels)
        noise = batch_normal(mean.shape, mean.device, mean.dtype)
        latents = torch.addcmul(mean, torch.exp(0.5 * log_variance), noise)
        reconstruction = -self.likelihood.log_prob(self.output(latents, labels), images)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(1)
        return reconstruction + self.beta * divergence

    def posterior(
        self, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n l"], Float[Tensor, "n l"]]:
        """Mean and log-variance of the latents of each image, in float32: bfloat16 would round a small KL term away.

        Args:
            images: in [-1, 1].
            labels: classes; ignored by an encoder that does not see them.
        """
        condition = self._one_hot(labels) if self.encoder_sees_class else images.new_zeros(len(images), 0)
        mean, log_variance = self.encoder(images, condition).float().chunk(2, dim=1)
        return mean, log_variance

    def output(self, latents: Float[Tensor, "n l"], labels: Int64[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """What the decoder tells the likelihood: logits or locations.

        Args:
            latents: standard normal under the prior.
            labels: classes; ``UNLABELLED`` is no class; ignored by an unconditional model.
        """
        return self.decoder(torch.cat([latents, self._one_hot(labels).to(latents.dtype)], dim=1))

    def decode(self, latents: Float[Tensor, "n l"], labels: Int64[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """The decoder's mean, in the scale of [-1, 1]; the arguments are those of ``output``."""
        return self.likelihood.mean(self.output(latents, labels))

    def _one_hot(self, labels: Int64[Tensor, " n"]) -> Float[Tensor, "n k"]:
        """1 at the class of each image; all zeros for ``UNLABELLED``, and no columns for an unconditional model."""
        return (labels.unsqueeze(1) == torch.arange(self.num_conditions, device=labels.device)).float()


@final
@dataclass(frozen=True, kw_only=True)
class VAE(TrainedGenerator):
    """A variational autoencoder with a standard normal prior, which does not depend on the class.

    Args:
        start: warm or from scratch, see ``Generator``.
        network: encoder and decoder.
        num_latents: length of the latent vector.
        beta: weight of the KL term; 1 is the evidence lower bound (others: Higgins et al. 2017, beta-VAE).
        likelihood: what the decoder's output says of an image: ``"bernoulli"``, ``"gaussian"`` or
            ``"discretised_logistic"``, see ``likelihoods``.
        decoder_scale: standard deviation of a Gaussian or scale of a discretised-logistic decoder, in units of images
            in [-1, 1], the same for all values; ``None`` learns it. A Bernoulli has none.
        conditional: the decoder sees the class.
        encoder_sees_class: the encoder sees it too, q(z | x, y), as in the conditional VAE of Sohn et al., "Learning
            structured output representation using deep conditional generative models", NeurIPS 2015.
        condition_dropout: how often training leaves the class out, in [0, 1); above 0 the decoder can be guided as
            diffusion is, see ``drop_conditions``.
        optimisation: how it is fitted.
    """

    network: MLPAutoencoder | ConvAutoencoder
    num_latents: int
    beta: float
    likelihood: Literal["bernoulli", "gaussian", "discretised_logistic"]
    decoder_scale: float | None
    conditional: bool
    encoder_sees_class: bool
    condition_dropout: float

    def __post_init__(self) -> None:
        if self.num_latents < 1:
            raise ConfigError(f"generator.num_latents must be at least 1, got {self.num_latents}")
        if self.beta < 0:
            raise ConfigError(f"generator.beta must not be negative, got {self.beta}")
        if self.encoder_sees_class and not self.conditional:
            raise ConfigError("generator.encoder_sees_class needs a class, and generator.conditional is false")
        check_condition_dropout(self.condition_dropout, self.conditional)
        make_likelihood(self.likelihood, self.decoder_scale)

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
