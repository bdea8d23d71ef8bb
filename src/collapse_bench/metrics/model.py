"""Numbers of a model itself: what it makes of held-out real images, and what the first model makes of its samples."""

from abc import abstractmethod
from typing import ClassVar, Literal, final

import torch
import torchmetrics
from jaxtyping import Float
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from collapse_bench.distributed import gathered, is_shared, own_part
from collapse_bench.errors import ConfigError, MetricError
from collapse_bench.generators.base import Model
from collapse_bench.generators.vae import VAEModel
from collapse_bench.metrics.base import Estimate
from collapse_bench.metrics.functional.intervals import normal_interval
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.seeding import isolated_rng, part_of_batch
from collapse_bench.types import to_float

_BATCH_SIZE = 500


class ModelMetric(torchmetrics.Metric):
    """Judges a model by one row of numbers per image; states are concatenated over processes by torchmetrics."""

    of: ClassVar[Literal["reference", "samples"]]
    """Which images: the held-out reference, or the model's samples (and the control set, which is their floor)."""

    num_images: int | None = None
    """How many of them, the first ones; ``None`` is all."""

    full_state_update: bool | None = False
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__(distributed_available_fn=is_shared)
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    @final
    @torch.no_grad()
    def update(self, images: ImageSet, *, model: Model, first: Model) -> None:
        """Adds images, of which each of several processes looks at a part.

        Nothing happens where the number is not defined for this family of models.

        Args:
            images: real or sampled, with ``images`` and ``labels``.
            model: the model of this generation.
            first: the model of generation 0.

        Raises:
            MetricError: if a number is NaN.
        """
        batches = [images.take(slice(k, k + _BATCH_SIZE)) for k in range(0, len(images), _BATCH_SIZE)]
        parts = [own_part(len(batch)) for batch in batches]

        def add() -> None:
            # The same noise in every generation, so that differences are the models', and for any number of processes
            # (which pair it with images each for itself in a flow with minibatch_ot).
            rng = torch.Generator(model.device).manual_seed(0)
            with isolated_rng(0):
                for batch, own in zip(batches, parts, strict=True):
                    some = own if own.start < own.stop else slice(1)  # for the width of the rows
                    pixels, labels = batch.images[some].to(model.device), batch.labels[some].to(model.device)
                    with part_of_batch(some, len(batch), rng):
                        rows = self.of_batch(to_float(pixels), labels, model, first)
                    if rows is None:
                        return
                    if torch.isnan(rows).any():
                        raise MetricError(f"{type(self).__name__}: the model gives NaN for some images")
                    self.rows.append(rows[: own.stop - own.start].double().cpu())

        gathered(add, type(self).__name__)

    @final
    def compute(self) -> dict[str, Estimate]:
        """The metric's numbers by name; none where they are not defined for this family of models."""
        return self.score(dim_zero_cat(self.rows)) if len(self.rows) else {}

    @abstractmethod
    def of_batch(
        self, images: Float[Tensor, "n c h w"], labels: Tensor, model: Model, first: Model
    ) -> Float[Tensor, "n k"] | None:
        """A row of numbers per image in [-1, 1]; ``None`` where they are not defined for this family."""

    @abstractmethod
    def score(self, rows: Float[Tensor, "n k"]) -> dict[str, Estimate]:
        """The metric's numbers by name, from the rows of all images."""


@final
class HeldOutLoss(ModelMetric):
    """``held_out_loss``: the loss of the family on the held-out reference, per image; lower is better.

    For a VAE the negative evidence lower bound (nats per image, the KL term weighted by its beta; what the likelihood
    is of depends on the decoder), for flow matching, DDPM and EDM the process's error (of the velocity, the noise, or
    the weighted denoised image), for the Gaussian the negative log-likelihood (nats per image). It compares generations
    of one family, never two families. The same noise is drawn in every generation.

    Args:
        num_draws: draws of noise (and time) per image.

    Raises:
        ConfigError: if ``num_draws`` is below 1.
    """

    of: ClassVar[Literal["reference", "samples"]] = "reference"

    def __init__(self, num_draws: int = 4) -> None:
        super().__init__()
        if num_draws < 1:
            raise ConfigError(f"HeldOutLoss.num_draws must be at least 1, got {num_draws}")
        self.num_draws = num_draws

    def of_batch(
        self, images: Float[Tensor, "n c h w"], labels: Tensor, model: Model, first: Model
    ) -> Float[Tensor, "n 1"]:
        """The mean loss of each image over the draws."""
        draws = torch.stack([model.loss(images, labels) for _ in range(self.num_draws)])
        return draws.double().mean(0).unsqueeze(1)

    def score(self, rows: Float[Tensor, "n 1"]) -> dict[str, Estimate]:
        """``held_out_loss`` with its 95 % interval over the reference images."""
        return {"held_out_loss": _mean(rows[:, 0], "lower")}


@final
class ReconstructionError(ModelMetric):
    """``reconstruction_error``: mean squared error of held-out real images through a VAE; lower is better.

    The latents are the mean of the posterior, the image is the mean of the decoder, the unit is that of images in
    [-1, 1]. Only autoencoders have it.
    """

    of: ClassVar[Literal["reference", "samples"]] = "reference"

    def of_batch(
        self, images: Float[Tensor, "n c h w"], labels: Tensor, model: Model, first: Model
    ) -> Float[Tensor, "n 1"] | None:
        """The mean squared error of each image."""
        if not isinstance(model, VAEModel):
            return None
        mean, _ = model.posterior(images, labels)
        return (model.decode(mean, labels) - images).square().flatten(1).mean(1, keepdim=True)

    def score(self, rows: Float[Tensor, "n 1"]) -> dict[str, Estimate]:
        """``reconstruction_error`` with its 95 % interval over the reference images."""
        return {"reconstruction_error": _mean(rows[:, 0], "lower")}


@final
class LatentSpread(ModelMetric):
    """``latent_sd``: standard deviation of samples in the latent space of generation 0's encoder; best at the floor.

    Shumailov et al. 2024, "AI models collapse when trained on recursively generated data", Nature 631: every
    generation's samples are encoded by the VAE that was fitted on real images. The number is the square root of the
    mean over latent dimensions of the variance of the posterior means. Only autoencoders have it.

    ``latent_mean``: root mean square over latent dimensions of the mean of the posterior means: how far samples have
    moved from the middle of the prior, in the same units. Of n images that have not moved it is about ``latent_sd``
    divided by the square root of n.

    Args:
        num_images: images that are encoded, the first ones; ``None`` is all that are measured. The study encodes 100.

    Raises:
        ConfigError: if ``num_images`` is below 2.
    """

    of: ClassVar[Literal["reference", "samples"]] = "samples"

    def __init__(self, num_images: int | None = None) -> None:
        super().__init__()
        if num_images is not None and num_images < 2:
            raise ConfigError(f"LatentSpread.num_images must be at least 2 (or null for all), got {num_images}")
        self.num_images = num_images

    def of_batch(
        self, images: Float[Tensor, "n c h w"], labels: Tensor, model: Model, first: Model
    ) -> Float[Tensor, "n l"] | None:
        """The posterior mean of each image under the first model."""
        return first.posterior(images, labels)[0] if isinstance(first, VAEModel) else None

    def score(self, rows: Float[Tensor, "n l"]) -> dict[str, Estimate]:
        """``latent_sd``, NaN for a single image, and ``latent_mean``."""
        return {
            "latent_sd": Estimate(rows.var(0).mean().sqrt().item(), better="floor"),
            "latent_mean": Estimate(rows.mean(0).square().mean().sqrt().item(), better="floor"),
        }


def _mean(values: Float[Tensor, " n"], better: str) -> Estimate:
    mean, standard_error = values.mean().item(), values.std().item() / len(values) ** 0.5
    return Estimate(mean, better, *normal_interval(mean, standard_error))
