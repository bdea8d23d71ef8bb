"""The measuring side: the only code that sees the held-out images."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from collapse_bench.datasets.base import HeldOut
from collapse_bench.encoders.base import FittedEncoder
from collapse_bench.errors import ConfigError
from collapse_bench.fingerprint import code_version, fingerprint
from collapse_bench.generators.base import Model
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.intervals import wilson_interval
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.metrics.model import ModelMetric
from collapse_bench.mitigations.base import Mitigation, Weigher
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.records import Score
from collapse_bench.ruler import Ruler, image_set, rulers_of
from collapse_bench.samplers.base import Sampler
from collapse_bench.seeding import RUN_LEVEL, Role, Stream
from collapse_bench.store import Store
from collapse_bench.types import to_uint8

NUM_GRID = 16
"""Images in the sample grid of a generation."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of one generation.

    Args:
        scores: of the model, of the kept images, of the control set, and the floor.
        grid: sample images with the same seeds in every generation, uint8 [k, h, w, c].
    """

    scores: tuple[Score, ...]
    grid: np.ndarray


class Measurer:
    """Scores samples against the held-out reference, and real images exactly so.

    Args:
        encoders: features in which images are compared, by name. Numbers in those of the first have plain names, others
            are called ``recall@classifier``; a metric that looks at no features is computed once.
        metrics: by name.
        held_out: the reference and the control set.
        real: the real pool.
        num_measured: samples per score; ``None`` is the size of the control set.
        num_floor_splits: random splits of the held-out images that give the floor its spread.
        store: where floors are remembered.
        objective: number that options are tuned by: of the last generation, it is also measured against the control
            set, on samples of its own. ``None`` tunes nothing.

    Raises:
        ConfigError: if ``num_measured`` exceeds the control set, because the floor would then have another count, or
            nothing can be tuned by the objective.
        MetricError: if a held-out image cannot be scored.
    """

    def __init__(
        self,
        encoders: Mapping[str, FittedEncoder],
        metrics: Mapping[str, GenerativeMetric | ModelMetric],
        *,
        held_out: HeldOut,
        real: Pool,
        num_measured: int | None,
        num_floor_splits: int,
        store: Store,
        objective: str | None = None,
    ) -> None:
        reference, control = held_out.reference, held_out.control
        self.num_measured = len(control) if num_measured is None else num_measured
        if self.num_measured > len(control):
            raise ConfigError(
                f"budget.num_measured={num_measured} exceeds the control set of {len(control)} images, so the floor "
                "would have another sample size; lower it or raise dataset.num_control"
            )
        self._reference = image_set(reference)
        self._control = image_set(control)
        self._model_metrics = [metric for metric in metrics.values() if isinstance(metric, ModelMetric)]
        generative = [metric for metric in metrics.values() if isinstance(metric, GenerativeMetric)]
        self._rulers = rulers_of(encoders, generative, self._reference, store)
        self.accuracy = {
            "accuracy_reference": self._accuracy(self._reference),
            "accuracy_control": self._accuracy(self._control),
        }
        for ruler in self._rulers:
            ruler.see(self._reference, "reference")
            ruler.see(image_set(real), "real")
        self.identity = fingerprint(list(encoders.values()), reference.images, control.images, self.num_measured)
        control_set = self._control.take(slice(self.num_measured))
        self._control_scores = self._score(control_set, "control", [r.without("training") for r in self._rulers])
        self._floor = self._floor_scores(real, num_floor_splits, store)
        self.objective = objective
        self._tuning = None if objective is None else self._tuning_ruler(objective)

    @property
    def objective_better(self) -> str | None:
        """``"lower"`` or ``"higher"``: which values of the objective are better; None without one."""
        return next((score.better for score in self._control_scores if score.metric == self.objective), None)

    @property
    def looks_at_training(self) -> bool:
        """Whether a metric looks at the training pool."""
        return any(ruler.looking_at("training").metrics for ruler in self._rulers)

    def see_training(self, pool: Pool | None) -> None:
        """Names the images that the next model was fitted to; without two images, numbers that need it are left out."""
        images = None if pool is None or len(pool) < 2 else image_set(pool)
        for ruler in self._rulers:
            ruler.see(images, "training")

    def score(self, images: Tensor, labels: Tensor, of: str) -> tuple[Score, ...]:
        """All numbers of all metrics for these images.

        Args:
            images: uint8 or float32.
            labels: their conditions, or ``UNLABELLED``.
            of: what they are; goes into the scores.
        """
        return self._score(ImageSet(images=images, labels=labels), of, self._rulers)

    def floor(self) -> tuple[Score, ...]:
        """The scores of real images: of the control set, and the mean over random splits of all held-out images."""
        control = self._control.take(slice(self.num_measured))
        return (
            *self._control_scores,
            *self._score(control, "control", [ruler.looking_at("training") for ruler in self._rulers]),
            *self._floor,
        )

    def measure(
        self,
        sampler: Sampler,
        model: Model,
        kept: Pool,
        trained_on: Pool | None,
        now: Now,
        mitigation: Mitigation | None = None,
    ) -> Measured:
        """Scores of fresh samples of the model, which never enter a pool, of the kept images, and the floor.

        The kept images are scored on a random part of the same count, because most metrics depend on it; where fewer
        were kept, all of them are, and their scores say so (``num_samples``). Images that the curator has changed are
        also scored as they were before (``"unchanged"``). If the weigher is a detector, ``flagged`` is the share of
        each kind that it takes for synthetic; of the control set these are the false positives.

        Args:
            sampler: draws the samples.
            model: the model after refinement.
            kept: what goes to the next generation.
            trained_on: the images that the model was fitted to; ``None`` leaves out the numbers that need it.
            now: this generation.
            mitigation: what weighed and curated; ``None`` leaves out what only it can say.
        """
        with now.timed("measure"):
            self.see_training(trained_on)
            fresh, labels = sampler.sample(model, now.stream(Role.MEASURE).image_seeds(0, self.num_measured))
            chosen = torch.randperm(len(kept), generator=now.stream(Role.MEASURE_KEPT).generator())[: self.num_measured]
            scores = [
                *self.score(fresh, labels, of="model"),
                *self._score_model(model, ImageSet(images=fresh, labels=labels), now),
                *self.score(kept.images[chosen], kept.labels[chosen], of="kept"),
            ]
            measured = {"model": fresh, "kept": kept.images[chosen]}
            if mitigation is not None and mitigation.curator.changes_images:
                measured["unchanged"], _ = sampler.sample(model, kept.seed[chosen])
                scores += self.score(measured["unchanged"], kept.labels[chosen], of="unchanged")
            scores += self.floor()
            if mitigation is not None:
                measured["control"] = self._control.images[: self.num_measured]
                scores += self._flagged(measured, mitigation.weigher, now)
            if self._tuning is not None and now.generation == now.setting.budget.num_generations:
                scores.append(self._tuning_score(self._tuning, sampler, model, now))
            grid, _ = sampler.sample(model, Stream(now.seed, RUN_LEVEL, Role.GRID).image_seeds(0, NUM_GRID))
        return Measured(tuple(scores), to_grid(grid))

    def _tuning_ruler(self, objective: str) -> Ruler:
        """The one metric that gives the objective, shown the control set where others are shown the reference."""
        control_set = self._control.take(slice(self.num_measured))
        for ruler in self._rulers:
            encoded = ruler.encoded(control_set)
            for metric in ruler.without("training").metrics:
                alone = ruler.with_metrics([copy.deepcopy(metric)])
                better = {name: estimate.better for name, estimate in alone.estimates_of_encoded(encoded)}
                if objective not in better:
                    continue
                if better[objective] not in ("lower", "higher"):
                    raise ConfigError(f"objective={objective} is best at a value between others; nothing tunes by it")
                alone.see(self._control, "reference")
                return alone
        known = sorted(score.metric for score in self._control_scores if score.better in ("lower", "higher"))
        raise ConfigError(
            f"objective={objective}: there is no such number to tune by; choose one of {', '.join(known)}"
        )

    def _tuning_score(self, ruler: Ruler, sampler: Sampler, model: Model, now: Now) -> Score:
        """The objective, of samples that no other number is of: the best of many must not be the luckiest."""
        images, labels = sampler.sample(model, now.stream(Role.TUNE).image_seeds(0, self.num_measured))
        found = self._score(ImageSet(images=images, labels=labels), "tuning", [ruler])
        score = next(score for score in found if score.metric == self.objective)
        return replace(score, num_reference=len(self._control))

    def _flagged(self, measured: Mapping[str, Tensor], weigher: Weigher, now: Now) -> list[Score]:
        """Shares of images that a detector takes for synthetic; nothing for a weigher that is none."""
        scores = []
        for of, images in measured.items():
            flags = weigher.flags(images, now)
            if flags is not None:
                count, total = int(flags.sum()), len(images)
                low, high = wilson_interval(count, total)
                scores.append(Score("flagged", of, count / total, total, len(self._reference), "floor", low, high))
        return scores

    def _accuracy(self, images: ImageSet) -> float | None:
        """That of the first encoder which knows classes."""
        known = (accuracy for ruler in self._rulers if (accuracy := ruler.accuracy(images)) is not None)
        return next(known, None)

    def _score(self, images: ImageSet, of: str, rulers: Sequence[Ruler]) -> tuple[Score, ...]:
        return tuple(
            self._as_score(name, of, estimate, len(images))
            for ruler in rulers
            for name, estimate in ruler.estimates(images)
        )

    def _as_score(self, name: str, of: str, estimate: Estimate, num_samples: int) -> Score:
        return Score(
            metric=name,
            of=of,
            value=estimate.value,
            num_samples=num_samples,
            num_reference=len(self._reference),
            better=estimate.better,
            low=estimate.low,
            high=estimate.high,
            null=estimate.null,
        )

    def _score_model(self, model: Model, samples: ImageSet, now: Now) -> tuple[Score, ...]:
        if not self._model_metrics:
            return ()
        first = model if now.chain.first is None else now.chain.first.to(model.device)
        assert isinstance(first, Model)
        control = self._control.take(slice(self.num_measured))
        scores = []
        for metric in self._model_metrics:
            sets = {"model": self._reference} if metric.of == "reference" else {"model": samples, "control": control}
            for of, images in sets.items():
                images = images.take(slice(metric.num_images))
                metric.reset()
                metric.update(images, model=model, first=first)
                scores += [self._as_score(name, of, value, len(images)) for name, value in metric.compute().items()]
        return tuple(scores)

    def _floor_scores(self, real: Pool, num_splits: int, store: Store) -> tuple[Score, ...]:
        """The mean of every number over random splits of the held-out images, with its spread."""
        key = fingerprint(
            code_version(),
            self.identity,
            [(ruler.encoder.package, ruler.encoder.device.type) for ruler in self._rulers],
            self._reference.labels,
            self._control.labels,
            real.content_hash,
            [(ruler.suffix, metric.settings) for ruler in self._rulers for metric in ruler.resampled().metrics],
            num_splits,
            torch.get_num_threads(),
        )
        tensors, _ = store.get_or_build("floor", key, lambda: self._split_values(real, num_splits))
        floor = []
        for score in self._control_scores:
            if score.metric in tensors:
                values = tensors[score.metric]  # without those splits that have none, the mean would be of lucky ones
                mean = values.mean().item() if values.isfinite().all() else math.nan
                spread = values.std().item() if len(values) > 1 and math.isfinite(mean) else None
                floor.append(replace(score, of="floor", value=mean, low=None, high=None, spread=spread))
        return tuple(floor)

    def _split_values(self, real: Pool, num_splits: int) -> dict[str, Tensor]:
        num_reference = len(self._reference)
        values: dict[str, list[float]] = {}
        for ruler in self._rulers:
            rng = Stream(0, RUN_LEVEL, Role.FLOOR).generator()  # the same splits for every ruler
            resampled = ruler.resampled()
            resampled.see(image_set(real), "real")  # all of them: this process may have a part alone
            held_out = ImageSet.concat([resampled.encoded_real(s) for s in (self._reference, self._control)])
            held_out = held_out.with_columns(hashes=held_out.hashes)  # once, not for every split
            for _ in range(num_splits):
                order = torch.randperm(len(held_out), generator=rng)
                resampled.see_encoded(held_out.take(order[:num_reference]), "reference")
                fresh = held_out.take(order[num_reference:][: self.num_measured])
                for name, estimate in resampled.estimates_of_encoded(fresh):
                    values.setdefault(name, []).append(estimate.value)
        return {name: torch.tensor(numbers, dtype=torch.float64) for name, numbers in values.items()}


def to_grid(images: Tensor) -> np.ndarray:
    """Images as uint8 [k, h, w, c] for people to look at.

    Args:
        images: uint8, or float32 in [-1, 1]; what lies outside is clipped.
    """
    pictures = images if images.dtype == torch.uint8 else to_uint8(images)
    return pictures.permute(0, 2, 3, 1).contiguous().numpy()
