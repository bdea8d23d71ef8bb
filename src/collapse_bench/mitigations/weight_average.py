"""The average of the models of all generations so far."""

from dataclasses import dataclass
from typing import final

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.mitigations.base import Refiner
from collapse_bench.mitigations.parameters import moved
from collapse_bench.now import Now, Setting
from collapse_bench.pool import Pool


@final
@dataclass(frozen=True)
class WeightAverage(Refiner):
    """``rate`` * the previous average + (1 - ``rate``) * the fitted model, in parameters; generation 0 starts it.

    An exponential average over generations, as is usual over steps; model t-k counts ``rate``^k times as much as model
    t, and generation 0, with which the average begins, ``rate``^t / (1 - ``rate``) times. Samples are drawn from the
    average, and a warm start continues from the fitted model. Buffers are those of the fitted model. With ``rate=0`` it
    equals the control bit for bit.

    Args:
        rate: in [0, 1].
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ConfigError(f"mitigation.refiner.rate must lie in [0, 1], got {self.rate}")

    def check(self, setting: Setting) -> None:
        """Raises ConfigError for networks that have nothing to do with each other."""
        later = setting.generator_at(1)  # generation 0 may start as it likes
        if later.takes_steps and later.start == "scratch":
            raise ConfigError(
                "mitigation=weight_average averages networks, which makes no sense where each starts from scratch; set "
                "generator.start=warm, or add mitigation=[weight_average,warm_small_step]"
            )

    def refine(self, fitted: Model, train: Pool, now: Now) -> Model:
        """The average."""
        previous = now.chain.model
        if self.rate == 0 or previous is None:
            return fitted
        assert isinstance(previous, Model)
        return moved(fitted, previous, self.rate)
