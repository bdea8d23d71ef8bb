"""What a metric is: a ``torchmetrics.Metric`` that compares generated images with held-out real ones."""

from abc import abstractmethod
from typing import ClassVar, NamedTuple, final

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from collapse_bench.encoders.base import Encoded
from collapse_bench.errors import ConfigError, MetricError


class Estimate(NamedTuple):
    """One number of a metric.

    Args:
        value: the number; NaN where it is not defined for these samples.
        better: ``"lower"``, ``"higher"``, ``"one"`` (1 is ideal) or ``"floor"`` (best at the real-vs-real floor).
        low: lower end of a 95 % interval over the finite sample, where there is one.
        high: upper end.
    """

    value: float
    better: str
    low: float | None = None
    high: float | None = None


class GenerativeMetric(torchmetrics.Metric):
    """Compares generated images with held-out real ones.

    The reference is given once with ``update(encoded, real=True)`` and outlives ``reset``, so one object scores
    many generations against it. States are concatenated over processes by torchmetrics.
    """

    needs_probabilities: ClassVar[bool] = False
    full_state_update: bool | None = False

    generated_features: list[Tensor]
    reference_features: list[Tensor]
    generated_probabilities: list[Tensor]
    reference_probabilities: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for side in ("generated", "reference"):
            for content in ("features", "probabilities"):
                self.add_state(f"{side}_{content}", default=[], dist_reduce_fx="cat")

    @final
    def update(self, encoded: Encoded, *, real: bool) -> None:
        """Adds images to one side.

        Args:
            encoded: features and, where the metric needs them, class probabilities.
            real: ``True`` for the held-out reference, ``False`` for generated images.

        Raises:
            MetricError: if a feature or probability is NaN or infinite, or probabilities are needed and missing.
        """
        side = "reference" if real else "generated"
        for content in ("features", "probabilities"):
            rows: Tensor | None = getattr(encoded, content)
            if content == "probabilities" and not self.needs_probabilities:
                continue
            if rows is None:
                raise MetricError(
                    f"{type(self).__name__} needs class probabilities and this encoder has none; "
                    "choose encoder=pca, encoder=classifier or metrics=features"
                )
            if not torch.isfinite(rows).all():
                bad = (~torch.isfinite(rows)).any(1).nonzero().flatten()
                raise MetricError(
                    f"{type(self).__name__}: {len(bad)} of {len(rows)} {side} images have NaN or infinite {content} "
                    f"(first: image {bad[0].item()}); look at the samples of this model"
                )
            getattr(self, f"{side}_{content}").append(rows)

    @final
    def check(self, has_probabilities: bool) -> None:
        """Raises ConfigError, before anything is trained, if the encoder cannot give what this metric needs."""
        if self.needs_probabilities and not has_probabilities:
            raise ConfigError(
                f"the metric {type(self).__name__} needs class probabilities and this encoder has none; "
                "choose encoder=pca, encoder=classifier or metrics=features"
            )

    @final
    def reset(self) -> None:
        """Forgets the generated images and keeps the reference."""
        # Copies, because torchmetrics empties the lists in place.
        kept = {name: list(getattr(self, name)) for name in ("reference_features", "reference_probabilities")}
        super().reset()
        for name, value in kept.items():
            setattr(self, name, value)

    @final
    def compute(self) -> dict[str, Estimate]:
        """The metric's numbers by name.

        Raises:
            MetricError: if one side has fewer than two images.
        """
        for side in ("generated", "reference"):
            if sum(len(rows) for rows in _as_list(getattr(self, f"{side}_features"))) < 2:
                raise MetricError(f"{type(self).__name__} needs at least two {side} images")
        return self.score(self._side("generated"), self._side("reference"))

    @abstractmethod
    def score(self, generated: Encoded, reference: Encoded) -> dict[str, Estimate]:
        """The metric's numbers by name, from all images of both sides."""

    def _side(self, side: str) -> Encoded:
        features = dim_zero_cat(getattr(self, f"{side}_features"))
        probabilities = getattr(self, f"{side}_probabilities")
        return Encoded(features, dim_zero_cat(probabilities) if len(probabilities) else None)


def _as_list(state: list[Tensor] | Tensor) -> list[Tensor]:
    return state if isinstance(state, list) else [state]
