"""Parts that are watched, or lied to, while a chain runs: what they may look at, and that they change none of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from collapse_bench.datasets.base import HeldOut, RealImages
from collapse_bench.fingerprint import fingerprint
from collapse_bench.generators.base import Model
from collapse_bench.mitigations.base import Curator, Mitigation, Refiner, Weigher
from collapse_bench.now import Now
from collapse_bench.pool import PROVENANCE, Pool, VisiblePool
from collapse_bench.regimes.base import Regime
from collapse_bench.samplers.base import Draw
from collapse_bench.testing.weighing import with_garbage
from collapse_bench.types import Budget


def witnessed(mitigation: Mitigation) -> Mitigation:
    """The same mitigation, which raises AssertionError where a slot changes what it is given.

    Watched are the training pool, the candidates, the real pool, and the models of this generation and earlier ones.
    """
    return Mitigation(
        mitigation.steering,
        _WatchedWeigher(mitigation.weigher),
        _WatchedRefiner(mitigation.refiner),
        _WatchedCurator(mitigation.curator),
    )


@contextmanager
def unchanged(slot: object, given: dict[str, Any]) -> Iterator[None]:
    """Raises AssertionError if a pool or a model is another one at the end of the block than at its beginning.

    Args:
        slot: what is called in the block.
        given: pools and models, by the name that the error gives them.
    """
    before = {name: _digest(thing) for name, thing in given.items()}
    yield
    for name, thing in given.items():
        assert _digest(thing) == before[name], f"{type(slot).__name__} changes {name}, which others share: copy it"


def _digest(thing: Any) -> str:
    if isinstance(thing, VisiblePool):
        return _digest(thing._pool)
    if isinstance(thing, Pool):
        columns = [getattr(thing, name) for name in ("images", "labels", *PROVENANCE)]
        return fingerprint(columns, thing.sources, thing.reasons, sorted(thing.hidden))
    return fingerprint(thing)


def _shared(now: Now) -> dict[str, Any]:
    """What all parts of a generation share."""
    models = {"generation 0": now.chain.first, "the last fit": now.chain.fitted, "the last model": now.chain.model}
    return {"the real pool": now.setting.real, "the trusted images": now.setting.trusted, **models}


class _WatchedWeigher(Weigher):
    def __init__(self, weigher: Weigher) -> None:
        self.weigher = weigher

    def flags(self, images: Tensor, now: Now) -> Tensor | None:
        return self.weigher.flags(images, now)

    def weigh(self, train: VisiblePool, now: Now) -> Tensor:
        with unchanged(self.weigher, {"the training pool": train, **_shared(now)}):
            weights = self.weigher.weigh(train, now)
        assert weights.shape == (len(train),), "one weight per image"
        assert weights.dtype == torch.float64
        assert bool((weights >= 0).all()), "no weight is negative"
        assert bool(weights.isfinite().all()), "every weight is a number"
        return weights

    def gate(self, train: VisiblePool, now: Now) -> Tensor | None:
        with unchanged(self.weigher, {"the training pool": train, **_shared(now)}):
            gate = self.weigher.gate(train, now)
        assert gate is None or (gate.shape == (len(train),) and not bool(gate.isnan().any())), "one gate per image"
        return gate


class _WatchedRefiner(Refiner):
    def __init__(self, refiner: Refiner) -> None:
        self.refiner = refiner

    def refine(self, fitted: Model, train: Pool, now: Now) -> Model:
        with unchanged(self.refiner, {"the fitted model": fitted, "the training pool": train, **_shared(now)}):
            return self.refiner.refine(fitted, train, now)

    def skeleton(self, fitted: torch.nn.Module) -> torch.nn.Module:
        return self.refiner.skeleton(fitted)


class _WatchedCurator(Curator):
    def __init__(self, curator: Curator) -> None:
        self.curator = curator
        self.changes_images = curator.changes_images  # pyright: ignore[reportAttributeAccessIssue]

    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        watched = _WatchedDraw(draw)
        with unchanged(self.curator, {"the model": draw.model, **_shared(now)}):
            kept = self.curator.choose(watched, num_needed, now)  # pyright: ignore[reportArgumentType]
        watched.assert_unchanged(self.curator)
        return kept


class _WatchedDraw:
    """A ``Draw`` that remembers the candidates as they were when they were drawn."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._drawn: list[tuple[Pool, str]] = []

    def __call__(self, count: int) -> Pool:
        candidates = self._draw(count)
        self._drawn.append((candidates, _digest(candidates)))
        return candidates

    def __getattr__(self, name: str) -> Any:
        return getattr(self._draw, name)

    def assert_unchanged(self, curator: Curator) -> None:
        for candidates, before in self._drawn:
            assert _digest(candidates) == before, f"{type(curator).__name__} changes the candidates: copy them"


class GarbledRegime(Regime):
    """A regime whose pools have nonsense in their hidden columns.

    Args:
        regime: which; one that hides something.
    """

    def __init__(self, regime: Regime) -> None:
        assert regime.hidden, "this regime hides nothing"
        self.regime = regime

    @property
    def num_pools_needed(self) -> int | None:
        """That of the regime."""
        return self.regime.num_pools_needed

    def trusted(self, real: Pool, budget: Budget, seed: int) -> Pool:
        """Those of the regime."""
        return self.regime.trusted(real, budget, seed)

    def start(self, now: Now) -> Pool:
        """The garbled pool of generation 0."""
        return with_garbage(self.regime.start(now))

    def compose(self, now: Now) -> Pool:
        """The garbled pool of a later generation."""
        return with_garbage(self.regime.compose(now))

    def num_needed(self, generation: int, now: Now) -> int:
        """That of the regime."""
        return self.regime.num_needed(generation, now)


def with_noise_held_out(data: RealImages, seed: int = 0) -> RealImages:
    """The same data set with noise in place of the reference and the control set."""
    rng = torch.Generator().manual_seed(seed)

    def noise(pool: Pool) -> Pool:
        if pool.images.dtype != torch.uint8:
            return replace(pool, images=torch.randn(pool.images.shape, generator=rng))
        return replace(pool, images=torch.randint(0, 256, pool.images.shape, generator=rng, dtype=torch.uint8))

    return replace(data, held_out=HeldOut(noise(data.held_out.reference), noise(data.held_out.control)))
