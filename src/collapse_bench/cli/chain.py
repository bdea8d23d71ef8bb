"""One run of ``collapse-run``: from the composed configuration to a finished run folder."""

import functools
import hashlib
import json
import math
import platform
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
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
from threadpoolctl import threadpool_limits

from collapse_bench.analysis.formats import to_text
from collapse_bench.analysis.runs import load_run
from collapse_bench.analysis.tables import format_generation_table, format_value, label
from collapse_bench.assembly import assemble
from collapse_bench.cli.config import build, chosen_options, classes, decides_numbers, flatten, resolve
from collapse_bench.cli.loggers import RunLog
from collapse_bench.cli.progress import RichWatch, in_millions
from collapse_bench.datasets.base import RealImages
from collapse_bench.distributed import failing_together, from_main, gathered, is_main, join, num_processes
from collapse_bench.errors import CombinationError, ConfigError, MetricError
from collapse_bench.fingerprint import code_version, foreign_source, library_versions
from collapse_bench.loop import Parts, run_generations
from collapse_bench.measuring import NUM_GRID, to_grid
from collapse_bench.rundir import RunDir, read_json
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.watch import Watches

PARTS = ("generator", "sampler", "regime", "mitigation", "encoder", "metrics")
"""Groups of which ``assemble`` takes what they describe, besides dataset, budget and trainer."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a run was started, which decides none of its numbers.

    Args:
        choices: the option chosen in each group.
        command: the command line that runs the same.
        console: where progress is shown.
        in_sweep: whether a combination that makes no sense leaves a trace, which reports show.
        begun: told the run folder before anything is trained.
        name: of the run, before each line that is shown.
    """

    choices: Mapping[str, str]
    command: str
    console: Console
    in_sweep: bool = False
    begun: Callable[[Path], None] | None = None
    name: str = ""


def run_chain(
    composed: DictConfig,
    *,
    command: str,
    begun: Callable[[Path], None] | None = None,
    name: str = "",
    alone_on_terminal: bool = True,
) -> float | None:
    """Runs one chain to its end, or says that it is complete, and shows its table; draws the figures of a single run.

    Args:
        composed: the configuration.
        command: the command line that runs the same.
        begun: told the run folder before anything is trained.
        name: of the run among those of its sweep.
        alone_on_terminal: whether nothing else is shown meanwhile; if not, there is a line per generation and no more.

    Returns:
        The value of the objective, where there is one.

    Raises:
        CollapseBenchError: for what the user can mend; the run's status says so too, and a second call continues.
    """
    console = Console()
    config = resolve(composed)
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if not alone_on_terminal:
        config = {**config, "progress": False}
    if in_sweep and config["trainer"]["strategy"] == "ddp":
        _refuse_other_launchers()
    launch = Launch(
        choices=chosen_options(),
        command=command,
        console=console,
        in_sweep=in_sweep,
        begun=begun,
        name="" if alone_on_terminal else name,
    )
    run_dir, was_complete = run_config(config, launch)
    if was_complete:
        console.print(f"complete already, skipped: {run_dir.path}", highlight=False, soft_wrap=True)
    if is_main() and not in_sweep:  # collapse-report draws those of a sweep, which together take minutes
        from collapse_bench.analysis.figures import write_figures  # matplotlib takes seconds to load

        write_figures([load_run(run_dir.path)], run_dir.path / "figures")
    if is_main() and in_sweep and alone_on_terminal and not was_complete:
        _show_end(run_dir, console)
    elif is_main() and not in_sweep:
        _show(run_dir, console)
    return None if config["objective"] is None else from_main(lambda: _objective(run_dir, config["objective"]))


def _refuse_other_launchers() -> None:
    """Raises ConfigError for a sweep whose runs do not follow each other in this process."""
    choices = HydraConfig.get().runtime.choices
    for group, known in (("hydra/launcher", ("basic",)), ("hydra/sweeper", ("basic", "suite"))):
        if choices[group] not in known:
            raise ConfigError(
                f"{group}={choices[group]} deals out the runs of a sweep, and with trainer.strategy=ddp all processes "
                "make each run together; leave one of the two out"
            )


def run_config(config: Mapping[str, Any], launch: Launch) -> tuple[RunDir, bool]:
    """Runs one chain to its end; its folder, and whether it was complete before.

    Of several processes, which torchrun has started, the main one alone speaks and has a folder.

    Args:
        config: resolved, as plain values.
        launch: how it was started.

    Raises:
        RunBusyError: if another process is running it.
        CollapseBenchError: for what the user can mend; the run's status says so too, and a second call continues.
    """
    _check(config)
    trainer = build(config["trainer"], "trainer")
    join(trainer.strategy, trainer.num_processes, trainer.accelerator)
    launch.console.quiet = launch.console.quiet or not is_main()
    with failing_together():
        _refuse_other_options(config)
        return _run_or_skip(config, trainer, launch)


def _refuse_other_options(config: Mapping[str, Any]) -> None:
    """Raises ConfigError if processes that belong together were started with different options."""
    own = flatten(config)
    for other in gathered(lambda: own, "options"):
        if differing := sorted(key for key in {*own, *other} if own.get(key) != other.get(key)):
            raise ConfigError(f"torchrun has started processes with different options: {', '.join(differing)}")


def _run_or_skip(config: Mapping[str, Any], trainer: TrainerOptions, launch: Launch) -> tuple[RunDir, bool]:
    log_targets = (build(config["logger"], "logger") or {}) if is_main() else {}
    data = from_main(build(config["dataset"], "dataset").load)
    identity = {**_identity(config), "data": data.content_hash}
    config_hash = _hash(identity)
    run_dir = RunDir(_folder(config, launch.choices, config_hash))
    log = RunLog(log_targets, run_dir)
    if launch.begun is not None:
        launch.begun(run_dir.path)
    if from_main(lambda: _is_complete(run_dir, config_hash)):
        log.complete()
        return run_dir, True
    from_main(run_dir.check_idle)
    origin = _origin(identity, launch) | {"config_hash": config_hash, "seed": config["seed"]}
    _run(run_dir, config, data, trainer, launch, log, origin)
    log.repeat_warnings()
    return run_dir, False


def _run(
    run_dir: RunDir,
    config: Mapping[str, Any],
    data: RealImages,
    trainer: TrainerOptions,
    launch: Launch,
    log: RunLog,
    origin: Mapping[str, Any],
) -> None:
    """Assembles the parts of a run and runs it to its end, with a display that shows both."""
    budget = build(config["budget"], "budget")
    planned = {**origin, "num_generations": budget.num_generations, "class_names": list(data.spec.class_names)}
    first, live = from_main(run_dir.num_committed), config["progress"] and is_main()
    if not launch.in_sweep:  # a sign of life also where no bar moves; a sweep names its cells
        words = f"{run_dir.path}: preparing encoder and floor, then generations {first} to {budget.num_generations}"
        launch.console.print(words, highlight=False, markup=False, soft_wrap=True)
    # Arithmetic outside torch has as many threads as torch has, whatever a launcher sets in the environment.
    with (
        threadpool_limits(trainer.num_threads),
        RichWatch(launch.console, budget, first=first, live=live, name=launch.name) as display,
    ):
        try:
            parts = assemble(
                data=data,
                **{name: build(config[name], name) for name in (*PARTS, "labels")},
                budget=budget,
                seed=config["seed"],
                trainer=trainer,
                store=open_store(config["cache"]),
                watch=Watches(display, log),
                objective=config["objective"],
            )
        except KeyboardInterrupt:
            launch.console.print("stopped while preparing; nothing is lost, the same command starts again")
            raise
        except CombinationError as error:
            if launch.in_sweep:  # reports show the cell of a sweep; a slip leaves nothing
                reason = str(error)
                from_main(lambda: run_dir.refuse(planned, config, reason))
            raise
        if launch.in_sweep and config["objective"] is not None:
            _check_direction(config["objective"], parts.measurer.objective_better)
        measured_with = parts.measurer.identity
        info = {
            **planned,
            "identity": {**planned["identity"], "measured_with": measured_with},
            "machine": _machine(trainer),
            "encoder": {"name": launch.choices["encoder"], "hash": measured_with, **parts.measurer.accuracy},
        }
        with ExitStack() as stack:
            from_main(lambda: stack.enter_context(run_dir.opened(info, config)))
            _run_to_end(run_dir, parts, log, config, launch.console)


def _origin(identity: Mapping[str, Any], launch: Launch) -> dict[str, Any]:
    """What made a run: choices and code, which decide its numbers, and the command."""
    versions = library_versions()
    return {
        "identity": {**identity, **{f"versions.{k}": v for k, v in versions.items()}, "code": code_version()},
        "choices": {group: option for group, option in launch.choices.items() if decides_numbers(group)},
        "versions": {**versions, "python": platform.python_version()},
        "command": launch.command,
        "commit": source_commit(),
    }


def _run_to_end(run_dir: RunDir, parts: Parts, log: RunLog, config: Mapping[str, Any], console: Console) -> None:
    def say(state: str, error: str | None = None) -> None:
        if is_main():
            run_dir.write_status(state, error)

    say("running")
    if is_main():
        np.save(run_dir.path / "real_grid.npy", to_grid(parts.setting.real.images[:NUM_GRID]), allow_pickle=False)
    try:
        with failing_together(partial(say, "failed")), log.opened():
            run_generations(parts, config["seed"], run_dir, config["keep"])
    except Exception as error:
        say("failed", str(error) or type(error).__name__)
        raise
    except (KeyboardInterrupt, SystemExit):  # the latter from Lightning, for SIGTERM
        say("interrupted")
        console.print(f"stopped; the same command continues at generation {run_dir.num_committed()}")
        raise
    say("complete")


def _check(config: Mapping[str, Any]) -> None:
    for key, kind in (("seed", int), ("progress", bool), ("runs_dir", str), ("keep", str)):
        if not isinstance(config[key], kind):
            raise ConfigError(f"{key} must be {kind.__name__}, got {config[key]!r}")
    if config["seed"] < 0:
        raise ConfigError(f"seed must be at least 0, got {config['seed']}")
    for key, value in {"objective": config["objective"], "run_dir": config["run_dir"]}.items():
        if not isinstance(value, str | None):
            raise ConfigError(f"{key} must be text, or null, got {value!r}")
    if config["keep"] not in ("last", "all"):
        raise ConfigError(f"keep must be one of last, all; got {config['keep']!r}")


def _check_direction(objective: str, better: str | None) -> None:
    """Raises ConfigError if the sweeper looks for the worst value of the objective; one that looks for none may."""
    wanted = "maximize" if better == "higher" else "minimize"
    direction = HydraConfig.get().sweeper.get("direction")
    if direction is not None and getattr(direction, "name", direction) != wanted:
        raise ConfigError(f"objective={objective} is better when {better}; set hydra.sweeper.direction={wanted}")


def _objective(run_dir: RunDir, objective: str) -> float:
    """The value of the objective at the last generation.

    Raises:
        MetricError: if it is not defined there.
    """
    value = run_dir.records()[-1].score(objective, "tuning")
    if not math.isfinite(value):
        raise MetricError(f"objective={objective} is not defined for the samples of the last generation")
    return value


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Everything in a configuration that decides a number, with dotted keys; of a user's own classes also the code."""
    deciding = {key: value for key, value in config.items() if decides_numbers(key)}
    if deciding["objective"] is None:  # runs of before there were objectives are the same ones
        del deciding["objective"]
    identity = {key: value for key, value in flatten(deciding).items() if decides_numbers(key)}
    sources = {f"{path}._source_": foreign_source(cls) for path, cls in classes(deciding).items()}
    return {**identity, **{key: source for key, source in sources.items() if source}}


def _hash(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def _folder(config: Mapping[str, Any], choices: Mapping[str, str], config_hash: str) -> Path:
    """The run's folder: named by its choices for people, and by its hash so that no two runs share one."""
    if config["run_dir"] is not None:
        return Path(config["run_dir"]).expanduser()
    arm = "-".join(choices[group] for group in ("dataset", "generator", "regime", "mitigation"))
    return Path(config["runs_dir"]).expanduser() / f"{arm}-seed{config['seed']}-{config_hash}"


def _is_complete(run_dir: RunDir, config_hash: str) -> bool:
    info = run_dir.path / "run.json"
    return run_dir.complete and info.exists() and read_json(info)["config_hash"] == config_hash


def open_store(cache: Mapping[str, Any]) -> Store:
    """The store that ``cache`` describes.

    Raises:
        ConfigError: if one of its options is of another type, or its size not a positive number.
    """
    if not isinstance(cache["max_gb"], (int, float)) or cache["max_gb"] <= 0:
        raise ConfigError(f"cache.max_gb must be a number above 0, got {cache['max_gb']!r}")
    if not isinstance(cache["enabled"], bool):
        raise ConfigError(f"cache.enabled must be true or false, got {cache['enabled']!r}")
    if not isinstance(cache["root"], str):
        raise ConfigError(f"cache.root must be a folder, got {cache['root']!r}")
    return Store(Path(cache["root"]).expanduser(), int(cache["max_gb"] * 2**30), cache["enabled"])


@functools.cache
def source_commit() -> str | None:
    """The git commit of the package's source, ``"... with changes"`` if it was edited since; ``None`` if it has none.

    The hash of the code in a run's identity decides what compares; this is where to find that code.
    """
    file = Path(__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=file.parent, capture_output=True, text=True, check=False)
        except FileNotFoundError:  # no git on this machine
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package can lie in somebody else's checkout.
    if git("ls-files", "--error-unmatch", file.name) is None:
        return None
    return git("describe", "--always", "--exclude=*", "--abbrev=12", "--dirty= with changes")


def _machine(trainer: TrainerOptions) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if trainer.device.type == "cuda" else "cpu"
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "num_threads": torch.get_num_threads(),
        "num_processes": num_processes(),
        "device": device,
    }


def _show_end(run_dir: RunDir, console: Console) -> None:
    """Where the chain has got to, in a line; ``collapse-report`` has the tables of a sweep."""
    run = load_run(run_dir.path)
    lead = [metric for metric in ("fid", "recall") if metric in run.metrics] or list(run.metrics[:1])
    first, last = run.records[0], run.records[-1]
    ends = [first, last] if last.generation else [first]
    moves = [f"{label(m)} {' -> '.join(format_value(m, end.score(m)) for end in ends)}" for m in lead]
    reached = " to ".join(str(end.generation) for end in ends)
    words = f"generation {reached}: {', '.join(moves)}; run folder: {run_dir.path}"
    console.print(words, highlight=False, markup=False, soft_wrap=True)


def _show(run_dir: RunDir, console: Console) -> None:
    """The table, and where the figures are."""
    run = load_run(run_dir.path)
    cell = " / ".join(str(run.choices[group]) for group in ("dataset", "generator", "regime", "mitigation"))
    size = f", {in_millions(run.records[0].num_parameters)} parameters" if run.records else ""
    print_table(console, f"{cell}, seed {run.seed}{size}", format_generation_table(run))
    figures = run_dir.path / "figures"
    drawn = f"   figures: {figures}" if figures.exists() else ""
    console.print(f"run folder: {run_dir.path}{drawn}", highlight=False, soft_wrap=True)


def print_table(console: Console, title: str, table: pd.DataFrame) -> None:
    """Shows a table of text; columns that do not fit continue below, so that none is cut."""
    for line in (f"\n{title}", to_text(table, console.width)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
