"""The measuring side: the only code that sees the held-out images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from collapse_bench.datasets.base import HeldOut
from collapse_bench.encoders.base import FittedEncoder
from collapse_bench.errors import ConfigError
from collapse_bench.fingerprint import fingerprint
from collapse_bench.generators.base import Model
from collapse_bench.metrics.base import GenerativeMetric
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.records import Score
from collapse_bench.samplers.base import Sampler
from collapse_bench.seeding import RUN_LEVEL, Role, Stream
from collapse_bench.types import to_uint8

NUM_GRID = 16
"""Images in the sample grid of a generation."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of one generation.

    Args:
        scores: of the model, of the kept images, and of the control set (the floor).
        grid: sample images with the same seeds in every generation, uint8 [k, h, w, c].
    """

    scores: tuple[Score, ...]
    grid: np.ndarray


class Measurer:
    """Scores samples against the held-out reference, and the control set exactly so.

    Args:
        encoder: features in which images are compared.
        metrics: by name.
        held_out: the reference and the control set.
        num_measured: samples per score; ``None`` is the size of the control set.

    Raises:
        ConfigError: if ``num_measured`` exceeds the control set, because the floor would then have another count.
        MetricError: if a metric needs class probabilities and the encoder has none.
    """

    def __init__(
        self,
        encoder: FittedEncoder,
        metrics: Mapping[str, GenerativeMetric],
        held_out: HeldOut,
        num_measured: int | None,
    ) -> None:
        self._encoder, self._metrics = encoder, metrics
        reference, control = held_out.reference, held_out.control
        self.num_measured = len(control) if num_measured is None else num_measured
        if self.num_measured > len(control):
            raise ConfigError(
                f"budget.num_measured={num_measured} exceeds the control set of {len(control)} images, so the floor "
                "would have another sample size; lower it or raise dataset.num_control"
            )
        self._num_reference = len(reference)
        encoded = encoder.encode(reference.images)
        for metric in metrics.values():
            metric.update(encoded, real=True)
        self.accuracy = {
            "accuracy_reference": encoded.accuracy(reference.labels),
            "accuracy_control": encoder.encode(control.images).accuracy(control.labels),
        }
        self.identity = fingerprint(encoder, reference.images, control.images, self.num_measured)
        self._floor = self.score(control.images[: self.num_measured], of="control")

    def score(self, images: Tensor, of: str) -> tuple[Score, ...]:
        """All numbers of all metrics for these images.

        Args:
            images: uint8 or float32.
            of: what they are; goes into the scores.
        """
        encoded = self._encoder.encode(images)
        scores = []
        for metric in self._metrics.values():
            metric.reset()
            metric.update(encoded, real=False)
            for name, estimate in metric.compute().items():
                scores.append(
                    Score(
                        metric=name,
                        of=of,
                        value=estimate.value,
                        num_samples=len(images),
                        num_reference=self._num_reference,
                        better=estimate.better,
                        low=estimate.low,
                        high=estimate.high,
                    )
                )
        return tuple(scores)

    def measure(self, sampler: Sampler, model: Model, kept: Pool, now: Now) -> Measured:
        """Scores of fresh samples of the model, which never enter a pool, of the kept images, and the floor.

        The kept images are scored on a random part of the same count, because most metrics depend on it; where fewer
        were kept, all of them are, and their scores say so (``num_samples``).
        """
        with now.timed("measure"):
            fresh, _ = sampler.sample(model, now.stream(Role.MEASURE).image_seeds(0, self.num_measured))
            chosen = torch.randperm(len(kept), generator=now.stream(Role.MEASURE_KEPT).generator())[: self.num_measured]
            scores = (*self.score(fresh, of="model"), *self.score(kept.images[chosen], of="kept"), *self._floor)
            grid, _ = sampler.sample(model, Stream(now.seed, RUN_LEVEL, Role.GRID).image_seeds(0, NUM_GRID))
        return Measured(scores, to_grid(grid))


def to_grid(images: Tensor) -> np.ndarray:
    """Images as uint8 [k, h, w, c] for people to look at.

    Args:
        images: uint8, or float32 in [-1, 1]; what lies outside is clipped.
    """
    pictures = images if images.dtype == torch.uint8 else to_uint8(images)
    return pictures.permute(0, 2, 3, 1).contiguous().numpy()
