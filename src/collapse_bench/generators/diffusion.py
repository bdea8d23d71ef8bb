"""Models that turn noise into images step by step: diffusion and flow matching."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.generators.base import Model, TrainedGenerator, check_condition_dropout, drop_conditions
from collapse_bench.generators.processes import DDPM, EDM, FlowMatching, Process
from collapse_bench.networks.mlp import ResidualMLP
from collapse_bench.networks.unet import UNet
from collapse_bench.pool import Pool
from collapse_bench.training import FitJob, Losses, train
from collapse_bench.types import ImageSpec


class NoisyModel(Model):
    """A model of images at all noise levels of a process.

    Noise levels of all processes compare by their log signal-to-noise ratio log(alpha^2 / sigma^2), where a noisy
    image is alpha image + sigma standard normal noise (Kingma et al. 2021, arXiv:2107.00630, eq. 2).

    Args:
        spec: images that it makes.
        conditional: whether samples are made for a given class.
        process: how images become noise.
        condition_dropout: how often training leaves the class out.
    """

    def __init__(self, spec: ImageSpec, conditional: bool, process: Process, condition_dropout: float) -> None:
        super().__init__(spec, conditional)
        self.process = process
        self.condition_dropout = condition_dropout

    @property
    def family(self) -> str:
        """The name of the process."""
        return type(self.process).__name__

    @property
    def has_guidance(self) -> bool:
        """Whether it has learnt to predict with and without a class."""
        return self.conditional and self.condition_dropout > 0

    @abstractmethod
    def predict(
        self, x: Float[Tensor, "n c h w"], level: Tensor, labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """What the process predicts at noisy images.

        Args:
            x: noisy images.
            level: noise level of each, in the process's own terms.
            labels: classes; ``UNLABELLED`` asks for no class; ignored by an unconditional model.
        """

    def loss(
        self,
        images: Float[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        max_log_snr: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, " n"]:
        """The process's error at one random noise level per image.

        Args:
            images: in [-1, 1].
            labels: classes; ignored by an unconditional model.
            max_log_snr: the loss of an image whose level has a higher log signal-to-noise ratio is multiplied by 0;
                +inf leaves it as it is at every level, -inf at none. ``None`` is +inf for all images.
        """
        conditions = labels if self.conditional else None
        if self.training and self.has_guidance:
            labels = drop_conditions(labels, self.condition_dropout)
        losses, level = self.process.losses(lambda x, level: self.predict(x, level, labels), images, conditions)
        return losses if max_log_snr is None else losses * (self.process.log_snr(level) <= max_log_snr)


class DiffusionModel(NoisyModel):
    """A process with one network."""

    def __init__(self, spec: ImageSpec, recipe: "Diffusion") -> None:
        super().__init__(spec, recipe.conditional, recipe.process, recipe.condition_dropout)
        self.network = recipe.network.build(spec, self.num_conditions)

    def predict(
        self, x: Float[Tensor, "n c h w"], level: Tensor, labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """What the process makes of the network's output."""
        return self.process.predict(self.network, x, level, labels)


@final
@dataclass(frozen=True, kw_only=True)
class Diffusion(TrainedGenerator):
    """A diffusion or flow-matching model.

    Args:
        start: warm or from scratch, see ``Generator``.
        network: what predicts.
        process: how images become noise, and what is predicted.
        conditional: the network sees the class.
        condition_dropout: how often training leaves the class out, in [0, 1); above 0 the model can be guided (Ho and
            Salimans 2022, arXiv:2207.12598, algorithm 1).
        optimisation: how it is fitted.
    """

    network: ResidualMLP | UNet
    process: FlowMatching | DDPM | EDM
    conditional: bool
    condition_dropout: float

    def __post_init__(self) -> None:
        check_condition_dropout(self.condition_dropout, self.conditional)

    def empty_model(self, spec: ImageSpec) -> DiffusionModel:
        """An unfitted model."""
        return DiffusionModel(spec, self)

    def fit_model(self, model: Model, pool: Pool, weights: Float[Tensor, " n"], job: FitJob) -> Losses:
        """Minimises the process's loss by gradient descent; see ``Generator.fit_model``."""
        assert isinstance(model, DiffusionModel)
        model.learn_label_shares(pool, weights)
        return train(model, model.loss, pool, weights, self.optimisation, job)
