"""The command line's work from Python: run a chain, and sample a model that it left behind.

A top layer beside the command line, whose composition of configurations it shares. Errors are exceptions
(``CollapseBenchError``), nothing is printed unless asked for, and nothing needs a terminal.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from rich.console import Console

from collapse_bench.analysis.runs import Run, load_run
from collapse_bench.chain import load_models
from collapse_bench.cli.chain import Launch, run_config
from collapse_bench.cli.config import (
    as_override,
    build,
    check_command_line,
    chosen_options,
    compose_config,
    conf_folders,
    parse_overrides,
    refuse_foreign_code,
    resolve,
)
from collapse_bench.errors import ConfigError, RunDirError
from collapse_bench.generators.base import Model
from collapse_bench.measuring import to_grid
from collapse_bench.rundir import RunDir
from collapse_bench.samplers.base import Sampler
from collapse_bench.types import ImageSpec


def run(*overrides: str, config_dir: str | Path | None = None, progress: bool = False, **settings: object) -> Run:
    """The finished run that ``collapse-run`` with the same overrides makes, from the disk if it is complete already.

    An interrupted run continues where it stopped when the same call is made again.

    Args:
        overrides: as on the command line: ``"regime=augment"``, ``"budget.num_steps=100"``.
        config_dir: folder of your own options, like ``--config-dir``.
        progress: show a line per generation and a moving bar, as the command line does.
        settings: overrides whose key is a Python name: ``regime="augment"``, ``seed=1``,
            ``mitigation=["neon", "watermark"]``, ``runs_dir="my_runs"``.

    Raises:
        ConfigError: for a misspelt key or option, with the nearest match, and for one that makes no sense.
        CollapseBenchError: for what goes wrong later; committed generations are intact.
    """
    texts = [*overrides, *(f"{key}={as_override(value)}" for key, value in settings.items())]
    _refuse_sweeps(texts)
    own = [] if config_dir is None else ["--config-dir", str(config_dir)]
    check_command_line([*own, *texts])
    composed = compose_config(texts, folders=conf_folders(config_dir), with_hydra=True)
    config = {**resolve(composed), "progress": progress}
    console = Console(quiet=not progress)
    command = shlex.join(["collapse-run", *own, *texts])
    launch = Launch(choices=chosen_options(composed.hydra), command=command, console=console)
    num_threads = torch.get_num_threads()
    try:
        run_dir, _ = run_config(config, launch)
    finally:
        torch.set_num_threads(num_threads)
    return load_run(run_dir.path)


class Samples(NamedTuple):
    """Images that a model has made.

    Args:
        images: uint8 [n, h, w, c]; data without grey levels are shown as the sample grids show them.
        labels: class that each was made for, [n]; -1 without a condition.
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int64[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class FittedModel:
    """The model of one generation of a run, with the sampler that the run gives it.

    Args:
        generation: which one.
        model: after refinement, on the CPU.
        sampler: with what the mitigation changes of it at this generation.
        class_names: one name per class, in label order.
    """

    generation: int
    model: Model = field(repr=False)
    sampler: Sampler
    class_names: tuple[str, ...]

    def sample(self, n: int, *, first_seed: int = 0) -> Samples:
        """``n`` images and their labels; image k has the seed ``first_seed + k`` and is a function of it alone.

        The seeds are no part of the run: what is drawn here never was in its pools or its scores. Equal seeds give
        corresponding images of all generations.

        Args:
            n: how many, at least 1.
            first_seed: seed of the first image.

        Raises:
            ConfigError: if ``n`` is below 1.
            TrainingError: if a pixel is NaN or infinite.
        """
        if n < 1:
            raise ConfigError(f"sample({n}): ask for at least one image")
        images, labels = self.sampler.sample(self.model, torch.arange(first_seed, first_seed + n))
        return Samples(to_grid(images), labels.numpy())


def load_model(run: Run | str | Path, generation: int | None = None, *, trust: bool = False) -> FittedModel:
    """The model of one generation of a run, as it made the generation's samples.

    Args:
        run: the run, or its folder.
        generation: which one; ``None`` is the last. Without ``keep=all`` only generation 0 and the last are there.
        trust: the run has parts from outside this package, and their code may be run.

    Raises:
        RunDirError: if the generation is not reached, or its model is not on the disk or damaged.
        ConfigError: if the run has parts from outside this package and ``trust`` is not given.
    """
    run = run if isinstance(run, Run) else load_run(run)
    folder = RunDir(run.path)
    there = [t for t in folder.generations() if (folder.generation(t) / "fitted.safetensors").exists()]
    wanted = len(run.records) - 1 if generation is None else generation
    if wanted not in there:
        raise RunDirError(
            f"{run.path} has no model of generation {wanted}, but of {', '.join(map(str, there)) or 'none'}; run it "
            "with keep=all and another run_dir to have all (fits that are still in the cache are not done again)"
        )
    if not trust:
        refuse_foreign_code(run.config, run.path / "config.yaml", "trust=True")
    generator, sampler, mitigation = (build(run.config[name], name) for name in ("generator", "sampler", "mitigation"))
    _, height, width, channels = run.real_grid.shape
    # No family asks for more of the images of a model that it has fitted.
    spec = ImageSpec(channels, height, width, run.class_names)
    steered = mitigation.steering.steer_fit(generator, wanted)
    _, model = load_models(folder.generation(wanted), lambda: steered.empty_model(spec), mitigation.refiner.skeleton)
    assert isinstance(model, Model)
    return FittedModel(wanted, model, mitigation.steering.steer_sampling(sampler, wanted), run.class_names)


def _refuse_sweeps(texts: Sequence[str]) -> None:
    """Raises ConfigError for what only the command line can do."""
    for text in texts:
        if text.startswith("-"):
            raise ConfigError(f"{text} is an option of the command line; run() takes overrides, KEY=VALUE")
    for override in parse_overrides(texts):
        if override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line} gives several values; run() runs one chain: call it for each of them"
            )
        if override.key_or_group == "experiment" and "suite/" in str(override.value()):
            raise ConfigError(
                f"{override.input_line} is a sweep over many cells: collapse-run -m {override.input_line}"
            )
