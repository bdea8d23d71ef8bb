"""What a metric sees: its numbers for real images that were damaged in a known way, in units of their own noise."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from collapse_bench.encoders.classifier import FrozenClassifier
from collapse_bench.errors import ConfigError
from collapse_bench.metrics.base import Estimate
from collapse_bench.metrics.functional.neighbours import nearest_distances
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.ruler import Ruler
from collapse_bench.seeding import RUN_LEVEL, Role, Stream
from collapse_bench.types import to_float, to_uint8

VISIBLE = 3.0
"""Standard deviations that a number must move by to count as seen."""

MAX_TRAINED_REPLICATES = 5
"""Replicates of metrics that train a network."""


@dataclass(frozen=True)
class Effect:
    """What one kind of damage does to one number.

    Args:
        number: name of the number.
        damage: name of the damage.
        better: which way is good, as in ``Estimate``.
        fresh: mean of the number for undamaged real images.
        spread: its standard deviation over the replicates.
        damaged: mean of the number for damaged images.
        num_replicates: replicates.
    """

    number: str
    damage: str
    better: str
    fresh: float
    spread: float
    damaged: float
    num_replicates: int

    @property
    def z(self) -> float:
        """The shift in standard deviations of a single measurement; infinite where fresh images do not vary.

        NaN where the number is not defined for one of the sets.
        """
        shift = self.damaged - self.fresh
        if self.spread == 0:
            return math.copysign(math.inf, shift) if shift else 0.0
        return shift / self.spread

    @property
    def worsening(self) -> float:
        """The shift with the sign of worse: positive where the number gets worse.

        Where the floor is best, any shift is worse. Where 1 is ideal, worse is farther from 1.
        """
        if self.better == "floor":
            return abs(self.z)
        if self.better == "one":
            return math.copysign(self.z, abs(self.damaged - 1) - abs(self.fresh - 1))
        return self.z if self.better == "lower" else -self.z

    @property
    def sight(self) -> str:
        """``"sees"`` (worse by ``VISIBLE`` or more), ``"inverted"`` (better by it), ``"blind"`` or ``"undefined"``."""
        if math.isnan(self.z):
            return "undefined"
        if self.worsening >= VISIBLE:
            return "sees"
        return "inverted" if self.worsening <= -VISIBLE else "blind"


@dataclass(frozen=True)
class Supply:
    """Real images from which damaged sets are made: those of one replicate that are not the reference.

    Args:
        fresh: encoded images.
        changed: the same images after a change of their pixels or features, by name.
        training: encoded images of the real pool.
        rng: random numbers of the replicate.
    """

    fresh: ImageSet
    changed: Mapping[str, ImageSet]
    training: ImageSet
    rng: torch.Generator


Damage = Callable[[Supply, int], ImageSet]
"""Makes a damaged set of so many images."""


def _repeated(supply: Supply, count: int) -> ImageSet:
    return supply.fresh.take(torch.zeros(count, dtype=torch.int64))


def _class_missing(supply: Supply, count: int) -> ImageSet:
    commonest = supply.fresh.labels.bincount().argmax()
    return supply.fresh.take((supply.fresh.labels != commonest).nonzero().flatten()[:count])


def _copies(supply: Supply, count: int) -> ImageSet:
    return supply.training.take(torch.randperm(len(supply.training), generator=supply.rng)[:count])


def _changed(name: str) -> Damage:
    return lambda supply, count: supply.changed[name].take(slice(count))


GROSS: Mapping[str, Damage] = {
    "fresh real draw": lambda supply, count: supply.fresh.take(slice(-count, None)),
    "blurred": _changed("blurred"),
    "shrunk to the mean": _changed("shrunk to the mean"),
    "one point repeated": _repeated,
    "one class missing": _class_missing,
    "noise": _changed("noise"),
    "copies of training": _copies,
}
"""Damages of the self-test. The first is none: another fresh draw, which no number may see."""


def _rarest_dropped(supply: Supply, count: int) -> ImageSet:
    counts = supply.fresh.labels.bincount().double()
    counts[counts == 0] = math.inf
    return supply.fresh.take((supply.fresh.labels != counts.argmin()).nonzero().flatten()[:count])


def _tails_cut(supply: Supply, count: int) -> ImageSet:
    # Far out is far from the training images, which are independent of all others.
    distances = nearest_distances(supply.fresh.features.double(), supply.training.features.double())
    border = distances.quantile(0.95)
    return supply.fresh.take((distances <= border).nonzero().flatten()[:count])


def _tempered(supply: Supply, count: int) -> ImageSet:
    shares = supply.fresh.labels.bincount().double() / len(supply.fresh)
    quota = (count * shares**1.5 / (shares**1.5).sum()).round().long()
    chosen = [(supply.fresh.labels == c).nonzero().flatten()[:n] for c, n in enumerate(quota.tolist())]
    return supply.fresh.take(torch.cat(chosen))


def _some_copies(supply: Supply, count: int) -> ImageSet:
    num_copies = count // 10
    return ImageSet.concat([supply.fresh.take(slice(count - num_copies)), _copies(supply, num_copies)])


def _half_repeated(supply: Supply, count: int) -> ImageSet:
    half = torch.arange(count - count // 2)
    return supply.fresh.take(torch.cat([half, half[: count // 2]]))


SUBTLE: Mapping[str, Damage] = {
    "within-class sd x 0.9": _changed("within-class sd x 0.9"),
    "tails cut at 95 %": _tails_cut,
    "a 1 % class dropped": _rarest_dropped,
    "classes tempered p^1.5": _tempered,
    "10 % copies of training": _some_copies,
    "half of the samples duplicated": _half_repeated,
}
"""Damages of the power study, in feature space, on long-tailed classes."""


def self_test(
    rulers: Sequence[Ruler],
    held_out: ImageSet,
    training: ImageSet,
    *,
    num_samples: int,
    num_reference: int,
    num_replicates: int,
) -> list[Effect]:
    """What each number makes of grossly damaged real images.

    Each replicate splits the held-out images at random into a reference and a supply of fresh images. The noise of a
    number is its standard deviation over the replicates for undamaged images.

    Args:
        rulers: encoders and metrics.
        held_out: real images with ``images``, ``labels`` and ``born``, on which nothing was trained.
        training: the real pool likewise.
        num_samples: images per scored set.
        num_reference: real images that they are scored against.
        num_replicates: random splits.

    Raises:
        ConfigError: if there are too few held-out images.
    """
    pixels = to_float(held_out.images)
    noise = torch.empty_like(pixels).normal_(generator=Stream(0, RUN_LEVEL, Role.ARTEFACT).generator())
    width = 0.5 + pixels.shape[-1] / 28  # 0.8 pixels for 8 x 8, 1.5 for 28 x 28
    changes = {
        "blurred": transforms.gaussian_blur(pixels, [2 * round(2 * width) + 1] * 2, [width] * 2),
        "shrunk to the mean": _shrunk(pixels, held_out.labels, 0.5),
        "noise": pixels + 0.4 * noise,
    }
    changed = {name: held_out.with_columns(images=to_uint8(images)) for name, images in changes.items()}
    return [
        effect
        for ruler in rulers
        for effect in _effects(
            ruler,
            GROSS,
            ruler.encoded_real(held_out),
            {name: ruler.encoded_real(images) for name, images in changed.items()},
            ruler.encoded_real(training),
            (num_samples, num_reference, num_replicates),
        )
    ]


def power_study(
    ruler: Ruler, held_out: ImageSet, training: ImageSet, *, num_samples: int, num_reference: int, num_replicates: int
) -> list[Effect]:
    """What each number makes of slight damages in the feature space of the frozen classifier.

    The classes are first thinned to shares that fall by a constant factor down to 1 %. Arguments are those of
    ``self_test``; images of changed features have no pixels, so numbers of pixels are not computed for them.

    Raises:
        ConfigError: if the encoder is not the classifier, or there are too few held-out images.
    """
    encoder = ruler.encoder
    if not isinstance(encoder, FrozenClassifier):
        raise ConfigError("the power study moves features and asks for their classes: choose encoder=classifier")
    encoded = ruler.encoded_real(held_out)
    encoded = encoded.take(_long_tailed(encoded.labels))
    features = _shrunk(encoded.features, encoded.labels, 0.9)
    shrunk = ImageSet(
        features=features,
        probabilities=encoder.classify(features.to(next(encoder.parameters()).device)).cpu(),
        labels=encoded.labels,
        born=encoded.born,
    )
    # Copies come from as long-tailed a pool, or they would change the class shares too.
    encoded_training = ruler.encoded_real(training.take(_long_tailed(training.labels)))
    counts = (num_samples, num_reference, num_replicates)
    return _effects(ruler, SUBTLE, encoded, {"within-class sd x 0.9": shrunk}, encoded_training, counts)


def _effects(
    ruler: Ruler,
    damages: Mapping[str, Damage],
    held_out: ImageSet,
    changed: Mapping[str, ImageSet],
    training: ImageSet,
    counts: tuple[int, int, int],
) -> list[Effect]:
    num_samples, num_reference, num_replicates = counts
    if len(held_out) < num_reference + 2 * num_samples:
        raise ConfigError(
            f"num_reference={num_reference} and twice num_samples={num_samples} are more than the {len(held_out)} "
            "held-out images; lower them, or raise dataset.num_reference and dataset.num_control"
        )
    ruler.see_encoded(training, "training")
    ruler.see_encoded(training, "real")
    rng = Stream(0, RUN_LEVEL, Role.FLOOR).generator()
    values: dict[tuple[str, str], list[float]] = {}
    directions: dict[str, str] = {}

    def note(damage: str, estimates: list[tuple[str, Estimate]]) -> None:
        for number, estimate in estimates:
            values.setdefault((number, damage), []).append(estimate.value)
            directions[number] = estimate.better

    for replicate in range(num_replicates):
        order = torch.randperm(len(held_out), generator=rng)
        rest = order[num_reference:]
        supply = Supply(
            held_out.take(rest), {name: images.take(rest) for name, images in changed.items()}, training, rng
        )
        metrics = [m for m in ruler.metrics if m.resampled or replicate < MAX_TRAINED_REPLICATES]
        at_work = ruler.with_metrics(metrics)
        at_work.see_encoded(held_out.take(order[:num_reference]), "reference")
        note("none", list(at_work.estimates_of_encoded(supply.fresh.take(slice(num_samples)))))
        for name, damage in damages.items():
            damaged = damage(supply, num_samples)
            if len(damaged) < 0.95 * num_samples:
                raise ConfigError(
                    f"only {len(damaged)} images are left for the damage {name!r}, num_samples={num_samples} are asked "
                    "for; lower num_samples"
                )
            able = [metric for metric in metrics if all(column in damaged for column in metric.columns)]
            note(name, list(at_work.with_metrics(able).estimates_of_encoded(damaged)))

    effects = []
    for (number, damage), damaged in values.items():
        if damage != "none":
            fresh = torch.tensor(values[number, "none"], dtype=torch.float64)
            spread = fresh.std().item() if len(fresh) > 1 else math.nan
            mean = torch.tensor(damaged, dtype=torch.float64).mean().item()
            effects.append(Effect(number, damage, directions[number], fresh.mean().item(), spread, mean, len(fresh)))
    return effects


def _shrunk(rows: Float[Tensor, "n ..."], labels: Int64[Tensor, " n"], factor: float) -> Tensor:
    """Every row moved toward the mean of its class."""
    shrunk = rows.clone()
    for label in labels.unique():
        here = labels == label
        mean = rows[here].mean(0)
        shrunk[here] = mean + factor * (rows[here] - mean)
    return shrunk


def _long_tailed(labels: Int64[Tensor, " n"]) -> Int64[Tensor, " m"]:
    """Positions of images whose class shares fall geometrically to 1 %, the first class being the commonest."""
    counts = labels.bincount()
    num_classes = len(counts)
    low, high = 0.0, 1.0
    for _ in range(60):  # bisection for the factor at which the last share is 1 %
        middle = (low + high) / 2
        shares = middle ** torch.arange(num_classes).double()
        low, high = (middle, high) if shares[-1] / shares.sum() < 0.01 else (low, middle)
    shares = low ** torch.arange(num_classes).double()
    shares = shares / shares.sum()
    total = (counts / shares).min()
    return torch.cat([(labels == c).nonzero().flatten()[: int(total * share)] for c, share in enumerate(shares)])
