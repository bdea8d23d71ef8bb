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
    """A refiner that fine-tunes a copy of the fitted model on its own samples, by the generator's recipe but slower.

    What is wanted is the direction in which self-training goes. At the full learning rate a few steps of a fresh
    optimiser go far in a direction that is mostly noise: two copies that differ in samples and seed then move apart.

    Args:
        num_samples: images that the fitted model makes for it, from a stream of their own; they never enter a pool.
        num_steps: gradient steps of the copy, beside the budget of the generation.
        learning_rate_factor: of the generator's learning rate, above 0.
    """

    num_samples: int
    num_steps: int
    learning_rate_factor: float

    def __post_init__(self) -> None:
        if self.num_samples < 2:
            raise ConfigError(f"mitigation.refiner.num_samples must be at least 2, got {self.num_samples}")
        if self.num_steps < 1:
            raise ConfigError(f"mitigation.refiner.num_steps must be at least 1, got {self.num_steps}")
        if not self.learning_rate_factor > 0:
            raise ConfigError(
                f"mitigation.refiner.learning_rate_factor must be above 0, got {self.learning_rate_factor}"
            )

    def self_trained(self, fitted: Model, now: Now) -> Model:
        """The fine-tuned copy."""
        own = now.sample(fitted, self.num_samples, Role.REFINE)
        return now.fit(
            now.setting.generator_at(now.generation).with_learning_rate_times(self.learning_rate_factor),
            own,
            torch.ones(len(own), dtype=torch.float64),
            initial=fitted,
            num_steps=self.num_steps,
            role=Role.REFINE,
        )
