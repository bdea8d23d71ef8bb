"""One option of the generator or the sampler as a function of the generation."""

import difflib
from dataclasses import dataclass
from typing import Literal, final

import torch

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Generator
from collapse_bench.mitigations.base import Steering
from collapse_bench.mitigations.options import Part, all_options, numeric_options, with_option
from collapse_bench.now import Setting
from collapse_bench.samplers.base import Sampler
from collapse_bench.seeding import isolated_rng
from collapse_bench.types import ImageSpec


@final
@dataclass(frozen=True)
class Schedule(Steering):
    """Moves one stated option from ``first`` in generation 0 to ``last`` in a later one, where it stays.

    A constant schedule at the option's own value equals the control bit for bit. ``mitigation=guidance_decay`` is one:
    our variant of the guidance schedule of ReDiFine (Yoon et al. 2024), which runs over the steps of sampling one image
    and is the same in all generations.

    Args:
        option: a number of the generator or the sampler by its name in the configuration, for example
            ``"sampler.temperature"``; whole numbers are rounded.
        first: its value in generation 0.
        last: its value from ``num_generations`` on.
        num_generations: how long it takes.
        shape: equal differences (``"linear"``) or equal ratios (``"geometric"``).
    """

    option: str
    first: float
    last: float
    num_generations: int
    shape: Literal["linear", "geometric"]

    def __post_init__(self) -> None:
        if self.num_generations < 1:
            raise ConfigError(f"mitigation.steering.num_generations must be at least 1, got {self.num_generations}")
        if self.shape == "geometric" and not (self.first > 0 and self.last > 0):
            raise ConfigError(
                f"a geometric schedule of mitigation.steering goes from a positive number to a positive number, got "
                f"{self.first} and {self.last}"
            )

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if there is no such option, it has no such values, or it decides what a model is."""
        known = {**numeric_options(setting.generator, "generator"), **numeric_options(setting.sampler, "sampler")}
        everything = {**all_options(setting.generator, "generator"), **all_options(setting.sampler, "sampler")}
        if self.option in everything and everything[self.option] is None:
            raise ConfigError(
                f"mitigation.steering.option={self.option}: it is null, and a schedule needs a number; give it one, "
                f"for example {self.option}={self.first:g}"
            )
        if self.option not in known:
            nearest = difflib.get_close_matches(self.option, known, n=1, cutoff=0.0)
            raise ConfigError(
                f"mitigation.steering.option={self.option}: the generator and the sampler have no such number (did you "
                f"mean {nearest[0]}?). They have {', '.join(known)}"
            )
        assert isinstance(setting.sampler, Sampler)
        for generation in (0, self.num_generations):  # what both ends allow, all values between them do
            sampler = self.steer_sampling(setting.sampler, generation)
            steered = self.steer_fit(setting.generator, generation)
            with isolated_rng(0):
                sampler.check(steered.empty_model(setting.spec))
            if _shapes(steered, setting.spec) != _shapes(setting.generator, setting.spec):
                raise ConfigError(
                    f"mitigation.steering.option={self.option} decides the shapes of the network, which must be the "
                    "same in all generations"
                )

    def value(self, generation: int) -> float:
        """The value at a generation."""
        if generation >= self.num_generations:
            return self.last
        progress = generation / self.num_generations
        if self.shape == "geometric":
            return self.first * (self.last / self.first) ** progress
        return self.first + progress * (self.last - self.first)

    def steer_fit(self, generator: Generator, generation: int) -> Generator:
        """The generator with the option's value, if it is one of its own."""
        return self._steered(generator, "generator", generation)

    def steer_sampling(self, sampler: Sampler, generation: int) -> Sampler:
        """The sampler with the option's value, if it is one of its own."""
        return self._steered(sampler, "sampler", generation)

    def _steered(self, part: Part, name: str, generation: int) -> Part:
        whose, _, option = self.option.partition(".")
        if whose != name:
            return part
        whole = isinstance(numeric_options(part, name)[self.option], int)
        value = self.value(generation)
        return with_option(part, option, round(value) if whole else value)


def _shapes(generator: Generator, spec: ImageSpec) -> dict[str, torch.Size]:
    with isolated_rng(0):
        return {name: tensor.shape for name, tensor in generator.empty_model(spec).state_dict().items()}
