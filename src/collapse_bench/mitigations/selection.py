"""What selecting curators share: how many candidates there are, what is looked at, and how a quota is split."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from collapse_bench.encoders.base import Encoder
from collapse_bench.errors import ConfigError, SelectionError
from collapse_bench.mitigations.base import Curator
from collapse_bench.now import Now, Setting
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw
from collapse_bench.seeding import RUN_LEVEL, Role, Stream


@dataclass(frozen=True, kw_only=True)
class Selection(Curator):
    """Keeps n of a fixed multiple of n candidates, in the order in which they were drawn.

    With one candidate per image kept nothing is left to choose: every selection then equals the control.

    Args:
        candidates_per_kept: candidates drawn per image that is needed, at least 1.
    """

    reason: ClassVar[str]
    """Why an image was kept, as pools record it."""

    candidates_per_kept: float

    def __post_init__(self) -> None:
        if not self.candidates_per_kept >= 1:
            raise ConfigError(
                f"mitigation.curator.candidates_per_kept must be at least 1, got {self.candidates_per_kept}"
            )

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if the budget does not allow that many candidates."""
        check_candidates("candidates_per_kept", self.candidates_per_kept, setting)

    @final
    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        """The selected images; see ``select``."""
        candidates = self.candidates(draw, num_needed, now)
        index = self.select(candidates, num_needed, draw, now)
        return candidates.take(index.cpu().sort().values, because=self.reason)

    def candidates(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        """What is selected from: the next images of the sampler."""
        del now  # human audit goes on with those of an earlier attempt
        return draw(round(self.candidates_per_kept * num_needed))

    @abstractmethod
    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """Positions of the images to keep, in any order.

        Args:
            candidates: what to select from.
            num_needed: how many to keep.
            draw: what made them.
            now: this generation.
        """


@dataclass(frozen=True, kw_only=True)
class FeatureSelection(Selection):
    """A selection that compares images by features, which are learnt from the trusted real images if from any.

    Args:
        candidates_per_kept: see ``Selection``.
        features: in what images are compared.
    """

    features: Encoder

    def check(self, setting: Setting) -> None:
        """Raises ConfigError as ``Selection`` does, or if the features cannot be learnt."""
        super().check(setting)
        check_features(self.features, setting)


@dataclass(frozen=True, kw_only=True)
class ReferenceSelection(FeatureSelection):
    """A selection toward real images, or toward a biased slice of them.

    Args:
        candidates_per_kept: see ``Selection``.
        features: see ``FeatureSelection``.
        reference_classes: classes of the real images that candidates are held against; ``None`` is all of them. The
            features are learnt from all trusted images, whatever this is.
    """

    reference_classes: tuple[int, ...] | None

    def check(self, setting: Setting) -> None:
        """Raises ConfigError as ``FeatureSelection`` does, or if there is no real image of a reference class."""
        super().check(setting)
        check_real(setting)
        present = setting.trusted.labels.unique().tolist()
        for label in self.reference_classes or ():
            if label not in present:
                raise ConfigError(
                    f"mitigation.curator.reference_classes: no real image has the class {label}; classes: {present}"
                )

    @final
    def learn(self, build: Callable[[Float[Tensor, "n d"], int], Mapping[str, Tensor]], now: Now) -> dict[str, Tensor]:
        """What is learnt once from the features of the reference, on the trainer's device.

        Args:
            build: (features in float64, seed) -> named tensors.
            now: this generation.
        """
        real, encoder = now.setting.trusted, now.encoder(self.features)
        if self.reference_classes is not None:
            real = real.take(torch.isin(real.labels, torch.tensor(self.reference_classes)).nonzero().flatten())
        learnt = now.artefact(
            "reference",
            real,
            lambda pool, job: build(encoder.encode(pool.images).features.double(), job.seed),
            self,
            encoder,  # learnt from all trusted images, of which the reference may be a part
        )
        return {name: tensor.to(now.setting.trainer.device) for name, tensor in learnt.items()}


def encode(images: Tensor, encoder: Encoder, now: Now) -> Float[Tensor, "n d"]:
    """Features of images in float64, on the trainer's device."""
    return now.encode(images, encoder).features.to(now.setting.trainer.device).double()


def highest(scores: Float[Tensor, " n"], num: int) -> Int64[Tensor, " num"]:
    """Positions of the ``num`` highest scores; of equal scores the first ones."""
    return scores.argsort(descending=True, stable=True)[:num]


def highest_of_each_group(scores: Float[Tensor, " n"], groups: Int64[Tensor, " n"], num: int) -> Int64[Tensor, " num"]:
    """Positions of the highest scores of each group, whose numbers are in proportion to the groups' sizes."""
    present, counts = groups.unique(return_counts=True)
    best = []
    for group, quota in zip(present, shares(counts, num), strict=True):
        members = (groups == group).nonzero().flatten()
        best.append(members[highest(scores[members], int(quota))])
    return torch.cat(best)


def shares(counts: Int64[Tensor, " k"], total: int) -> Int64[Tensor, " k"]:
    """``total`` split in proportion to ``counts`` by largest remainders; never more than the count, if that can be."""
    products = counts * total
    quotas = products // counts.sum()
    quotas[highest(products % counts.sum(), total - int(quotas.sum()))] += 1
    return quotas


def real_subset(num: int | None, name: str, now: Now) -> Pool:
    """A random subset of the trusted real images, the same at every generation; ``None`` is all of them.

    Args:
        num: real images.
        name: of what they are for; it names the random numbers.
        now: this generation.
    """
    real = now.setting.trusted
    if num is None:
        return real
    rng = Stream(now.seed, RUN_LEVEL, f"{Role.ARTEFACT}/{name}/real").generator()
    return real.take(torch.randperm(len(real), generator=rng)[:num].sort().values)


def check_candidates(option: str, num: float, setting: Setting) -> None:
    """Raises ConfigError if the budget does not allow ``num`` candidates per image kept."""
    if num > setting.budget.max_candidates:
        raise ConfigError(
            f"mitigation.curator.{option}={num:g} is more than budget.max_candidates="
            f"{setting.budget.max_candidates:g}; lower the one or raise the other, or choose another mitigation=..."
        )


def check_real(setting: Setting, num: int | None = None) -> None:
    """Raises ConfigError if not ``num`` real images are known to be real; ``None`` asks for any."""
    if not 1 <= (1 if num is None else num) <= len(setting.trusted):
        raise ConfigError(
            f"the mitigation looks at {num or 'some'} real images, and {len(setting.trusted)} are known to be real; "
            "change its number, give the regime more of them, or choose another mitigation=..."
        )


def check_features(features: Encoder, setting: Setting) -> None:
    """Raises ConfigError if the features cannot be learnt from the images that are known to be real."""
    try:
        features.check(setting.trusted, setting.spec)
    except ConfigError as error:
        raise ConfigError(
            f"the features of the mitigation cannot be learnt from the {len(setting.trusted)} images that are known to "
            f"be real ({error}); ask less of the features, give the regime more such images, or choose another "
            "mitigation=..."
        ) from error


def draw_until(
    num_needed: int,
    accept: Callable[[Pool], Int64[Tensor, " k"]],
    because: str,
    remedy: Callable[[], str],
    draw: Draw,
    now: Now,
) -> Pool:
    """The first ``num_needed`` candidates that are accepted; no more are drawn than that takes, but for what is rare.

    Args:
        num_needed: how many.
        accept: positions of what is accepted of some candidates, which it sees once and in order.
        because: why an image was kept.
        remedy: says what is missing and what to do, when the budget ends first.
        draw: gives the candidates.
        now: this generation.

    Raises:
        SelectionError: if all candidates that the budget allows do not suffice.
    """
    kept: list[Pool] = []
    num_kept = in_vain = 0
    while num_kept < num_needed:
        # What is rare is not looked for one by one: after a draw in vain the next one is twice as large.
        count = min(max(num_needed - num_kept, 2 * in_vain), draw.limit - draw.num_drawn)
        if count == 0:
            raise SelectionError(
                f"generation {now.generation}: {num_kept} of {draw.num_drawn} candidates were kept, {num_needed} are "
                f"needed, and budget.max_candidates allows no more; {remedy()}"
            )
        candidates = draw(count)
        kept.append(candidates.take(accept(candidates), because))
        num_kept += len(kept[-1])
        in_vain = 0 if len(kept[-1]) else count
    return Pool.concat(kept).take(torch.arange(num_needed))


def k_means(points: Float[Tensor, "n d"], num_clusters: int, seed: int) -> Float[Tensor, "k d"]:
    """Cluster centres: Lloyd's algorithm from a k-means++ start.

    Args:
        points: what is clustered.
        num_clusters: k, or the number of distinct points if that is less.
        seed: of the start.
    """
    num_clusters = min(num_clusters, len(points.unique(dim=0)))
    # Several threads would add up the centres in any order.
    with threadpool_limits(1):
        fitted = KMeans(num_clusters, n_init="auto", random_state=seed % 2**32).fit(points.cpu().numpy())
    return torch.from_numpy(fitted.cluster_centers_).to(points)


def nearest(points: Float[Tensor, "n d"], others: Float[Tensor, "m d"]) -> tuple[Tensor, Int64[Tensor, " n"]]:
    """Distance of each point to the nearest of others, and its position; never all pairs in memory at once."""
    rows = [torch.cdist(chunk, others).min(1) for chunk in points.split(1024)]
    return torch.cat([row.values for row in rows]), torch.cat([row.indices for row in rows])
