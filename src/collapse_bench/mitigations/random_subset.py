"""Random k of n: the control of every selection."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Int64
from torch import Tensor

from collapse_bench.mitigations.selection import Selection
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw
from collapse_bench.seeding import Role


@final
@dataclass(frozen=True, kw_only=True)
class RandomSubset(Selection):
    """A uniformly random subset of the candidates: what a selection costs and nothing of what it knows.

    It looks at nothing. In distribution it is the control; with ``candidates_per_kept=1`` it is so bit for bit.

    Args:
        candidates_per_kept: see ``Selection``.
    """

    reason: ClassVar[str] = "at random"

    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """Any of them, each with the same probability."""
        return torch.randperm(len(candidates), generator=now.stream(Role.CURATE).generator())[:num_needed]
