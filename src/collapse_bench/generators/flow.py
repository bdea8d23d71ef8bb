"""Flow matching (Lipman et al. 2023, arXiv:2210.02747) on straight paths (Liu et al. 2023, arXiv:2209.03003)."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.generators.base import Generator, Model, NoisyModel
from collapse_bench.networks.mlp import ResidualMLP
from collapse_bench.networks.unet import UNet
from collapse_bench.pool import Pool
from collapse_bench.training import FitJob, Losses, Optimisation, train
from collapse_bench.types import ImageSpec


def log_snr(time: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Log signal-to-noise ratio 2 log(t / (1 - t)) of straight paths at times in [0, 1], finite at both ends."""
    return 2.0 * time.logit(eps=1e-6)


class VelocityModel(NoisyModel):
    """A velocity field that carries standard normal noise (time 0) to images (time 1) along straight paths.

    Args:
        spec: images that it makes.
        conditional: whether samples are made for a given class.
        times: how training draws times, see ``Flow``.
    """

    def __init__(self, spec: ImageSpec, conditional: bool, times: Literal["uniform", "logit_normal"]) -> None:
        super().__init__(spec, conditional)
        self.times: Literal["uniform", "logit_normal"] = times

    @abstractmethod
    def velocity(
        self, x: Float[Tensor, "n c h w"], time: Float[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The velocity at ``x`` and ``time`` in [0, 1]; labels are ignored by an unconditional model."""

    def loss(
        self,
        images: Float[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        max_log_snr: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, " n"]:
        """Mean squared error of the velocity at a random time, per image (arXiv:2210.02747, eq. 23, sigma_min 0).

        Args:
            images: in [-1, 1].
            labels: classes; ignored by an unconditional network.
            max_log_snr: see ``NoisyModel.loss``.
        """
        noise = torch.randn_like(images)
        if self.times == "uniform":
            time = torch.rand(len(images), device=images.device)
        else:
            time = torch.randn(len(images), device=images.device).add_(0.5).sigmoid_()
        noisy = torch.lerp(noise, images, time.view(-1, 1, 1, 1))
        losses = (self.velocity(noisy, time, labels) - (images - noise)).square().flatten(1).mean(1)
        return losses if max_log_snr is None else losses * (log_snr(time) <= max_log_snr)


class FlowModel(VelocityModel):
    """A velocity field that is one network."""

    def __init__(self, spec: ImageSpec, recipe: "Flow") -> None:
        super().__init__(spec, recipe.conditional, recipe.times)
        self.network = recipe.network.build(spec, self.num_conditions)

    def velocity(
        self, x: Float[Tensor, "n c h w"], time: Float[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The network's output."""
        return self.network(x, time, labels)


@final
@dataclass(frozen=True, kw_only=True)
class Flow(Generator):
    """A flow-matching model.

    Args:
        start: warm or from scratch, see ``Generator``.
        network: the velocity field.
        conditional: the network sees the class.
        times: how training draws times: ``"uniform"``, or ``"logit_normal"`` with location 0.5 and scale 1, which
            favours the middle and the late ones (Esser et al. 2024, arXiv:2403.03206, eq. 19).
        optimisation: how it is fitted.
    """

    network: ResidualMLP | UNet
    conditional: bool
    times: Literal["uniform", "logit_normal"]
    optimisation: Optimisation

    def empty_model(self, spec: ImageSpec) -> FlowModel:
        """An unfitted velocity field."""
        return FlowModel(spec, self)

    def fit_model(self, model: Model, pool: Pool, weights: Float[Tensor, " n"], job: FitJob) -> Losses:
        """Minimises the flow-matching loss by gradient descent; see ``Generator.fit_model``."""
        assert isinstance(model, FlowModel)
        model.learn_label_shares(pool, weights)
        return train(model, model.loss, pool, weights, self.optimisation, job)
