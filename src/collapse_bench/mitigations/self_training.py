"""What refiners share that learn from the model's own samples what it does wrong."""

from dataclasses import dataclass

import torch

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.mitigations.base import Refiner
from collapse_bench.now import Now
from collapse_bench.seeding import Role


@dataclass(frozen=True, kw_only=True)
class SelfTraining(Refiner):
    """A refiner that fine-tunes a copy of the fitted model on its own samples, with the recipe of the generator.

    Args:
        num_samples: images that the fitted model makes for it, from a stream of their own; they never enter a pool.
        num_steps: gradient steps of the copy, beside the budget of the generation.
    """

    num_samples: int
    num_steps: int

    def __post_init__(self) -> None:
        if self.num_samples < 2:
            raise ConfigError(f"mitigation.refiner.num_samples must be at least 2, got {self.num_samples}")
        if self.num_steps < 1:
            raise ConfigError(f"mitigation.refiner.num_steps must be at least 1, got {self.num_steps}")

    def self_trained(self, fitted: Model, now: Now) -> Model:
        """The fine-tuned copy."""
        own = now.sample(fitted, self.num_samples, Role.REFINE)
        return now.fit(
            now.setting.generator_at(now.generation),
            own,
            torch.ones(len(own), dtype=torch.float64),
            initial=fitted,
            num_steps=self.num_steps,
            role=Role.REFINE,
        )
