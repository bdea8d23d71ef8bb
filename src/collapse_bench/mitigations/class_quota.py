"""Class quotas: every class gets the same share of the pool."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int64
from torch import Tensor

from collapse_bench.mitigations.base import Curator
from collapse_bench.mitigations.probe import Probe
from collapse_bench.mitigations.selection import draw_until, shares
from collapse_bench.now import Now, Setting
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.samplers.base import Draw


@final
@dataclass(frozen=True, kw_only=True)
class ClassQuota(Curator):
    """Draws until every class has its quota; quotas differ by one image at most.

    The idea of the balanced batches of Wyllie et al. 2024 (STAR, arXiv:2403.07857), applied to the pool and not to
    the weights. The class of a sample is its condition; where the model has none, the most probable class of a probe,
    which looks at all real images with their labels. With a single class it equals the control bit for bit.

    Args:
        probe: gives the class of samples that were made without a condition.
    """

    probe: Probe

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if the real images have no labels."""
        self.probe.check(setting)

    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        """The first candidates of each class.

        Raises:
            SelectionError: if a class does not get its quota within the budget; it names the classes.
        """
        names = now.setting.spec.class_names
        missing = shares(torch.ones(len(names), dtype=torch.int64), num_needed)

        def accept(candidates: Pool) -> Int64[Tensor, " k"]:
            labels = candidates.labels
            if bool((labels == UNLABELLED).any()):
                labels = self.probe.probabilities(candidates.images, now).argmax(1)
            index = torch.cat([(labels == c).nonzero().flatten()[:quota] for c, quota in enumerate(missing.tolist())])
            missing.sub_(labels[index].bincount(minlength=len(names)))
            return index.sort().values

        def remedy() -> str:
            lacking = ", ".join(f"{name} {int(num)}" for name, num in zip(names, missing, strict=True) if num > 0)
            return f"missing by class: {lacking}; raise budget.max_candidates, or the model has lost these classes"

        return draw_until(num_needed, accept, "class quota", remedy, draw, now)
