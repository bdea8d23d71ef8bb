"""Small real chains for tests: the whole loop, on parts that are cheap."""

import copy
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collapse_bench.assembly import assemble
from collapse_bench.chain import Chain
from collapse_bench.cli.config import build, compose_config, conf_folders, resolve
from collapse_bench.datasets.base import RealImages
from collapse_bench.loop import Parts, run_generations
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.records import Record
from collapse_bench.rundir import RunDir
from collapse_bench.store import Store

TINY = (
    "budget=smoke",
    "budget.num_steps_initial=12",
    "budget.num_steps=6",
    "budget.num_synthetic=40",
    "budget.num_measured=60",
    "encoder.pca.classifier.num_steps=10",
    "budget.num_floor_splits=2",
    "trainer.num_threads=1",
    "dataset.num_real=64",
)
"""Small enough that a generation takes well under a second; one thread, so that results do not depend on the load."""

TINY_FLOW = ("generator.network.width=16", "generator.network.num_blocks=1", "generator.optimisation.batch_size=16")
"""A network for ``TINY``."""

TINY_GAUSSIAN = (
    "experiment=gaussian",
    "dataset.num_images=62",
    "dataset.num_real=22",
    "dataset.num_reference=20",
    "dataset.num_control=20",
    "budget.num_generations=3",
    "trainer.num_threads=1",
)
"""A closed-form chain of a few milliseconds per generation: 22 real vectors, and as many samples per generation."""

TINY_OPTION = {
    "class_balanced": ("generator.conditional=true",),
    "class_quota": ("generator.conditional=true",),  # else it looks long for a class that a tiny model hardly makes
    "condition_drop": ("generator.conditional=true",),
    "guidance_decay": ("generator.conditional=true", "generator.condition_dropout=0.1"),
    "neon": ("mitigation.refiner.num_samples=20", "mitigation.refiner.num_steps=3"),
    "sims": ("mitigation.refiner.num_samples=20", "mitigation.refiner.num_steps=3"),
    "verifier": ("generator.conditional=true", "mitigation.curator.discriminator.num_steps=4"),
    "confidence": ("generator.conditional=true",),
    "self_correction": ("generator.conditional=true",),
    "simulated_audit": ("generator.conditional=true",),
    "detector": ("mitigation.weigher.discriminator.num_steps=4",),
    "time_gate": ("mitigation.weigher.discriminator.num_steps=4", "mitigation.weigher.num_draws=1"),
}
"""What some mitigations need besides ``TINY``, or what makes them cheap."""


def composed(*overrides: str, config_dir: str | Path | None = None) -> dict[str, Any]:
    """The resolved configuration for these overrides, as plain values.

    Args:
        overrides: as on the command line.
        config_dir: folder of a user's own options.

    Raises:
        ConfigError: for a misspelt key or option.
    """
    if config_dir is not None:  # whose files may change
        return resolve(compose_config(overrides, folders=conf_folders(config_dir)))
    return copy.deepcopy(_composed_of_ours(overrides, tuple(os.environ.get(name) for name in _IN_CONFIGURATIONS)))


_IN_CONFIGURATIONS = ("COLLAPSE_BENCH_CACHE", "COLLAPSE_BENCH_DATA", "MLFLOW_TRACKING_URI", "WANDB_MODE", "WORLD_SIZE")
"""Environment variables that ours look at."""


@functools.cache
def _composed_of_ours(overrides: tuple[str, ...], environment: tuple[str | None, ...]) -> dict[str, Any]:
    """Composing takes longer than most of what tests do with a configuration, and many ask for the same one."""
    del environment  # it makes another configuration
    return resolve(compose_config(overrides, folders=conf_folders()))


def parts_of(config: dict[str, Any], store: Path) -> Parts:
    """The parts that a configuration describes."""
    return assemble_config(config, build(config["dataset"], "dataset").load(), store)


def assemble_config(config: dict[str, Any], data: RealImages, store: Path) -> Parts:
    """The parts that a configuration describes, on these images."""
    groups = ("generator", "sampler", "labels", "regime", "mitigation", "encoder", "metrics", "budget", "trainer")
    return assemble(
        data=data,
        store=Store(store),
        seed=config["seed"],
        **{name: build(config[name], name) for name in groups},
    )


@contextmanager
def opened_run_dir(path: Path, name: str = "test") -> Iterator[RunDir]:
    """A run directory that belongs to the configuration ``name``."""
    run_dir = RunDir(path)
    with run_dir.opened({"identity": {"name": name}}, {"name": name}):
        yield run_dir


def now_of(parts: Parts, run_dir: RunDir, generation: int, seed: int = 0) -> Now:
    """A generation of a chain that has been run to its end with ``keep="all"``."""
    chain = Chain.resume_or_start(
        run_dir,
        empty_model=lambda t: parts.setting.generator_at(t).empty_model(parts.setting.spec),
        refined_skeleton=parts.mitigation.refiner.skeleton,
        keep="all",
        num_pools_needed=None,
    )
    return Now(generation, seed, parts.setting, chain)


class FinishedChain:
    """A chain in a folder of its own that keeps all its models and pools, to be looked at; nothing is measured.

    Args:
        folder: of the run and its store.
        overrides: as on the command line.
        seed: of the chain.
        config_dir: folder of a user's own options.
        store: another one, that chains share; ``None`` is one in the folder.
    """

    def __init__(
        self,
        folder: Path,
        *overrides: str,
        seed: int = 0,
        config_dir: str | Path | None = None,
        store: Path | None = None,
    ) -> None:
        config = {**composed(*overrides, config_dir=config_dir), "metrics": {}, "seed": seed}
        self.parts = parts_of(config, folder / "store" if store is None else store)
        self.seed = seed
        with opened_run_dir(folder / "run") as self.run_dir:
            self.records: tuple[Record, ...] = run_generations(self.parts, seed, self.run_dir, keep="all")

    def now(self, generation: int) -> Now:
        """What the parts saw at a generation; ``now.chain.kept`` knows all pools."""
        return now_of(self.parts, self.run_dir, generation, self.seed)

    def pool(self, generation: int) -> Pool:
        """The training pool of a generation."""
        return self.parts.regime.mix(self.now(generation))

    @property
    def train_pools(self) -> list[dict[str, int]]:
        """Images trained on in each generation, by birth."""
        return [dict(record.train_pool) for record in self.records]


def assert_equal_chains(first: FinishedChain, second: FinishedChain) -> None:
    """Two chains have equal records and, bit for bit, equal models and samples."""
    assert [r.deterministic for r in first.records] == [r.deterministic for r in second.records]
    for t in range(len(first.records)):
        for file in ("fitted.safetensors", "kept.safetensors"):
            contents = [(chain.run_dir.generation(t) / file).read_bytes() for chain in (first, second)]
            assert contents[0] == contents[1]
