"""Small real chains for tests: the whole loop, on parts that are cheap."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from collapse_bench.assembly import assemble
from collapse_bench.cli.config import build, conf_dir
from collapse_bench.datasets.base import RealImages
from collapse_bench.loop import Parts
from collapse_bench.rundir import RunDir
from collapse_bench.store import Store

# Small enough that a generation takes well under a second, on one thread so that results do not depend on the load.
TINY = (
    "budget=smoke",
    "budget.num_steps_initial=12",
    "budget.num_steps=6",
    "budget.num_synthetic=40",
    "budget.num_measured=60",
    "encoder.classifier.num_steps=10",
    "trainer.num_threads=1",
    "dataset.num_real=64",
)
TINY_FLOW = ("generator.network.width=16", "generator.network.num_blocks=1", "generator.optimisation.batch_size=16")


def composed(*overrides: str) -> dict[str, Any]:
    """The resolved configuration for these overrides, as plain values."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = OmegaConf.to_container(compose("run", overrides=list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def parts_of(config: dict[str, Any], store: Path) -> Parts:
    """The parts that a configuration describes."""
    return assemble_config(config, build(config["dataset"], "dataset").load(), store)


def assemble_config(config: dict[str, Any], data: RealImages, store: Path) -> Parts:
    """The parts that a configuration describes, on these images."""
    groups = ("generator", "sampler", "regime", "mitigation", "encoder", "metrics", "budget", "trainer")
    return assemble(
        data=data,
        store=Store(store),
        **{name: build(config[name], name) for name in groups},
    )


@contextmanager
def opened_run_dir(path: Path, name: str = "test") -> Iterator[RunDir]:
    """A run directory that belongs to the configuration ``name``."""
    run_dir = RunDir(path)
    with run_dir.opened({"identity": {"name": name}}, {"name": name}):
        yield run_dir
