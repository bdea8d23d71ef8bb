"""Sweeps: what ``collapse-run -m`` adds to Hydra's sweepers and launchers, and one cell of a sweep in its job."""

import hashlib
import json
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from collapse_bench.cli.config import speaks, typed_command
from collapse_bench.errors import CollapseBenchError, ConfigError, RunBusyError, RunDirError, in_one_line
from collapse_bench.sheet import in_short, note, now, read_sheet

_STURDY = "hydra_plugins.collapse_bench_sweep.sturdy"
_HELD: list[FileLock | TemporaryDirectory[str]] = []
"""Until this process ends: the lock, and the folder, of the sheet of the sweep that it runs."""


class SturdySweep(Callback):
    """Makes a sweep go on to its end, keep a sheet of its cells, and run as many jobs at once as there are cores for.

    Hydra calls it before it makes the sweeper; see ``hydra.callbacks`` in ``conf/run.yaml``.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Changes Hydra's own part of the configuration, never that of the runs.

        Hydra makes a warning of any exception here and goes on without what it was to do, so that it leaves instead.
        """
        try:
            _prepare(config)
        except CollapseBenchError as error:
            sys.exit(f"error: {error}")
        except Exception as error:
            sys.exit(f"error: the sweep cannot start: {type(error).__name__}: {in_one_line(error)}")


def _prepare(config: DictConfig) -> None:
    """See ``SturdySweep``."""
    hydra = config.hydra
    with open_dict(hydra):
        _share_cores(hydra, config.trainer.num_threads)
        sheet = _sheet_of(hydra)
        # Where jobs find the sheet, and a folder of its own for what Hydra and Optuna write about the sweep.
        hydra.sweep.dir = str(sheet.with_suffix(""))
        quoted = hydra.sweep.dir.replace("'", "\\'")
        hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")
        common = {"_recursive_": False, "sheet": str(sheet)}
        hydra.sweeper = {"_target_": f"{_STURDY}.SturdySweeper", "chosen": hydra.sweeper, **common}
        common["command"] = typed_command()
        hydra.launcher = {"_target_": f"{_STURDY}.SturdyLauncher", "chosen": hydra.launcher, **common}


def run_cell(config: DictConfig) -> float | None:
    """Runs one cell of a sweep in its job; the value of its objective, if it has one and did not fail.

    An error is written into the sweep's sheet and shown, and the other cells go on.
    """
    hydra = HydraConfig.get()
    path, overrides = Path(hydra.sweep.dir).with_suffix(".json"), list(hydra.overrides.task)
    note(path, overrides, begun=now(), ended=None, error=None, value=None)
    sheet = read_sheet(path)
    cell = sheet.cell(overrides)
    name = in_short(cell, sheet)
    alone_on_terminal = hydra.runtime.choices["hydra/launcher"] == "basic"
    if alone_on_terminal and speaks():
        of_all = "" if "direction" in hydra.sweeper else f"/{len(sheet.cells)}"  # Optuna chooses one after the other
        print(f"\n[{sheet.cells.index(cell) + 1}{of_all}] {name}", flush=True)

    try:
        # torch and Lightning take seconds to import, and a job that cannot even do that has begun.
        from collapse_bench.cli.chain import run_chain

        if "direction" in hydra.sweeper and config.objective is None:
            raise ConfigError("this sweeper looks for the best value of a number; say which one: objective=fid")
        value = run_chain(
            config,
            command=sheet.command,
            begun=lambda run_dir: note(path, overrides, run_dir=str(run_dir)),
            alone_on_terminal=alone_on_terminal,
            name=name,
        )
    except RunBusyError as error:
        note(path, overrides, begun=None, error=str(error))  # the launcher takes it up again
        return None
    except Exception as error:
        what = "" if isinstance(error, CollapseBenchError) else f"{type(error).__name__}: "
        line = what + in_one_line(error)
        if what and speaks():
            traceback.print_exc()
        note(path, overrides, ended=now(), error=line)
        if speaks():
            print(f"error: {line}  [{name}]", file=sys.stderr, flush=True)
        return None
    note(path, overrides, ended=now(), value=value)
    return value


def _sheet_of(hydra: DictConfig) -> Path:
    """Of this sweep: the same for the same command, whatever launches it, but never that of one that is running."""
    chosen = [sorted(hydra.overrides.task), OmegaConf.to_container(hydra.sweeper, resolve=True)]
    digest = hashlib.sha256(json.dumps(chosen, sort_keys=True, default=str).encode()).hexdigest()[:8]
    folder = Path(hydra.sweep.dir).expanduser().absolute()
    if not speaks():  # the first of several processes keeps the sheet; the others need one all the same
        _HELD.append(spare := TemporaryDirectory(prefix="collapse-bench-"))
        folder = Path(spare.name)
    name, k = digest, 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            lock = FileLock(folder / f"{name}.running")
            with suppress(Timeout):
                lock.acquire(timeout=0)
                _HELD.append(lock)
                return folder / f"{name}.json"
            k += 1
            name = f"{digest}-{k}"
    except OSError as error:
        raise RunDirError(f"cannot write {folder}: {error}; choose another runs_dir") from error


def _share_cores(hydra: DictConfig, num_threads: int) -> None:
    """Lets as many jobs run at once as there are cores for, where the user does not say how many.

    Threads per job decide the last digits of the numbers, so they are the run's and never the launcher's; jobs at once
    decide none. More jobs than there are cores for are the user's choice, and said to be slower.
    """
    from joblib import cpu_count  # comes with scikit-learn; knows affinity and the limits of containers

    if not isinstance(num_threads, int) or num_threads < 1:
        return  # for each run to refuse
    cores, launcher = cpu_count(), str(hydra.launcher._target_).rpartition(".")[2]
    fitting = max(1, cores // num_threads)
    if launcher == "JoblibLauncher":
        if hydra.launcher.n_jobs == -1:  # the default: all cores
            hydra.launcher.n_jobs = fitting
        num_jobs = hydra.launcher.n_jobs if hydra.launcher.n_jobs > 0 else cores + 1 + hydra.launcher.n_jobs
        _warn_of_threads(num_jobs, num_threads, cores, "hydra.launcher.n_jobs")
    elif launcher == "LocalLauncher":  # runs a whole batch of the sweeper at once
        size = "max_batch_size" if "max_batch_size" in hydra.sweeper else "n_jobs"  # the latter of Optuna
        if hydra.sweeper[size] is None:
            hydra.sweeper[size] = fitting
        _warn_of_threads(hydra.sweeper[size], num_threads, cores, f"hydra.sweeper.{size}")
    elif launcher == "SlurmLauncher":
        if hydra.launcher.cpus_per_task is None:
            hydra.launcher.cpus_per_task = num_threads
        _warn_of_threads(1, num_threads, hydra.launcher.cpus_per_task, "hydra.launcher.cpus_per_task")
    elif launcher == "RayLauncher":
        hydra.launcher.ray.remote.setdefault("num_cpus", min(num_threads, cores))


def _warn_of_threads(num_jobs: int, num_threads: int, cores: int, key: str) -> None:
    if num_jobs * num_threads > cores:
        print(
            f"warning: {num_jobs} jobs at once with trainer.num_threads={num_threads} are {num_jobs * num_threads} "
            f"threads for {cores} cores, which is slower than fewer jobs; see {key}. Fewer threads per job are other "
            "runs: sums depend on their number",
            file=sys.stderr,
        )
