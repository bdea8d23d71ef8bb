"""Sampling of variational autoencoders."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.generators.base import Model
from collapse_bench.generators.vae import VAEModel
from collapse_bench.samplers.base import Sampler


@final
@dataclass(frozen=True, kw_only=True)
class DecoderSampler(Sampler):
    """Latents from the prior, then the decoder.

    Args:
        temperature: see ``Sampler``; of the latents, and of the draw of an image given its latents.
        truncation: see ``Sampler``; likewise.
        guidance: see ``Sampler``; what is guided is the decoder's output: logits, or locations.
        quantize: see ``Sampler``.
        batch_size: see ``Sampler``.
        output: ``"mean"`` gives the mean of the decoder's likelihood, ``"draw"`` an image drawn from it.
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
        output = self.guided(lambda labels: model.output(latents, labels), labels)
        if self.output == "mean":
            return model.likelihood.mean(output)
        return model.likelihood.draw(output, self.noise(seeds, model.spec.shape, draw=1))
