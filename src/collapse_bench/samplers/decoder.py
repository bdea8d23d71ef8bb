"""Sampling of variational autoencoders."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.generators.base import Model
from collapse_bench.generators.vae import VAEModel
from collapse_bench.samplers.base import Sampler
from collapse_bench.seeding import image_uniform


@final
@dataclass(frozen=True, kw_only=True)
class DecoderSampler(Sampler):
    """Latents from the prior, then the decoder.

    Args:
        temperature: standard deviation of the latents.
        quantize: see ``Sampler``.
        batch_size: see ``Sampler``.
        output: ``"mean"`` gives the decoder's mean, ``"draw"`` black or white pixels drawn with it as probability.
    """

    output: Literal["mean", "draw"]

    model_type: ClassVar[type[Model]] = VAEModel

    @property
    def num_outputs(self) -> int:
        """One pass of the decoder."""
        return 1

    def sample_batch(
        self, model: Model, seeds: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """See ``Sampler.sample_batch``."""
        assert isinstance(model, VAEModel)
        latents = self.noise(seeds, (model.num_latents,), draw=0)
        mean = model.decode(latents, labels)
        if self.output == "mean":
            return mean
        on = image_uniform(seeds, model.spec.shape, draw=1) < (mean + 1.0) / 2.0
        return 2.0 * on.float() - 1.0
