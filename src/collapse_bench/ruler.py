"""A ruler: the metrics in the features of one encoder."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from collapse_bench.distributed import gathered, is_shared, num_processes, own_part
from collapse_bench.encoders.base import Encoded, FittedEncoder
from collapse_bench.fingerprint import code_version, fingerprint
from collapse_bench.metrics.base import Estimate, GenerativeMetric, Side
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.pool import Pool
from collapse_bench.store import Store


@dataclass(frozen=True, eq=False)
class Ruler:
    """The metrics in the features of one encoder.

    Args:
        encoder: gives the features.
        suffix: is added to the names of all numbers.
        metrics: hold the real images that they have been shown.
        store: where features of real images are kept, by content.
    """

    encoder: FittedEncoder
    suffix: str
    metrics: Sequence[GenerativeMetric]
    store: Store

    def with_metrics(self, metrics: Sequence[GenerativeMetric]) -> "Ruler":
        """The same ruler with other metrics."""
        return replace(self, metrics=metrics)

    def looking_at(self, side: Side) -> "Ruler":
        """Those metrics that look at a side."""
        return self.with_metrics([metric for metric in self.metrics if side in metric.sides])

    def without(self, side: Side) -> "Ruler":
        """Those metrics that do not look at a side."""
        return self.with_metrics([metric for metric in self.metrics if side not in metric.sides])

    def resampled(self) -> "Ruler":
        """Copies of those metrics whose floor is computed by resampling."""
        metrics = [metric for metric in self.without("training").metrics if metric.resampled]
        return self.with_metrics(copy.deepcopy(metrics))

    def see(self, images: ImageSet | None, side: Side) -> None:
        """Replaces the real images of a side, or forgets them; of several processes each keeps its own part."""
        looking = self.looking_at(side)
        encoded = None if images is None else _own(looking.encoded_real(images))
        gathered(lambda: looking.see_encoded(encoded, side), f"{side} images")

    def see_encoded(self, encoded: ImageSet | None, side: Side) -> None:
        """As ``see``, for images that have the encoder's columns; of several processes each names its part."""
        for metric in self.looking_at(side).metrics:
            metric.forget(side)
            if encoded is not None:
                metric.update(encoded, side=side)

    def estimates(self, images: ImageSet) -> Iterator[tuple[str, Estimate]]:
        """All numbers for these generated (or control) images, of the metrics that know the images they need.

        Several processes encode a part of the images each, and torchmetrics brings together what they have.
        """
        ready = self.with_metrics([metric for metric in self.metrics if metric.is_ready])
        own = _own(images)
        gathered(lambda: ready._see_generated(ready.encoded(own)), f"estimates of {len(images)} images")
        yield from ready._computed()

    def estimates_of_encoded(self, encoded: ImageSet) -> Iterator[tuple[str, Estimate]]:
        """As ``estimates``, for images that have the encoder's columns; of several processes each names its part."""
        self._see_generated(encoded)
        yield from self._computed()

    def _see_generated(self, encoded: ImageSet) -> None:
        for metric in self.metrics:
            metric.reset()
            metric.update(encoded, side="generated")

    def _computed(self) -> Iterator[tuple[str, Estimate]]:
        for metric in self.metrics:
            for name, estimate in metric.compute().items():
                yield f"{name}{self.suffix}", estimate

    def encoded(self, images: ImageSet) -> ImageSet:
        """The images with the encoder's columns, where a metric needs them."""
        return _with_encoded(images, self.encoder.encode(images.images)) if self._needs_encoder else images

    def encoded_real(self, images: ImageSet) -> ImageSet:
        """As ``encoded``, from the store where the same images were encoded before."""
        return _with_encoded(images, self._encode_real(images)) if self._needs_encoder else images

    def accuracy(self, images: ImageSet) -> float | None:
        """Share of real images whose most probable class is their label; None without classes."""
        return self._encode_real(images).accuracy(images.labels)

    @property
    def _needs_encoder(self) -> bool:
        return any(metric.needs_encoder for metric in self.metrics)

    def _encode_real(self, images: ImageSet) -> Encoded:
        def build() -> dict[str, torch.Tensor]:
            encoded = self.encoder.encode(images.images)
            columns = {"features": encoded.features}
            return columns if encoded.probabilities is None else columns | {"probabilities": encoded.probabilities}

        # Threads, processes and the device decide the last digits, as everywhere.
        where = (torch.get_num_threads(), num_processes(), self.encoder.device.type)
        key = fingerprint(code_version(), self.encoder.package, self.encoder, images.images, *where)
        tensors, _ = self.store.get_or_build("features", key, build, together=True)
        return Encoded(tensors["features"], tensors.get("probabilities"))


def rulers_of(
    encoders: Mapping[str, FittedEncoder], metrics: Sequence[GenerativeMetric], examples: ImageSet, store: Store
) -> list[Ruler]:
    """A ruler per encoder.

    Numbers of the first have plain names, others are called ``recall@classifier`` and do without the metrics that look
    at nothing an encoder gives. Metrics that need class probabilities are left out where an encoder has none.

    Args:
        encoders: by name.
        metrics: are copied.
        examples: a few images.
        store: where features of real images are kept.
    """
    rulers: list[Ruler] = []
    for name, encoder in encoders.items():
        has_probabilities = encoder.encode(examples.images[:2]).probabilities is not None
        chosen = [metric for metric in metrics if has_probabilities or "probabilities" not in metric.columns]
        if rulers:
            chosen = [metric for metric in chosen if metric.needs_encoder]
        rulers.append(Ruler(encoder, f"@{name}" if rulers else "", copy.deepcopy(chosen), store))
    return rulers


def image_set(pool: Pool) -> ImageSet:
    """A pool as metrics see it."""
    return ImageSet(images=pool.images, labels=pool.labels, born=pool.born)


def _own(images: ImageSet) -> ImageSet:
    """This process's part of the images."""
    return images.take(own_part(len(images))) if is_shared() else images  # the same object knows its hashes


def _with_encoded(images: ImageSet, encoded: Encoded) -> ImageSet:
    if encoded.probabilities is None:
        return images.with_columns(features=encoded.features)
    return images.with_columns(features=encoded.features, probabilities=encoded.probabilities)
