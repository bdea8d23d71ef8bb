"""What a generator is: a family of models and how one of them is fitted to a weighted pool."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.seeding import image_uniform
from collapse_bench.training import FitJob, Losses
from collapse_bench.types import ImageSpec

LABEL_DRAW = 1 << 20
"""Number of the per-image draw that decides the condition; samplers count their own draws from 0."""


class Model(nn.Module, ABC):
    """A model of one family. Everything that sampling needs is in its state dictionary.

    Args:
        spec: images that it makes.
        conditional: whether samples are made for a given class.
    """

    label_shares: Tensor

    num_networks: ClassVar[int] = 1
    """Networks that are evaluated in one forward pass of the model."""

    def __init__(self, spec: ImageSpec, conditional: bool) -> None:
        super().__init__()
        self.spec = spec
        self.conditional = conditional
        self.register_buffer("label_shares", torch.full((spec.num_classes,), 1.0 / spec.num_classes).double())

    @abstractmethod
    def loss(self, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """What the family minimises, one value per image; may draw from torch's global random state.

        Args:
            images: in [-1, 1] (or unbounded where the data has no grey levels).
            labels: classes; ignored by an unconditional model.
        """

    @property
    def num_parameters(self) -> int:
        """Number of fitted numbers."""
        return sum(p.numel() for p in self.parameters())

    @property
    def num_conditions(self) -> int:
        """Classes that the model is conditioned on; 0 for an unconditional one."""
        return self.spec.num_classes if self.conditional else 0

    @property
    def device(self) -> torch.device:
        """Where the model's tensors are."""
        return self.label_shares.device

    def learn_label_shares(self, pool: Pool, weights: Float[Tensor, " n"]) -> None:
        """Takes the class shares that a conditional model asks for from its training pool."""
        if self.conditional:
            counts = pool.class_weights(weights, self.spec.num_classes)
            self.label_shares.copy_(counts / counts.sum())

    def draw_labels(self, seeds: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """The condition of each image, a function of its seed; ``UNLABELLED`` for an unconditional model."""
        if not self.conditional:
            return torch.full_like(seeds, UNLABELLED)
        uniform = image_uniform(seeds, (), LABEL_DRAW)
        return torch.searchsorted(self.label_shares.cumsum(0), uniform).clamp_(max=self.spec.num_classes - 1)


class NoisyModel(Model):
    """A model whose loss is taken at one random noise level per image, so that images can be left out at some of them.

    Noise levels of all such families compare by their log signal-to-noise ratio log(alpha^2 / sigma^2), where a noisy
    image is alpha image + sigma standard normal noise (Kingma et al. 2021, arXiv:2107.00630, eq. 2).
    """

    @abstractmethod
    def loss(
        self,
        images: Float[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        max_log_snr: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, " n"]:
        """What the family minimises, see ``Model.loss``.

        Args:
            images: in [-1, 1].
            labels: classes; ignored by an unconditional model.
            max_log_snr: the loss of an image whose level has a higher log signal-to-noise ratio is multiplied by 0;
                +inf leaves it as it is at every level, -inf at none. ``None`` is +inf for all images.
        """


@dataclass(frozen=True, kw_only=True)
class Generator(ABC):
    """A family of models. Concrete generators are frozen dataclasses, so that a fit can be hashed.

    Args:
        start: ``"warm"`` continues every generation from the previous generation's fitted parameters;
            ``"scratch"`` draws new ones.
    """

    takes_steps: ClassVar[bool] = True
    """Whether a fit is a number of gradient steps."""

    start: Literal["warm", "scratch"]

    @abstractmethod
    def empty_model(self, spec: ImageSpec) -> Model:
        """An unfitted model of this family for such images.

        Raises:
            ConfigError: if the family cannot make such images.
        """

    @abstractmethod
    def fit_model(self, model: Model, pool: Pool, weights: Float[Tensor, " n"], job: FitJob) -> Losses:
        """Fits ``model`` in place and returns its training losses as (step, mean since the previous entry).

        Args:
            model: from ``empty_model``, fresh or warm.
            pool: images to fit.
            weights: sampling probability of each image, up to a factor; 0 means absent.
            job: steps, seed, device; a gate only if the model is a ``NoisyModel``.

        Raises:
            TrainingError: if the loss becomes NaN, or nothing is left to train on.
        """
