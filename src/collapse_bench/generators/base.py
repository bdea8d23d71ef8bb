"""What a generator is: a family of models and how one of them is fitted to a weighted pool."""

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from collapse_bench.errors import ConfigError
from collapse_bench.fingerprint import foreign_source
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.seeding import batch_uniform, image_uniform
from collapse_bench.training import FitJob, Losses, Optimisation
from collapse_bench.types import ImageSpec

LABEL_DRAW = 1 << 20
"""Number of the per-image draw that decides the condition; samplers count their own draws from 0."""


class Model(nn.Module, ABC):
    """A model of one family. What is fitted is in its state dictionary; the rest is plain attributes, see ``settings``.

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
        """What the family minimises, one value per image; may draw random numbers, by ``seeding.batch_normal``.

        Args:
            images: in [-1, 1] (or unbounded where the data has no grey levels).
            labels: classes; ignored by an unconditional model.
        """

    @property
    def family(self) -> str:
        """What kind of model it is, for errors and for the provenance of its samples."""
        return type(self).__name__

    @property
    def settings(self) -> dict[str, object]:
        """What decides its samples besides its state dictionary, by name: all of it goes into a fingerprint.

        The class of every module in it, and all that those have as attributes; whether they are in training does not
        count. Attributes are what ``fingerprint`` takes, plain values, tensors and dataclasses, such as a process;
        functions, such as an activation, count by their names.
        """
        state, of_every_module = self.state_dict(), vars(nn.Module())
        found: dict[str, object] = {name: value for name, value in self.named_buffers() if name not in state}
        for path, module in self.named_modules():
            code = foreign_source(type(module)) if isinstance(module, Model) else ""
            found[f"{path}.class"] = (type(module).__module__, type(module).__qualname__, code)
            own = {name: value for name, value in vars(module).items() if name not in of_every_module}
            found |= {f"{path}.{name}".lstrip("."): _by_name(value) for name, value in own.items()}
        return found

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of what makes its samples, for their provenance."""
        return (type(self).__name__,)

    @property
    def makers(self) -> "tuple[Model, ...]":
        """The models behind its ``sources``, in their order."""
        return (self,)

    def source_of(self, seeds: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """Which of its ``sources`` makes each image, a function of the image's seed."""
        return torch.zeros_like(seeds)

    @final
    def as_pool(
        self, images: Tensor, labels: Int64[Tensor, " n"], seeds: Int64[Tensor, " n"], *, start: int, born: int
    ) -> Pool:
        """A pool of candidates that this model has just made; see ``Pool.sampled``."""
        pool = Pool.sampled(images, labels, seeds, start=start, born=born, source="")
        return replace(pool, source=self.source_of(seeds), sources=self.sources)

    @property
    def has_guidance(self) -> bool:
        """Whether it has learnt to make images with and without a class."""
        return False

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


def _by_name(value: object) -> object:
    """A function by its name, if it has one; anything else as it is."""
    if inspect.isroutine(value) and "<" not in value.__qualname__:
        return ("function", value.__module__, value.__qualname__)
    return value


def drop_conditions(labels: Int64[Tensor, " n"], dropout: float) -> Int64[Tensor, " n"]:
    """Labels of which each is ``UNLABELLED`` with a probability; see ``seeding.batch_uniform``.

    So a network learns to make images with and without a class (Ho and Salimans 2022, arXiv:2207.12598, algorithm 1).
    """
    dropped = batch_uniform(len(labels), labels.device) < dropout
    return torch.where(dropped, UNLABELLED, labels)


def check_condition_dropout(dropout: float, conditional: bool) -> None:
    """Raises ConfigError if ``condition_dropout`` is not in [0, 1), or there is no condition to leave out."""
    if not 0 <= dropout < 1:
        raise ConfigError(f"generator.condition_dropout must lie in [0, 1), got {dropout}")
    if dropout and not conditional:
        raise ConfigError("generator.condition_dropout leaves out the class, and generator.conditional is false")


@dataclass(frozen=True, kw_only=True)
class Generator(ABC):
    """A family of models. Concrete generators are frozen dataclasses, so that a fit can be hashed.

    Args:
        start: ``"warm"`` continues every generation from the previous generation's fitted parameters;
            ``"scratch"`` draws new ones.
    """

    start: Literal["warm", "scratch"]

    @property
    def takes_steps(self) -> bool:
        """Whether a fit is a number of gradient steps."""
        return True

    @property
    def num_networks(self) -> int:
        """Networks that a fit trains."""
        return 1

    @property
    def batch_size(self) -> int:
        """Images that one gradient step of the budget looks at, over all networks; 0 where a fit takes no steps."""
        return 0

    def with_learning_rate_times(self, factor: float) -> Self:
        """The same recipe with ``factor`` times its learning rate; itself where a fit takes no steps."""
        if self.takes_steps:
            raise NotImplementedError(f"{type(self).__name__} does not say what its learning rate is")
        return self

    def gradient_steps(self, num_steps: int) -> int:
        """Gradient steps that a fit really takes, where the budget is ``num_steps``."""
        return num_steps if self.takes_steps else 0

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


@dataclass(frozen=True, kw_only=True)
class TrainedGenerator(Generator):
    """A family that is fitted by gradient descent on batches.

    Args:
        start: see ``Generator``.
        optimisation: how it is fitted.
    """

    optimisation: Optimisation

    @property
    def batch_size(self) -> int:
        """That of the optimisation."""
        return self.optimisation.batch_size

    def with_learning_rate_times(self, factor: float) -> Self:
        """That of the optimisation."""
        rate = factor * self.optimisation.learning_rate
        return replace(self, optimisation=replace(self.optimisation, learning_rate=rate))
