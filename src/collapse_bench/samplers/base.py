"""What a sampler is: it turns a fitted model and image seeds into images."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.distributed import gathered, own_part
from collapse_bench.errors import ConfigError, SelectionError, TrainingError
from collapse_bench.generators.base import Model
from collapse_bench.now import Now
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.seeding import Role, Stream, image_normal
from collapse_bench.types import to_uint8


@dataclass(frozen=True, kw_only=True)
class Sampler(ABC):
    """Turns a model and image seeds into images. Concrete samplers are frozen dataclasses.

    Args:
        temperature: factor of the standard deviation of all noise that is drawn; 1 samples the model as fitted.
        truncation: noise is drawn from the normal distribution cut off at plus and minus this many standard deviations
            (Brock et al. 2019, arXiv:1809.11096, section 3.1), before it is multiplied by the temperature; ``None``
            cuts nothing off.
        guidance: weight w of classifier-free guidance: the model's output is o(class) + w (o(class) - o(no class)) (Ho
            and Salimans 2022, arXiv:2207.12598, eq. 6); 0 samples the model as fitted. Above 0 it costs two networks.
        quantize: round samples to the 256 grey levels of real images, as a stored image file would.
        batch_size: images made at once; it changes no image beyond float arithmetic.
    """

    temperature: float
    truncation: float | None
    guidance: float
    quantize: bool
    batch_size: int

    model_type: ClassVar[type[Model]]

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ConfigError(f"sampler.temperature must not be negative, got {self.temperature}")
        if self.truncation is not None and not self.truncation > 0:
            raise ConfigError(f"sampler.truncation must be above 0 (or null), got {self.truncation}")
        if self.guidance < 0:
            raise ConfigError(f"sampler.guidance must not be negative, got {self.guidance}")
        if self.batch_size < 1:
            raise ConfigError(f"sampler.batch_size must be at least 1, got {self.batch_size}")

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Outputs of the model per image."""

    @property
    def num_evaluations(self) -> int:
        """Forward passes of the model per image: with guidance two for each of its outputs."""
        return self.num_outputs * (2 if self.guidance else 1)

    @abstractmethod
    def sample_batch(
        self, model: Model, seeds: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """Images in [-1, 1] (or unbounded where the data has no grey levels), a function of their seeds.

        Args:
            model: an instance of ``model_type``.
            seeds: one per image, on the model's device.
            labels: conditions; ignored by an unconditional model.
        """

    @final
    def noise(self, seeds: Int64[Tensor, " n"], shape: tuple[int, ...], draw: int) -> Float[Tensor, "n *shape"]:
        """The noise of a draw, truncated and at the sampler's temperature; see ``image_normal``."""
        normal = image_normal(seeds, shape, draw)
        if self.truncation is not None:
            outside = torch.special.ndtr(torch.tensor(-self.truncation, dtype=torch.float64))
            share = torch.special.ndtr(normal.double()) * (1.0 - 2.0 * outside) + outside
            normal = torch.special.ndtri(share).float()
        return self.temperature * normal

    @final
    def guided(
        self, output: Callable[[Int64[Tensor, " n"]], Tensor], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n *shape"]:
        """A model's output with classifier-free guidance.

        Args:
            output: (labels) -> the model's output.
            labels: conditions.
        """
        with_class = output(labels)
        if self.guidance == 0:
            return with_class
        return with_class + self.guidance * (with_class - output(torch.full_like(labels, UNLABELLED)))

    @final
    @torch.no_grad()
    def sample(self, model: Model, seeds: Int64[Tensor, " n"]) -> tuple[Tensor, Int64[Tensor, " n"]]:
        """Images and their conditions, on the CPU; several processes make a part of them each and get all.

        Args:
            model: a fitted model.
            seeds: one per image; image k depends on ``seeds[k]`` and on no other.

        Returns:
            uint8 images, or float32 without quantisation; labels, ``UNLABELLED`` from an unconditional model.

        Raises:
            TrainingError: if a pixel is NaN or infinite.
        """
        own = seeds[own_part(len(seeds))]

        def made() -> tuple[Tensor, Tensor]:
            images, labels = self.sample_alone(model, own)
            return images.cpu(), labels.cpu()

        parts = gathered(made, f"{len(seeds)} samples of seeds from {seeds[:1].tolist()}")
        return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])

    @final
    @torch.no_grad()
    def sample_alone(self, model: Model, seeds: Int64[Tensor, " n"]) -> tuple[Tensor, Int64[Tensor, " n"]]:
        """As ``sample``, by this process alone, and the result stays on the model's device."""
        batches = []
        all_labels = []
        for batch in seeds.split(self.batch_size):
            batch = batch.to(model.device)
            labels = model.draw_labels(batch)
            images = self.sample_batch(model, batch, labels)
            if not torch.isfinite(images).all():  # grey levels would hide it: NaN becomes black
                raise TrainingError(
                    f"{type(self).__name__} made images with NaN or infinite pixels; lower the learning rate, set "
                    "max_grad_norm, or take more sampling steps. Committed generations are intact"
                )
            batches.append(to_uint8(images) if self.quantize else images)
            all_labels.append(labels)
        return torch.cat(batches), torch.cat(all_labels)

    @final
    def stream(self, model: Model, now: Now, num_needed: int) -> "Draw":
        """The candidates of one generation, drawn as the curator asks for them.

        Args:
            model: the model after refinement.
            now: this generation.
            num_needed: images that the next generation needs, on which the bound of the budget depends.
        """
        limit = math.ceil(now.setting.budget.max_candidates * num_needed)
        now.network_evaluations_per_sample = self.num_evaluations * model.num_networks
        return Draw(self, model, now, limit)

    def fits(self, model: Model) -> bool:
        """Whether it can sample such a model."""
        return isinstance(model, self.model_type)

    def check(self, model: Model) -> None:
        """Raises ConfigError if this sampler cannot sample such a model."""
        if not self.fits(model):
            raise ConfigError(
                f"the sampler {type(self).__name__} cannot sample what the generator makes ({model.family}); leave out "
                "sampler=... to get the generator's own"
            )
        if self.guidance and not model.has_guidance:
            raise ConfigError(
                f"sampler.guidance={self.guidance} needs a model that knows images with and without a class; set "
                "generator.conditional=true and generator.condition_dropout=0.1"
            )


@final
class Draw:
    """``draw(k)``: the next k candidates of a generation, by image seed, counted and bounded.

    It remembers all that it has drawn, without the pixels, in ``candidates``: one ``Pool.table`` per call.

    Args:
        sampler: how they are made.
        model: what makes them.
        now: this generation.
        limit: the most that may be drawn.
    """

    def __init__(self, sampler: Sampler, model: Model, now: Now, limit: int) -> None:
        self.model, self.limit = model, limit
        self._sampler, self._now = sampler, now
        self._stream: Stream = now.stream(Role.SAMPLE)
        self.num_drawn = 0
        self.candidates: list[pd.DataFrame] = []

    def __call__(self, count: int) -> Pool:
        """The next ``count`` candidates.

        Raises:
            SelectionError: if that exceeds ``budget.max_candidates``.
            TrainingError: as ``Sampler.sample`` does.
        """
        if self.num_drawn + count > self.limit:
            raise SelectionError(
                f"generation {self._now.generation}: the curator asked for {self.num_drawn + count} candidates and the "
                f"budget allows {self.limit}; raise budget.max_candidates or choose a less strict curator"
            )
        seeds = self._stream.image_seeds(self.num_drawn, count)
        try:
            with self._now.timed("sample"):
                images, labels = self._sampler.sample(self.model, seeds)
        except TrainingError as error:
            raise TrainingError(f"generation {self._now.generation}: {error}") from error
        born = self._now.generation
        pool = self.model.as_pool(images, labels, seeds, start=self.num_drawn, born=born)
        pool = self._now.labelled(pool)
        self.num_drawn += count
        self.candidates.append(pool.table())
        self._now.spend(candidates=count)
        return pool
