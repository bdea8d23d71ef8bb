"""Away from the model that self-training would make."""

from dataclasses import dataclass
from typing import final

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.mitigations.parameters import moved
from collapse_bench.mitigations.self_training import SelfTraining
from collapse_bench.now import Now
from collapse_bench.pool import Pool


@final
@dataclass(frozen=True, kw_only=True)
class Neon(SelfTraining):
    """theta_r - w (theta_s - theta_r), where theta_s is theta_r fine-tuned on its own samples.

    Negative extrapolation from self-training (Alemohammad et al. 2026, arXiv:2510.03597), there applied once to a
    finished model, here in every generation. A warm start continues from theta_r. Parameters only: buffers are those
    of theta_r. With ``w=0`` it equals the control bit for bit, and no copy is trained.

    Args:
        num_samples: see ``SelfTraining``; the paper has 6,000 to 25,000 for CIFAR-10.
        num_steps: see ``SelfTraining``.
        learning_rate_factor: see ``SelfTraining``.
        w: how far, at least 0.
    """

    w: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.w < 0:
            raise ConfigError(f"mitigation.refiner.w must not be negative, got {self.w}")

    def refine(self, fitted: Model, train: Pool, now: Now) -> Model:
        """The extrapolated model."""
        return moved(fitted, self.self_trained(fitted, now), -self.w) if self.w > 0 else fitted
