"""Training pools that a test writes down itself."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import torch

from collapse_bench.pool import PROVENANCE, Pool

AT_GENERATION_1 = SimpleNamespace(generation=1)
"""All that a weigher that learns nothing may ask."""


def born(*births: int, labels: Sequence[int] | None = None) -> Pool:
    """A pool of black images that were made by these generations; -1 is real."""
    images = torch.zeros(len(births), 1, 2, 2, dtype=torch.uint8)
    pool = Pool.real(images, torch.tensor(labels or [0] * len(births)), "listed")
    return replace(pool, born=torch.tensor(births))


def with_garbage(pool: Pool) -> Pool:
    """The same pool with nonsense in its hidden columns."""
    rng = torch.Generator().manual_seed(1)
    codes = {"source": len(pool.sources), "kept_because": len(pool.reasons)}
    columns = {
        name: torch.randint(0, codes.get(name, 1000), (len(pool),), generator=rng)
        for name in PROVENANCE
        if name in pool.hidden
    }
    return replace(pool, **columns)
