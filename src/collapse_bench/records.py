"""Records: what is written down about one generation, as JSON, every number with its sample size."""

import base64
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

SCHEMA = 2
"""Version of the layout of a record; readers refuse others."""

REAL = -1
"""Stands for the generation of an image that no model made."""


def birth_name(born: int) -> str:
    """``"real"`` for real images, ``"gen_007"`` for those of generation 7."""
    return "real" if born == REAL else f"gen_{born:03d}"


@dataclass(frozen=True)
class Score:
    """One number of one metric.

    Args:
        metric: name of the number, for example ``"recall"``; ``"recall@classifier"`` in the features of an encoder
            other than the first.
        of: what was measured: ``"model"`` (fresh samples of the model), ``"kept"`` (the curated output that goes
            to the next generation), ``"unchanged"`` (the same images before the curator changed them), ``"control"``
            (the control set of real images), ``"floor"`` (real images over random splits of all held-out images
            into a reference and a control set: the real-vs-real floor), or ``"tuning"`` (other fresh samples of the
            last model, measured against the control set and not the reference: what options may be tuned by).
        value: the number; NaN where it is not defined for these samples, also after an infinite one was stored.
        num_samples: images measured.
        num_reference: held-out real images measured against.
        better: ``"lower"``, ``"higher"``, ``"one"`` (1 is ideal), or ``"floor"`` (best at the real-vs-real floor).
        low: lower end of a 95 % interval over the finite sample, where the metric has one.
        high: upper end.
        null: the mean of the number for a perfect model at these sample sizes, where it is known; exact but for class
            KL and class G, whose nulls are asymptotic.
        spread: standard deviation over the splits, for a floor; the value is their mean.
    """

    metric: str
    of: str
    value: float
    num_samples: int
    num_reference: int
    better: str
    low: float | None = None
    high: float | None = None
    null: float | None = None
    spread: float | None = None


@dataclass(frozen=True)
class Spent:
    """What one generation cost, counted by the loop.

    Args:
        gradient_steps: optimiser steps of all fits, also of those that were reused from the store.
        networks_trained: networks fitted, likewise.
        candidates: candidate images drawn for the pool.
        kept: images kept of them.
        other_samples: images drawn for another end than the next pool: to refine a model, or as batches of a fit.
        network_evaluations_per_sample: forward passes of a network per candidate.
        judging_evaluations: forward passes of a network on candidates and images of the training pool to judge them,
            one per image, all together; absent from older records, which count as 0. Labelling, measuring and what
            trains a judge are not among them.
        real_images_seen: distinct real images each trained part has seen, by part.
        real_images: which they were, by part, as ``pack_ids`` writes them; absent from older records.
        artefacts: what was learnt once for the whole chain (a verifier, cluster centres, ...) and is counted here.
        artefact_keys: hash of what each of them was learnt from; absent from older records.
        peak_memory_mb: most memory of the process so far, in MiB, the libraries included.
        peak_device_memory_mb: most memory that tensors had on the GPU in this generation, in MiB; 0 without one, and
            in older records.
        reused: fits and artefacts that came from the store.
        seconds: wall time by phase (``fit``, ``sample``, ``measure``, ...).
    """

    gradient_steps: int = 0
    networks_trained: int = 0
    candidates: int = 0
    kept: int = 0
    other_samples: int = 0
    network_evaluations_per_sample: int = 0
    judging_evaluations: int = 0
    real_images_seen: Mapping[str, int] = field(default_factory=dict)
    real_images: Mapping[str, str] = field(default_factory=dict)
    artefacts: tuple[str, ...] = ()
    artefact_keys: Mapping[str, str] = field(default_factory=dict)
    peak_memory_mb: int = 0
    peak_device_memory_mb: int = 0
    reused: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def num_real_images(self) -> int:
        """Distinct real images seen by all trained parts together; in older records, by the part that saw most."""
        return max(num_ids(union_of_ids(self.real_images.values())), *self.real_images_seen.values(), 0)


@dataclass(frozen=True)
class Record:
    """Everything that is written down about one generation.

    Args:
        generation: 0 is the model fitted on real images only.
        seed: seed of the chain.
        scores: the numbers.
        train_pool: images in the training pool, by birth (``"real"``, ``"gen_000"``, ...).
        train_shares: their shares of the sampling probability, which add up to 1: how often images of each
            birth were drawn. Gates are not in it: an image that is trained on at some noise levels alone counts in
            full.
        kept_labels: where the labels of the kept images come from: ``"condition"``, ``"classifier"`` (samples of an
            unconditional model, classified; numbers of kept images that look at labels then judge that classifier
            too), or ``"none"``.
        num_parameters: parameters of the model.
        losses: training loss, as (step, mean since the previous entry).
        encoder: content hash of the encoder and the reference set; scores with different ones do not compare.
        spent: what the generation cost.
    """

    generation: int
    seed: int
    scores: tuple[Score, ...]
    train_pool: Mapping[str, int]
    train_shares: Mapping[str, float]
    kept_labels: str
    num_parameters: int
    losses: tuple[tuple[int, float], ...]
    encoder: str
    spent: Spent
    schema: int = SCHEMA

    def score(self, metric: str, of: str = "model") -> float:
        """The value of one number.

        Raises:
            KeyError: if it was not measured.
        """
        for score in self.scores:
            if (score.metric, score.of) == (metric, of):
                return score.value
        raise KeyError(f"generation {self.generation} has no {metric!r} of {of!r}")

    @property
    def deterministic(self) -> dict[str, Any]:
        """The record without what clock, cache and memory decide: equal between two equal runs on one machine."""
        content = self.to_dict()
        for name in ("seconds", "reused", "peak_memory_mb", "peak_device_memory_mb"):
            del content["spent"][name]
        return content

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        content = asdict(self)
        for score in content["scores"]:
            for key in ("value", "low", "high", "null", "spread"):
                score[key] = score[key] if score[key] is not None and math.isfinite(score[key]) else None
        return json.loads(json.dumps(content, allow_nan=False))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """What ``to_dict`` gave.

        Raises:
            ValueError: for a record of another schema.
        """
        if content.get("schema") != SCHEMA:
            raise ValueError(f"a record of schema {content.get('schema')}, this version reads schema {SCHEMA}")
        values = {f.name: content[f.name] for f in fields(cls)}
        values["scores"] = tuple(
            Score(**{**s, "value": math.nan if s["value"] is None else s["value"]}) for s in content["scores"]
        )
        values["losses"] = tuple((step, loss) for step, loss in content["losses"])
        lists = {name: tuple(content["spent"][name]) for name in ("reused", "artefacts")}
        values["spent"] = Spent(**{**content["spent"], **lists})
        return cls(**values)


def pack_ids(ids: Iterable[int]) -> str:
    """A set of ids of real images as a short text: one bit for each possible id, compressed, as base 64.

    Args:
        ids: not negative.
    """
    bits = bytearray()
    for number in ids:
        byte, bit = divmod(number, 8)
        bits.extend(bytes(max(0, byte + 1 - len(bits))))
        bits[byte] |= 1 << bit
    return base64.b64encode(zlib.compress(bytes(bits))).decode("ascii")


def union_of_ids(packed: Iterable[str]) -> str:
    """The ids that are in any of several sets; all sets are as ``pack_ids`` writes them."""
    bits = 0
    for text in packed:
        bits |= _bits(text)
    return base64.b64encode(zlib.compress(bits.to_bytes((bits.bit_length() + 7) // 8, "little"))).decode("ascii")


def num_ids(packed: str) -> int:
    """The number of ids in a set that ``pack_ids`` wrote."""
    return _bits(packed).bit_count()


def _bits(packed: str) -> int:
    return int.from_bytes(zlib.decompress(base64.b64decode(packed)), "little")
