"""Small steps away from the previous model."""

from dataclasses import dataclass, replace
from typing import final

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Generator
from collapse_bench.mitigations.base import Steering
from collapse_bench.mitigations.options import numeric_options, with_option
from collapse_bench.now import Setting
from collapse_bench.samplers.base import Sampler

_OPTION = "optimisation.learning_rate"


@final
@dataclass(frozen=True)
class WarmSmallStep(Steering):
    """Every generation after 0 starts from the previous fitted model, with ``factor`` times the learning rate.

    The less a generation can forget of its parent, the more of generation 0 is left. Bertrand et al. 2024
    (arXiv:2310.00429) prove that iterated retraining is stable where the first model is good and enough of the pool is
    real; without real images there is no guarantee, only a slower drift. The number of gradient steps is unchanged.
    With ``factor=1`` it equals the control with ``generator.start=warm`` bit for bit.

    Args:
        factor: of the learning rate, above 0.
    """

    factor: float

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ConfigError(f"mitigation.steering.factor must be above 0, got {self.factor}")

    def check(self, setting: Setting) -> None:
        """Raises ConfigError for a generator without a learning rate."""
        if f"generator.{_OPTION}" not in numeric_options(setting.generator, "generator"):
            raise ConfigError(
                f"mitigation=warm_small_step changes the learning rate, and {type(setting.generator).__name__} has none"
            )

    def steer_fit(self, generator: Generator, generation: int) -> Generator:
        """The generator with a warm start and a smaller learning rate, from generation 1 on."""
        if generation == 0:
            return generator
        rate = numeric_options(generator, "generator")[f"generator.{_OPTION}"]
        return with_option(replace(generator, start="warm"), _OPTION, self.factor * rate)

    def steer_sampling(self, sampler: Sampler, generation: int) -> Sampler:
        """``sampler`` itself."""
        return sampler
