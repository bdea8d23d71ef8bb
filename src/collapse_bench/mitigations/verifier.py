"""Verified retraining: only what an external judge takes for real goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Int64
from torch import Tensor

from collapse_bench.generators.base import Model
from collapse_bench.mitigations.classes import check_per_class
from collapse_bench.mitigations.discriminator import Discriminator
from collapse_bench.mitigations.selection import Selection, check_real, highest, highest_of_each_group, real_subset
from collapse_bench.now import Now, Setting
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw
from collapse_bench.seeding import RUN_LEVEL, Role, Stream
from collapse_bench.training import FitJob


@final
@dataclass(frozen=True, kw_only=True)
class Verifier(Selection):
    """Keeps, of every class, the candidates that a discriminator takes most surely for real.

    The discriminator-filtered retraining of Yi et al. 2026 (arXiv:2510.16657; for verification in general Feng et
    al. 2024, arXiv:2406.07515): a discriminator is trained once, on real images against as many samples of the
    generation-0 model, and judges all generations; the top 10 % of each class are kept, which is
    ``candidates_per_kept=10``. It looks at ``num_real`` real images. With ``candidates_per_kept=1`` it equals the
    control bit for bit.

    Args:
        candidates_per_kept: see ``Selection``; the reciprocal of the share that is kept.
        discriminator: the verifier.
        num_real: real images that it may see: the fewer, the weaker it is; ``None`` is all that are known to be real.
        per_class: keep a share of every class, which asks for the class of each sample; ``False`` is another method:
            the most real ones of all, however few of a class.
    """

    reason: ClassVar[str] = "verified"

    discriminator: Discriminator
    num_real: int | None
    per_class: bool = True

    def check(self, setting: Setting) -> None:
        """Raises ConfigError as ``Selection`` does, if there are not that many real images, or samples lack classes."""
        super().check(setting)
        check_per_class("verifier", self.per_class, setting)
        check_real(setting, self.num_real)

    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """The most real ones of each class, as many as its share of the candidates; or of all."""
        first = draw.model if now.generation == 0 else now.chain.first
        assert isinstance(first, Model)
        setting, sampler = now.setting, now.setting.sampler_at(0)

        def build(real: Pool, job: FitJob) -> Mapping[str, Tensor]:
            # Streams of their own: what the verifier was trained on is never a candidate.
            seeds = Stream(now.seed, RUN_LEVEL, f"{Role.ARTEFACT}/verifier/samples").image_seeds(0, len(real))
            images, labels = sampler.sample(first.to(setting.trainer.device), seeds)
            generated = first.as_pool(images, labels, seeds, start=0, born=0)
            return self.discriminator.fit(real, generated, setting.spec, job)

        real = real_subset(self.num_real, "verifier", now)
        parameters = now.artefact(
            "verifier",
            real,
            build,
            *(self.discriminator, first, sampler),
            num_steps=self.discriminator.num_steps,
            num_samples=len(real),
        )
        realness = self.discriminator.realness(candidates.images, parameters, setting.spec, setting.trainer.device)
        now.spend(judging_evaluations=len(candidates))
        if not self.per_class:
            return highest(realness, num_needed)
        return highest_of_each_group(realness, candidates.labels, num_needed)
