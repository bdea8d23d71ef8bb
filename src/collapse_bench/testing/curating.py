"""Curators on candidates and real images that a test writes down itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final

import torch
from torch import Tensor

from collapse_bench.chain import Chain
from collapse_bench.encoders.pixels import Pixels
from collapse_bench.generators.base import Model
from collapse_bench.mitigations.base import Curator
from collapse_bench.mitigations.control import KeepAll
from collapse_bench.now import Now, Setting
from collapse_bench.pool import PROVENANCE, UNLABELLED, Pool
from collapse_bench.rundir import RunDir
from collapse_bench.samplers.base import Sampler
from collapse_bench.seeding import Role
from collapse_bench.store import Store
from collapse_bench.testing.chains import TINY, composed, parts_of
from collapse_bench.types import ImageSpec, to_float

PIXELS = Pixels(num_components=None)
"""Images as they are."""

_STORE = TemporaryDirectory()  # gone at exit


def points(*values: float) -> Tensor:
    """Images of one pixel with these grey levels."""
    return torch.tensor(values).to(torch.uint8).view(-1, 1, 1, 1)


@cache
def _tiny_setting() -> Setting:
    options = [option for option in TINY if not option.startswith("encoder.")]
    return parts_of(composed(*options, "encoder=pixels", "metrics=features"), Path(_STORE.name)).setting


class ListedModel(Model):
    """A model whose k-th sample is the k-th of a list, over and over; its loss is the mean grey level.

    Args:
        spec: of the images.
        images: the list.
        labels: their conditions.
        first_seed: seed of the first sample.
    """

    images: Tensor
    labels: Tensor

    def __init__(self, spec: ImageSpec, images: Tensor, labels: Tensor, first_seed: int) -> None:
        super().__init__(spec, conditional=bool((labels != UNLABELLED).all()))
        self.register_buffer("images", images)
        self.register_buffer("labels", labels)
        self.first_seed = first_seed

    def position(self, seeds: Tensor) -> Tensor:
        """Which image of the list each seed gives."""
        return (seeds - self.first_seed) % len(self.labels)

    def draw_labels(self, seeds: Tensor) -> Tensor:
        """The labels of the list."""
        return self.labels[self.position(seeds)]

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean grey level, and noise that tells whether torch's global random state is used."""
        del labels
        return images.flatten(1).mean(1) + 1e-3 * torch.randn(len(images))


@final
@dataclass(frozen=True, kw_only=True)
class ListedSampler(Sampler):
    """Samples a ``ListedModel``."""

    model_type = ListedModel

    @property
    def num_outputs(self) -> int:
        """One look at the list."""
        return 1

    def sample_batch(self, model: Model, seeds: Tensor, labels: Tensor) -> Tensor:
        """The images of the list."""
        del labels
        assert isinstance(model, ListedModel)
        return to_float(model.images[model.position(seeds)])


class Bench:
    """A generation whose candidates are listed.

    Args:
        folder: for the store and the run folder.
        images: candidates, in the order in which they are drawn.
        labels: their conditions; none by default.
        real: real images; the candidates by default.
        real_labels: their classes; 0 by default.
        generation: which one; candidates of all generations are the same.
        first: the model of generation 0, at later ones.
        max_candidates: of the budget.
        store: whether artefacts are remembered.
    """

    def __init__(
        self,
        folder: Path,
        images: Tensor,
        labels: Sequence[int] | Tensor | None = None,
        *,
        real: Tensor | None = None,
        real_labels: Sequence[int] | Tensor | None = None,
        generation: int = 0,
        first: Model | None = None,
        max_candidates: float = 20.0,
        store: bool = True,
    ) -> None:
        real = images if real is None else real
        classes = torch.zeros(len(real), dtype=torch.int64) if real_labels is None else torch.as_tensor(real_labels)
        conditions = torch.full((len(images),), UNLABELLED) if labels is None else torch.as_tensor(labels)
        height, width = images.shape[2:]
        num_classes = int(max(classes.max(), conditions.max())) + 1
        names = tuple(f"class{k}" for k in range(num_classes))
        base = _tiny_setting()
        pool = Pool.real(real, classes, "listed")
        self.run_dir = RunDir(folder / "run")
        self.setting: Setting = replace(
            base,
            spec=ImageSpec(images.shape[1], height, width, names, str(real.dtype).removeprefix("torch.")),
            real=pool,
            trusted=pool,
            sampler=ListedSampler(
                temperature=1.0,
                truncation=None,
                guidance=0.0,
                quantize=images.dtype == torch.uint8,
                batch_size=1000,
            ),
            budget=replace(base.budget, max_candidates=max_candidates),
            store=Store(folder / "store", enabled=store),
        )
        self._chain = Chain(self.run_dir, (), first, first, first, "last", None)
        self.now = Now(generation, 0, self.setting, self._chain)
        self.model = ListedModel(self.setting.spec, images, conditions, self.now.stream(Role.SAMPLE).seed)

    def curate(self, curator: Curator, num_needed: int) -> Pool:
        """What a curator keeps, at a generation begun anew."""
        self.now = Now(self.now.generation, 0, self.setting, self._chain)
        sampler = self.setting.sampler
        assert isinstance(sampler, ListedSampler)
        return curator.curate(sampler.stream(self.model, self.now, num_needed), num_needed, self.now)

    def kept(self, curator: Curator, num_needed: int) -> list[int]:
        """Positions of the candidates that a curator keeps; twice the same ones."""
        pools = [self.curate(curator, num_needed) for _ in range(2)]
        assert_equal_pools(*pools)
        assert "candidate" not in pools[0].reasons
        return (pools[0].seed - self.model.first_seed).tolist()

    def assert_equals_control(self, curator: Curator, num_needed: int) -> None:
        """A curator keeps what the control keeps, bit for bit, and draws no more."""
        kept = self.curate(curator, num_needed)
        num_candidates = self.now.spent.candidates
        assert_equal_pools(kept, self.curate(KeepAll(), num_needed))
        assert num_candidates == self.now.spent.candidates


def assert_equal_pools(first: Pool, second: Pool) -> None:
    """Two pools are equal but for the reasons of keeping."""
    for column in ("images", "labels", *PROVENANCE):
        if column != "kept_because":
            assert torch.equal(getattr(first, column), getattr(second, column)), column


def noise(count: int, size: int = 4, seed: int = 0) -> Tensor:
    """Images of noise."""
    return torch.randint(0, 256, (count, 1, size, size), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
