"""The fully synthetic loop without a finite pool."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from collapse_bench.fingerprint import fingerprint
from collapse_bench.generators.base import Model
from collapse_bench.now import Now
from collapse_bench.pool import LivePool
from collapse_bench.regimes.base import Regime
from collapse_bench.seeding import Role
from collapse_bench.types import Budget


@final
@dataclass(frozen=True)
class ReplaceOnTheFly(Regime):
    """D_t = fresh samples of model t-1 for every batch (the VAE code of Shumailov et al. 2024).

    No image is trained on twice, so what is lost from generation to generation is lost by fitting and sampling, not
    by the size of a pool. If the parent makes one image only, it equals replace.

    The images that a generation hands on are measured and never trained on, so no mitigation but the control goes
    with it. Images drawn while training, ``Generator.batch_size`` per gradient step, are counted as other samples and
    not as candidates; their time is that of the fit.
    """

    has_pool: ClassVar[bool] = False

    def keeps_real(self, num_real: int, budget: Budget) -> bool:
        """Not after generation 0."""
        del num_real, budget
        return False

    @property
    def num_pools_needed(self) -> int:
        """None of them."""
        return 0

    def compose(self, now: Now) -> LivePool:
        """The previous model, as a pool that is drawn while training."""
        parent = now.chain.model
        assert isinstance(parent, Model)
        parent.to(now.setting.trainer.device)
        sampler, stream = now.setting.sampler_at(now.generation - 1), now.stream(Role.LIVE)

        def draw(start: int, count: int) -> tuple[Tensor, Tensor]:
            return sampler.sample_alone(parent, stream.image_seeds(start, count))

        nothing = now.setting.real.take(torch.arange(0))
        return LivePool(
            **vars(nothing),
            parent=now.generation - 1,
            draw=draw,
            parent_hash=fingerprint(parent, sampler, stream),
            class_shares=parent.label_shares.cpu(),
        )
