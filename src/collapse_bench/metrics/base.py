"""What a metric is: a ``torchmetrics.Metric`` that compares generated images with real ones."""

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, final

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from collapse_bench.distributed import is_shared
from collapse_bench.errors import ConfigError, MetricError
from collapse_bench.fingerprint import foreign_source
from collapse_bench.metrics.image_set import ImageSet, random_looking_order
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec

T = TypeVar("T")

_ORDER = "order"
"""State that brings images into an order that ignores how they came."""

Side = Literal["generated", "reference", "training", "real"]
"""Whose images: generated ones, the held-out reference, the pool that the model was fitted to, the whole real pool."""


class Estimate(NamedTuple):
    """One number of a metric.

    Args:
        value: the number; NaN where it is not defined for these samples.
        better: ``"lower"``, ``"higher"``, ``"one"`` (1 is ideal) or ``"floor"`` (best at the real-vs-real floor).
        low: lower end of a 95 % interval over the finite sample, where there is one.
        high: upper end.
        null: the mean of the number for a perfect model at these sample sizes, where it is known.
    """

    value: float
    better: str
    low: float | None = None
    high: float | None = None
    null: float | None = None


class GenerativeMetric(torchmetrics.Metric):
    """Compares generated images with real ones.

    A metric declares what it looks at. Generated images are forgotten by ``reset``, all others stay until ``forget``,
    so one object scores many generations against one reference. States are concatenated over processes by
    torchmetrics, and no number depends on the order of the images.
    """

    columns: ClassVar[tuple[str, ...]] = ("features",)
    """What is looked at: columns of an ``ImageSet``."""

    sides: ClassVar[tuple[Side, ...]] = ("generated", "reference")
    """Whose images are looked at; arguments of ``score``."""

    training_columns: ClassVar[tuple[str, ...]] = ()
    """What is looked at of the training pool besides."""

    resampled: ClassVar[bool] = True
    """Whether the floor is computed over many splits of the held-out images; a metric that trains says no."""

    full_state_update: bool | None = False

    def __init__(self) -> None:
        super().__init__(distributed_available_fn=is_shared)
        self._of_fixed_sides: dict[str, Any] = {}
        for side in self.sides:
            for column in (*self._columns_of(side), _ORDER):
                self.add_state(f"{side}_{column}", default=[], dist_reduce_fx="cat")

    @property
    def needs_encoder(self) -> bool:
        """Whether features or class probabilities are looked at."""
        return not {"features", "probabilities"}.isdisjoint(self.columns)

    @property
    def is_ready(self) -> bool:
        """Whether images of all sides but the generated one are known."""
        return all(len(getattr(self, f"{side}_{self.columns[0]}")) for side in self.sides if side != "generated")

    @property
    def settings(self) -> dict[str, object]:
        """What the metric is: its class and its arguments, which it keeps under their names."""
        cls = type(self)
        arguments = {name: getattr(self, name) for name in inspect.signature(cls).parameters}
        return {"class": f"{cls.__module__}.{cls.__qualname__} {foreign_source(cls)}", **arguments}

    @final
    def update(self, images: ImageSet, *, side: Side) -> None:
        """Adds images to one side.

        Raises:
            MetricError: if a feature or probability is NaN or infinite, or a column is needed and missing.
        """
        if side not in self.sides:
            raise ValueError(f"{type(self).__name__} looks at {', '.join(self.sides)}, not at {side} images")
        if side != "generated":
            self._of_fixed_sides.clear()
        found: dict[str, Tensor] = {}
        for column in self._columns_of(side):
            try:
                rows = images.hashes if column == "hashes" else images.column(column)
            except MetricError as error:
                raise MetricError(f"{type(self).__name__} {error}") from error
            if rows.is_floating_point() and not torch.isfinite(rows).all():
                bad = (~torch.isfinite(rows.flatten(1))).any(1).nonzero().flatten()
                raise MetricError(
                    f"{type(self).__name__}: {len(bad)} of {len(rows)} {side} images have NaN or infinite {column} "
                    f"(first: image {bad[0].item()}); look at the samples of this model"
                )
            found[column] = rows
        found[_ORDER] = images.order_keys
        for column, rows in found.items():  # all columns or none
            getattr(self, f"{side}_{column}").append(rows)

    def check(self, spec: ImageSpec, has_probabilities: bool, options: TrainerOptions) -> None:
        """Raises ConfigError, before anything is trained, if these images cannot be scored.

        Args:
            spec: shape and classes of the images.
            has_probabilities: whether the encoder gives class probabilities.
            options: where and in what arithmetic a metric that trains a network does so.
        """
        if "probabilities" in self.columns and not has_probabilities:
            raise ConfigError(
                f"the metric {type(self).__name__} needs class probabilities and this encoder has none; "
                "choose encoder=pca or encoder=classifier, or metrics=features"
            )

    @final
    def reset(self) -> None:
        """Forgets the generated images and keeps all others."""
        # Copies, because torchmetrics empties the lists in place.
        kept = {name: list(_as_list(getattr(self, name))) for name in self._reductions if not _is_generated(name)}
        super().reset()
        for name, value in kept.items():
            setattr(self, name, value)

    @final
    def forget(self, side: Side) -> None:
        """Forgets the images of one side."""
        for column in (*self._columns_of(side), _ORDER):
            setattr(self, f"{side}_{column}", [])
        self._of_fixed_sides.clear()
        self._computed = None

    @final
    def compute(self) -> dict[str, Estimate]:
        """The metric's numbers by name.

        Raises:
            MetricError: if one side has fewer than two images.
        """
        sides = {side: self._side(side) for side in self.sides}
        return self.score(**sides)

    @abstractmethod
    def score(self, *args: Any, **kwargs: Any) -> dict[str, Estimate]:
        """The metric's numbers by name, from all images of its ``sides``, each an ``ImageSet`` of its ``columns``."""

    @final
    def once(self, name: str, build: Callable[[], T]) -> T:
        """What ``build`` gives, kept until images other than generated ones change.

        Args:
            name: of the thing.
            build: makes it from the sides other than the generated one.
        """
        if name not in self._of_fixed_sides:
            self._of_fixed_sides[name] = build()
        return self._of_fixed_sides[name]

    def _columns_of(self, side: Side) -> tuple[str, ...]:
        return (*self.columns, *self.training_columns) if side == "training" else self.columns

    def _side(self, side: Side) -> ImageSet:
        if sum(len(rows) for rows in _as_list(getattr(self, f"{side}_{self.columns[0]}"))) < 2:
            raise MetricError(f"{type(self).__name__} needs at least two {side} images")

        def gathered() -> ImageSet:
            columns = {column: dim_zero_cat(getattr(self, f"{side}_{column}")) for column in self._columns_of(side)}
            order = random_looking_order(dim_zero_cat(getattr(self, f"{side}_{_ORDER}")))
            return ImageSet(**columns).take(order)

        return gathered() if side == "generated" else self.once(f"side {side}", gathered)


def _is_generated(state: str) -> bool:
    return state.startswith("generated_")


def _as_list(state: list[Tensor] | Tensor) -> list[Tensor]:
    return state if isinstance(state, list) else [state]
