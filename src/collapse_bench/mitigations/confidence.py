"""The confidence filter."""

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Int64
from torch import Tensor

from collapse_bench.mitigations.classes import check_per_class
from collapse_bench.mitigations.probe import Probe, own_confidence
from collapse_bench.mitigations.selection import Selection, highest
from collapse_bench.now import Now, Setting
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw


@final
@dataclass(frozen=True, kw_only=True)
class Confidence(Selection):
    """Keeps the candidates to whose own class a probe gives the highest probability.

    After the latent-space filter of Cai et al. 2026, as we understand it: a softmax probe on features that were
    learnt from real images. The choice is over all classes together, so hard classes may thin out, and with them the
    tails. It looks at all real images with their labels. With ``candidates_per_kept=1`` it equals the control bit for
    bit.

    Args:
        candidates_per_kept: see ``Selection``.
        probe: gives the probabilities.
        per_class: judge a sample by its own class, which asks for the class of each; ``False`` is another method: by
            its most probable one.
    """

    reason: ClassVar[str] = "confident"

    probe: Probe
    per_class: bool = True

    def check(self, setting: Setting) -> None:
        """Raises ConfigError as ``Selection`` does, if the real images have no labels to learn, or samples none."""
        super().check(setting)
        check_per_class("confidence", self.per_class, setting)
        self.probe.check(setting)

    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """The most confident ones."""
        probabilities = self.probe.probabilities(candidates.images, now)
        scores = own_confidence(probabilities, candidates.labels) if self.per_class else probabilities.amax(1)
        return highest(scores, num_needed)
