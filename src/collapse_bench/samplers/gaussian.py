"""Sampling of the closed-form Gaussian."""

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.generators.base import Model
from collapse_bench.generators.gaussian import GaussianModel
from collapse_bench.samplers.base import Sampler


@final
@dataclass(frozen=True, kw_only=True)
class GaussianSampler(Sampler):
    """Exact draws; temperature t multiplies the variance by t^2."""

    model_type: ClassVar[type[Model]] = GaussianModel

    @property
    def num_outputs(self) -> int:
        """No network."""
        return 0

    def sample_batch(
        self, model: Model, seeds: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """See ``Sampler.sample_batch``."""
        assert isinstance(model, GaussianModel)
        return model.from_noise(self.noise(seeds, (model.spec.num_values,), draw=0))
