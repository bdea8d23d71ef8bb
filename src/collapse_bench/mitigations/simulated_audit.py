"""Simulated audit: an auditor with a stated error rate and budget, for unattended runs."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.base import Curator
from collapse_bench.mitigations.classes import check_per_class
from collapse_bench.mitigations.probe import Probe, own_confidence
from collapse_bench.mitigations.selection import draw_until
from collapse_bench.now import Now, Setting
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw
from collapse_bench.seeding import Role


@final
@dataclass(frozen=True, kw_only=True)
class SimulatedAudit(Curator):
    """Looks at the first candidates, rejects what a probe does not take for its own class, and passes the rest.

    What is rejected is replaced by the next candidate, which is looked at as well while the budget of reviews lasts.
    The auditor errs at random, in both directions. The probe looks at all real images with their labels. With
    ``num_reviewed=0`` it equals the control bit for bit.

    Args:
        probe: what the auditor sees.
        min_confidence: probability of its class from which an image is good, in [0, 1].
        error_rate: share of her decisions that are the opposite, in [0, 1].
        num_reviewed: images that she looks at per generation.
        per_class: she asks whether an image looks like its own class, which each sample must have; ``False`` is
            another auditor, who asks whether it looks like any.
    """

    probe: Probe
    min_confidence: float
    error_rate: float
    num_reviewed: int
    per_class: bool = True

    def __post_init__(self) -> None:
        for name in ("min_confidence", "error_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"mitigation.curator.{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.num_reviewed < 0:
            raise ConfigError(f"mitigation.curator.num_reviewed must not be negative, got {self.num_reviewed}")

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if the real images have no labels to learn, or samples have none."""
        check_per_class("simulated_audit", self.per_class, setting)
        self.probe.check(setting)

    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        """The first candidates that were accepted or not looked at.

        Raises:
            SelectionError: if too many are rejected.
        """
        rng = now.stream(Role.CURATE).generator()
        num_left = self.num_reviewed

        def accept(candidates: Pool) -> Int64[Tensor, " k"]:
            nonlocal num_left
            passed = torch.ones(len(candidates), dtype=torch.bool)
            if reviewed := min(num_left, len(candidates)):
                images, labels = candidates.images[:reviewed], candidates.labels[:reviewed]
                probabilities = self.probe.probabilities(images, now)
                confidence = own_confidence(probabilities, labels) if self.per_class else probabilities.amax(1)
                errs = torch.rand(reviewed, generator=rng) < self.error_rate
                passed[:reviewed] = (confidence >= self.min_confidence) ^ errs
                num_left -= reviewed
            return passed.nonzero().flatten()

        def remedy() -> str:
            return "the auditor rejects too much: lower mitigation.curator.min_confidence or num_reviewed"

        return draw_until(num_needed, accept, "passed the audit", remedy, draw, now)
