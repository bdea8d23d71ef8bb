"""Synthetic images are trained on only under so much noise that they cannot be told from real ones."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.generators.diffusion import NoisyModel
from collapse_bench.mitigations.base import Weigher
from collapse_bench.mitigations.discriminator import Discriminator
from collapse_bench.now import Now, Setting
from collapse_bench.pool import REAL, Pool, VisiblePool
from collapse_bench.seeding import Role, isolated_rng
from collapse_bench.training import FitJob
from collapse_bench.types import ImageSpec, to_float


@final
@dataclass(frozen=True, kw_only=True)
class TimeGate(Weigher):
    """Trains on a synthetic image at the noise levels at which a discriminator cannot tell it from a real one.

    Ambient Diffusion Omni (Daras et al. 2025, arXiv:2506.10038): a discriminator c(x, level) learns to tell noisy real
    images from noisy samples, and image i is used from its least noise inf {level: c(x_i, level) >= 1/2 - tolerance}
    on. Where noisy real images and samples are distributed alike, the denoiser of both is the same (Tweedie's
    formula), so what remains is not biased. Differences: the paper's loss starts from the image at its least noise and
    adds the rest, here the family's own loss is multiplied by 0 or 1; the paper's discriminator is trained once, here
    in every generation after 0, on the trusted images and as many fresh samples of the previous model, from a stream
    of their own: the samples in the pool are not among them.

    An image that passes at the highest level is used at every level, one that fails at the lowest at none. Images that
    are known to be real always pass: all real ones where origin is visible, the trusted ones where it is lost. Images
    are drawn as often as without a gate, and losses in the record count those that are left out as 0.

    With ``tolerance=0.5`` it equals the control bit for bit, and no discriminator is trained.

    Args:
        tolerance: how far below 1/2 the probability of being real may lie, in [0, 0.5].
        lowest_log_snr: log signal-to-noise ratio of the noisiest level, see ``NoisyModel``.
        highest_log_snr: that of the level with least noise.
        num_levels: equally spaced levels at which images are judged, at least 2; it is trained at all between.
        num_draws: noises over which the probability is averaged, others for each image.
        discriminator: the network; its steps are spent in every generation after 0.
    """

    tolerance: float
    lowest_log_snr: float
    highest_log_snr: float
    num_levels: int
    num_draws: int
    discriminator: Discriminator

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 0.5:
            raise ConfigError(f"mitigation.weigher.tolerance must lie in [0, 0.5], got {self.tolerance}")
        if not self.lowest_log_snr < self.highest_log_snr:
            raise ConfigError(
                f"mitigation.weigher.lowest_log_snr must lie below highest_log_snr, got {self.lowest_log_snr} and "
                f"{self.highest_log_snr}"
            )
        if self.num_levels < 2 or self.num_draws < 1:
            raise ConfigError(
                "mitigation.weigher needs num_levels of at least 2 and num_draws of at least 1, got "
                f"{self.num_levels} and {self.num_draws}"
            )

    def check(self, setting: Setting) -> None:
        """Raises ConfigError for a family without noise levels, or if too little is known to be real."""
        with isolated_rng(0):
            model = setting.generator.empty_model(setting.spec)
        if not isinstance(model, NoisyModel):
            raise ConfigError(
                "mitigation=time_gate leaves images out at some noise levels, and the generator makes a "
                f"{type(model).__name__}, which is not fitted to noisy images; choose generator=flow, ddpm or edm, or "
                "mitigation=detector, which goes with every family"
            )
        if len(setting.trusted) < 8:
            raise ConfigError(
                "mitigation=time_gate needs at least 8 images that are known to be real, and there are "
                f"{len(setting.trusted)}; raise regime.num_trusted"
            )

    def weigh(self, train: VisiblePool, now: Now) -> Float[Tensor, " n"]:
        """Ones."""
        return torch.ones(len(train), dtype=torch.float64)

    def gate(self, train: VisiblePool, now: Now) -> Float[Tensor, " n"] | None:
        """See ``Weigher.gate``; ``None`` if there is nothing to judge."""
        judged = (~known_real(train, now.setting)).nonzero().flatten()
        if now.chain.model is None or self.tolerance == 0.5 or len(judged) == 0:
            return None
        levels = torch.linspace(self.highest_log_snr, self.lowest_log_snr, self.num_levels).tolist()
        gates = torch.full((len(train),), math.inf, dtype=torch.float64)
        gates[judged] = -math.inf
        learnt = self._learnt(now)
        with now.timed("weigh"):
            for level in levels:
                if len(judged) == 0:
                    break
                now.spend(judging_evaluations=len(judged) * self.num_draws)
                passed = judged[self._passes(train.images[judged], level, learnt, now)]
                gates[passed] = math.inf if level == levels[0] else level
                judged = judged[gates[judged] == -math.inf]
        return gates

    def flags(self, images: Tensor, now: Now) -> Bool[Tensor, " n"] | None:
        """Images that would be left out at the level with least noise, and so at some levels at least."""
        if now.chain.model is None or self.tolerance == 0.5:
            return None
        return ~self._passes(images, self.highest_log_snr, self._learnt(now), now)

    def _passes(self, images: Tensor, level: float, learnt: dict[str, Tensor], now: Now) -> Bool[Tensor, " n"]:
        """Which images are taken for real at a level, with a probability of at least 1/2 - ``tolerance``."""
        setting = now.setting
        # Of its own for each image: under much noise a view is little else, and all images would pass or fail together.
        rng = now.stream(Role.WEIGH).generator()

        def probability(batch: Tensor) -> Float[Tensor, " batch"]:
            clean, levels = to_float(batch), torch.full((len(batch),), level)
            noises = torch.randn(self.num_draws, *clean.shape, generator=rng)
            views = [noisy(clean, levels, noise) for noise in noises]
            odds = [self.discriminator.realness(v, learnt, seen(setting.spec), setting.trainer.device) for v in views]
            return torch.stack(odds).sigmoid().mean(0)

        return torch.cat([probability(batch) for batch in images.split(1000)]) >= 0.5 - self.tolerance

    def _learnt(self, now: Now) -> dict[str, Tensor]:
        """Parameters of the discriminator of this generation."""
        previous, setting = now.chain.model, now.setting
        assert isinstance(previous, Model)
        sampler = setting.sampler_at(now.generation - 1)

        def noisy_at_any_level(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c_and_level h w"]:
            level = torch.empty(len(images), device=images.device)
            level.uniform_(self.lowest_log_snr, self.highest_log_snr)
            return noisy(images, level, torch.randn_like(images))

        def build(trusted: Pool, job: FitJob) -> Mapping[str, Tensor]:
            seeds = now.stream(Role.WEIGH).image_seeds(0, len(trusted))
            made, labels = sampler.sample(previous.to(setting.trainer.device), seeds)
            samples = Pool.sampled(made, labels, seeds, start=0, born=now.generation - 1, source="previous")
            return self.discriminator.fit(trusted, samples, seen(setting.spec), job, noisy_at_any_level)

        return now.artefact(
            f"time_gate_{now.generation}",
            setting.trusted,
            build,
            *(self.discriminator, self.lowest_log_snr, self.highest_log_snr, previous, sampler),
            num_steps=self.discriminator.num_steps,
            num_samples=len(setting.trusted),
        )


def known_real(train: VisiblePool, setting: Setting) -> Bool[Tensor, " n"]:
    """Images of a pool that are real for certain: by their origin, or where it is lost by being a trusted one."""
    if "born" not in setting.hidden:
        return train.born == REAL
    trusted = {image.numpy().tobytes() for image in setting.trusted.images}
    return torch.tensor([image.numpy().tobytes() in trusted for image in train.images])


def noisy(
    images: Float[Tensor, "n c h w"], level: Float[Tensor, " n"], noise: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n c_and_level h w"]:
    """Noisy images alpha image + sigma noise, and one more channel that says how much noise.

    Args:
        images: in [-1, 1].
        level: log(alpha^2 / sigma^2), where alpha^2 + sigma^2 = 1.
        noise: standard normal.
    """
    level = level.view(-1, 1, 1, 1)
    mixed = level.sigmoid().sqrt() * images + (-level).sigmoid().sqrt() * noise
    return torch.cat([mixed, (level / 4.0).expand_as(mixed[:, :1])], dim=1)


def seen(spec: ImageSpec) -> ImageSpec:
    """Shape of what ``noisy`` gives."""
    return replace(spec, channels=spec.channels + 1)
