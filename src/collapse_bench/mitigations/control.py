"""The control: nothing is done against collapse."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from collapse_bench.generators.base import Generator, Model
from collapse_bench.mitigations.base import Curator, Refiner, Steering, Weigher
from collapse_bench.now import Now
from collapse_bench.pool import Pool, VisiblePool
from collapse_bench.samplers.base import Draw, Sampler


@final
@dataclass(frozen=True)
class NoSteering(Steering):
    """The same options in every generation."""

    def steer_fit(self, generator: Generator, generation: int) -> Generator:
        """``generator`` itself."""
        return generator

    def steer_sampling(self, sampler: Sampler, generation: int) -> Sampler:
        """``sampler`` itself."""
        return sampler


@final
@dataclass(frozen=True)
class EqualWeights(Weigher):
    """Every image counts the same."""

    def weigh(self, train: VisiblePool, now: Now) -> Float[Tensor, " n"]:
        """Ones."""
        return torch.ones(len(train), dtype=torch.float64)


@final
@dataclass(frozen=True)
class NoRefinement(Refiner):
    """The model as fitted."""

    def refine(self, fitted: Model, train: Pool, now: Now) -> Model:
        """``fitted`` itself."""
        return fitted


@final
@dataclass(frozen=True)
class KeepAll(Curator):
    """As many candidates as are needed, all kept."""

    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        """The first ``num_needed`` candidates."""
        candidates = draw(num_needed)
        return candidates.take(torch.arange(num_needed), because="all kept")
