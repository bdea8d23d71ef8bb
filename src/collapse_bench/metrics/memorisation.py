"""Nearness to the training pool, and to which part of it."""

import math
from typing import ClassVar, final

import torch

from collapse_bench.metrics.base import Estimate, GenerativeMetric, Side
from collapse_bench.metrics.functional.intervals import normal_interval, wilson_interval
from collapse_bench.metrics.functional.memorisation import Nearest, median_ratio, nearest, num_authentic
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.pool import REAL


@final
class Memorisation(GenerativeMetric):
    """Distances from generated images to the nearest images of the model's training pool.

    - ``authenticity`` (AuthPct; Alaa et al. 2022, arXiv:2102.08921), with its 95 % Wilson interval; NaN for a pool of
      one image over and over;
    - ``generalisation_score`` (Shi et al. 2025, arXiv:2509.16499): the mean distance, with its 95 % interval, in the
      features' unit;
    - ``nearest_ratio_real``, ``nearest_ratio_synthetic``: the median distance to the images of that origin, over that
      of held-out real images;
    - ``nearest_is_real``: share of images that are nearer to a real than to a synthetic training image.

    Shrinkage moves the first three as copying does, so low numbers alone do not show that a model has learnt by heart:
    read them beside the floor and beside ``copies_of_training``. Intervals are over the generated images only; the pool
    is held fixed.
    """

    sides: ClassVar[tuple[Side, ...]] = ("generated", "reference", "training")
    training_columns: ClassVar[tuple[str, ...]] = ("born",)

    def score(self, generated: ImageSet, reference: ImageSet, training: ImageSet) -> dict[str, Estimate]:
        """All five numbers (floor; the ratios: one). Those of an origin are NaN where the pool has none of it.

        Args:
            generated: features.
            reference: features.
            training: features and ``born``.
        """
        origin = self.once("mean", lambda: reference.features.double().mean(0))
        pool = self.once("pool", lambda: training.features.double() - origin)
        is_real = training.born == REAL

        def nearest_by_origin(images: ImageSet) -> tuple[Nearest, Nearest]:
            features = images.features.double() - origin
            return nearest(features, pool, is_real), nearest(features, pool, ~is_real)

        real, synthetic = nearest_by_origin(generated)
        held_out_real, held_out_synthetic = self.once("held out", lambda: nearest_by_origin(reference))
        nearer_real = real.distances < synthetic.distances
        closest = Nearest(
            torch.where(nearer_real, real.distances, synthetic.distances),
            torch.where(nearer_real, real.rows, synthetic.rows),
        )
        num_images = len(generated)
        mean, standard_error = closest.distances.mean().item(), closest.distances.std().item() / math.sqrt(num_images)

        def share(count: int | None) -> Estimate:
            if count is None:
                return Estimate(math.nan, "floor")
            return Estimate(count / num_images, "floor", *wilson_interval(count, num_images))

        return {
            "authenticity": share(num_authentic(closest, pool)),
            "generalisation_score": Estimate(mean, "floor", *normal_interval(mean, standard_error)),
            "nearest_ratio_real": Estimate(median_ratio(real.distances, held_out_real.distances), "one"),
            "nearest_ratio_synthetic": Estimate(median_ratio(synthetic.distances, held_out_synthetic.distances), "one"),
            "nearest_is_real": share(int(nearer_real.sum()) if 0 < is_real.sum() < len(training) else None),
        }
