"""A network that is trained to tell real images from samples, in every generation anew."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool
from torch import Tensor

from collapse_bench.generators.base import Model
from collapse_bench.mitigations.detection import Detection
from collapse_bench.mitigations.discriminator import Discriminator
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.seeding import Role
from collapse_bench.training import FitJob


@final
@dataclass(frozen=True, kw_only=True)
class Detector(Detection):
    """Drops or down-weights images that a discriminator takes for samples of the previous model.

    It trains on three quarters of the images that are known to be real and as many fresh samples of the previous
    model, from a stream of their own: the samples in the pool are not among them. The last quarter sets the threshold.
    It looks at pixels only, so it can be used where origin is lost. In generation 0 there is nothing to detect and no
    detector; what is flagged of a generation's own samples says how well it works one generation later.

    Args:
        weight: see ``Detection``.
        frac_false_positive: see ``Detection``.
        discriminator: the network; its steps are spent in every generation after 0.
    """

    name: ClassVar[str] = "detector"
    num_networks: ClassVar[int] = 1

    discriminator: Discriminator

    def flags(self, images: Tensor, now: Now) -> Bool[Tensor, " n"] | None:
        """Images that are less real than all but ``frac_false_positive`` of the real images of the last quarter."""
        previous, setting = now.chain.model, now.setting
        if previous is None:
            return None
        assert isinstance(previous, Model)
        sampler = setting.sampler_at(now.generation - 1)
        num_learnt = 3 * len(setting.trusted) // 4

        def build(trusted: Pool, job: FitJob) -> Mapping[str, Tensor]:
            order = torch.randperm(len(trusted), generator=torch.Generator().manual_seed(job.seed))
            real, others = trusted.take(order[:num_learnt]), trusted.take(order[num_learnt:])
            seeds = now.stream(Role.WEIGH).image_seeds(0, num_learnt)
            made, labels = sampler.sample(previous.to(setting.trainer.device), seeds)
            samples = Pool.sampled(made, labels, seeds, start=0, born=now.generation - 1, source="previous")
            parameters = self.discriminator.fit(real, samples, setting.spec, job)
            return {**parameters, "calibration": self._realness(others.images, parameters, now)}

        learnt = now.artefact(
            f"detector_{now.generation}",
            setting.trusted,
            build,
            *(self.discriminator, previous, sampler),
            num_steps=self.discriminator.num_steps,
            num_samples=num_learnt,
        )
        threshold = learnt.pop("calibration").quantile(self.frac_false_positive)
        return self._realness(images, learnt, now) < threshold

    def _realness(self, images: Tensor, parameters: dict[str, Tensor], now: Now) -> Tensor:
        setting = now.setting
        return self.discriminator.realness(images, parameters, setting.spec, setting.trainer.device)
