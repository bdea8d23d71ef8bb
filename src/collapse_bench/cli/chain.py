"""One run of ``collapse-run``: from the composed configuration to a finished run folder."""

import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from collapse_bench.analysis.figures import write_figures
from collapse_bench.analysis.runs import load_run
from collapse_bench.analysis.tables import format_generation_table, to_text
from collapse_bench.assembly import assemble
from collapse_bench.cli.config import build, chosen_options, flatten, resolve
from collapse_bench.cli.progress import RichWatch, in_millions
from collapse_bench.distributed import failing_together, from_main, gathered, is_main, is_shared, join, num_processes
from collapse_bench.errors import CombinationError, ConfigError
from collapse_bench.fingerprint import code_version, library_versions
from collapse_bench.loop import Parts, run_generations
from collapse_bench.measuring import NUM_GRID, to_grid
from collapse_bench.rundir import RunDir, read_json
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions

# What decides no number: where things are, what is kept, what is shown. The images themselves are hashed.
_NOT_IDENTITY = ("runs_dir", "run_dir", "keep", "progress", "cache")
_NOT_IDENTITY_KEYS = ("dataset.root", "dataset.test_root", "dataset.download")

PARTS = ("generator", "sampler", "regime", "mitigation", "encoder", "metrics")
"""Groups of which ``assemble`` takes what they describe, besides dataset, budget and trainer."""


def run_chain(composed: DictConfig) -> None:
    """Runs one chain to its end, or says that it is complete, and shows its table and figures.

    Raises:
        CollapseBenchError: for what the user can mend; the run's status says so too, and a second call continues.
    """
    config = resolve(composed)
    _check(config)
    trainer = build(config["trainer"], "trainer")
    if trainer.strategy == "ddp":
        _refuse_other_launchers()
    join(trainer.strategy, trainer.num_processes, trainer.accelerator)
    with failing_together():
        _refuse_other_options(config)
        _run_or_skip(config, trainer)


def _refuse_other_launchers() -> None:
    """Raises ConfigError for a sweep whose runs do not follow each other in this process."""
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return
    for group, known in (("launcher", ("BasicLauncher",)), ("sweeper", ("BasicSweeper", "SuiteSweeper"))):
        if getattr(hydra, group)["_target_"].rpartition(".")[2] not in known:
            raise ConfigError(
                f"hydra/{group}={hydra.runtime.choices[f'hydra/{group}']} deals out the runs of a sweep, and with "
                "trainer.strategy=ddp all processes make each run together; leave one of the two out"
            )


def _refuse_other_options(config: Mapping[str, Any]) -> None:
    """Raises ConfigError if processes that belong together were started with different options."""
    own = flatten(config)
    for other in gathered(lambda: own, "options"):
        if differing := sorted(key for key in {*own, *other} if own.get(key) != other.get(key)):
            raise ConfigError(f"torchrun has started processes with different options: {', '.join(differing)}")


def _run_or_skip(config: Mapping[str, Any], trainer: TrainerOptions) -> None:
    console = Console(quiet=not is_main())
    choices = chosen_options()
    data = from_main(build(config["dataset"], "dataset").load)
    identity = {**_identity(config), "data": data.content_hash}
    config_hash = _hash(identity)
    run_dir = RunDir(_folder(config, choices, config_hash))
    if from_main(lambda: _is_complete(run_dir, config_hash)):
        console.print(f"complete already, skipped: {run_dir.path}", highlight=False, soft_wrap=True)
        if is_main() and (HydraConfig.get().mode == RunMode.RUN or not (run_dir.path / "figures").exists()):
            _show(run_dir, console)
        return

    budget = build(config["budget"], "budget")
    info: dict[str, Any] = {
        "identity": {
            **identity,
            **{f"versions.{k}": v for k, v in library_versions().items()},
            "code": code_version(),
        },
        "config_hash": config_hash,
        "choices": choices,
        "seed": config["seed"],
        "num_generations": budget.num_generations,
        "class_names": list(data.spec.class_names),
        "versions": {**library_versions(), "python": platform.python_version()},
        "command": shlex.join([*_program(), *sys.argv[1:]]),
    }
    first = from_main(run_dir.num_committed)
    with RichWatch(console, budget, first, live=config["progress"] and is_main()) as watch:
        try:
            parts = assemble(
                data=data,
                **{name: build(config[name], name) for name in (*PARTS, "labels")},
                budget=budget,
                trainer=trainer,
                store=open_store(config["cache"]),
                watch=watch,
            )
        except CombinationError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:  # reports show the cell of a sweep; a slip leaves nothing
                reason = str(error)
                from_main(lambda: run_dir.refuse(info, config, reason))
            raise
        measured_with = parts.measurer.identity
        info["identity"]["measured_with"] = measured_with
        info["machine"] = _machine(trainer)
        info["encoder"] = {"name": choices["encoder"], "hash": measured_with, **parts.measurer.accuracy}
        with ExitStack() as stack:
            from_main(lambda: stack.enter_context(run_dir.opened(info, config)))
            _run_to_end(run_dir, parts, config, console)
    if is_main():
        _show(run_dir, console)


def _run_to_end(run_dir: RunDir, parts: Parts, config: Mapping[str, Any], console: Console) -> None:
    def say(state: str, error: str | None = None) -> None:
        if is_main():
            run_dir.write_status(state, error)

    say("running")
    if is_main():
        np.save(run_dir.path / "real_grid.npy", to_grid(parts.setting.real.images[:NUM_GRID]), allow_pickle=False)
    try:
        with failing_together(partial(say, "failed")):
            run_generations(parts, config["seed"], run_dir, config["keep"])
    except Exception as error:
        say("failed", str(error) or type(error).__name__)
        raise
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the one into the other
        say("failed", "interrupted")
        console.print(f"stopped; the same command continues at generation {run_dir.num_committed()}")
        raise
    say("complete")


def _program() -> list[str]:
    """What starts this program, without its options."""
    if not is_shared():
        return ["collapse-run"]
    num_local = int(os.environ["LOCAL_WORLD_SIZE"])
    nodes = [] if num_local == num_processes() else [f"--nnodes={num_processes() // num_local}"]
    return ["torchrun", *nodes, f"--nproc_per_node={num_local}", "-m", "collapse_bench.cli.run"]


def _check(config: Mapping[str, Any]) -> None:
    for key, kind in (("seed", int), ("progress", bool), ("runs_dir", str), ("keep", str)):
        if not isinstance(config[key], kind):
            raise ConfigError(f"{key} must be {kind.__name__}, got {config[key]!r}")
    if config["keep"] not in ("last", "all"):
        raise ConfigError(f"keep must be one of last, all; got {config['keep']!r}")


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Everything in a configuration that decides a number, with dotted keys."""
    deciding = flatten({key: value for key, value in config.items() if key not in _NOT_IDENTITY})
    return {key: value for key, value in deciding.items() if key not in _NOT_IDENTITY_KEYS}


def _hash(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def _folder(config: Mapping[str, Any], choices: Mapping[str, str], config_hash: str) -> Path:
    """The run's folder: named by its choices for people, and by its hash so that no two runs share one."""
    if config["run_dir"] is not None:
        return Path(config["run_dir"]).expanduser()
    arm = "-".join(choices[group] for group in ("dataset", "generator", "regime", "mitigation"))
    return Path(config["runs_dir"]).expanduser() / f"{arm}-seed{config['seed']}-{config_hash}"


def _is_complete(run_dir: RunDir, config_hash: str) -> bool:
    status, info = run_dir.path / "status.json", run_dir.path / "run.json"
    if not (status.exists() and info.exists()):
        return False
    return read_json(status)["state"] == "complete" and read_json(info)["config_hash"] == config_hash


def open_store(cache: Mapping[str, Any]) -> Store:
    """The store that ``cache`` describes.

    Raises:
        ConfigError: if its size is not a positive number.
    """
    if not isinstance(cache["max_gb"], (int, float)) or cache["max_gb"] <= 0:
        raise ConfigError(f"cache.max_gb must be a number above 0, got {cache['max_gb']!r}")
    return Store(Path(cache["root"]).expanduser(), int(cache["max_gb"] * 2**30), bool(cache["enabled"]))


def _machine(trainer: TrainerOptions) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if trainer.device.type == "cuda" else "cpu"
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "num_threads": torch.get_num_threads(),
        "num_processes": num_processes(),
        "device": device,
    }


def _show(run_dir: RunDir, console: Console) -> None:
    """The table, the figures, and where they are."""
    run = load_run(run_dir.path)
    cell = " / ".join(str(run.choices[group]) for group in ("dataset", "generator", "regime", "mitigation"))
    size = f", {in_millions(run.records[0].num_parameters)} parameters" if run.records else ""
    print_table(console, f"{cell}, seed {run.seed}{size}", format_generation_table(run))
    write_figures([run], run_dir.path / "figures")
    console.print(f"run folder: {run_dir.path}   figures: {run_dir.path / 'figures'}", highlight=False, soft_wrap=True)


def print_table(console: Console, title: str, table: pd.DataFrame) -> None:
    """Shows a table of text; columns that do not fit continue below, so that none is cut."""
    for line in (f"\n{title}", to_text(table, console.width)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
