"""A sweeper and a launcher around those that the user chooses, so that one lost job costs no other one.

``collapse_bench.cli.sweep.SturdySweep`` puts them there. Hydra finds plugins in this namespace alone.
"""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from collapse_bench.cli.config import speaks
from collapse_bench.errors import SweepError, in_one_line
from collapse_bench.sheet import Cell, Sheet, add_cells, in_short, read_sheet, start_sheet, unfinished


class SturdySweeper(Sweeper):
    """Runs a sweep to its end and says then which of its cells did not finish, and why.

    Args:
        chosen: configuration of the sweeper that chooses the cells.
        sheet: file of the sweep's sheet.
    """

    def __init__(self, chosen: DictConfig, sheet: str) -> None:
        self._chosen, self._sheet = chosen, Path(sheet)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See ``Sweeper.setup``; the configuration is given back as the user chose it."""
        with open_dict(config.hydra):
            config.hydra.sweeper = self._chosen
        self._sweeper = sweeper = Plugins.instance().instantiate_sweeper(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        # These know all their batches before they launch the first one; Optuna chooses as it goes.
        if isinstance(sweeper, BasicSweeper) and isinstance(sweeper.launcher, SturdyLauncher):
            sweeper.launcher.all_cells = lambda: [cell for batch in sweeper.overrides or [] for cell in batch]

    def sweep(self, arguments: list[str]) -> Any:
        """See ``Sweeper.sweep``.

        Raises:
            SweepError: with a line for each cell that did not finish.
        """
        before = self._started()
        try:
            returned = self._sweeper.sweep(arguments)
        except Exception as error:
            if self._started() != before:  # otherwise the sheet is that of an earlier start, or there is none
                self._check(error)
            raise
        self._check(None)
        self._show_best()
        self._say_what_is_next()
        return returned

    def _show_best(self) -> None:
        """What Optuna writes into a file, and its own log would say."""
        file = self._sheet.with_suffix("") / "optimization_results.yaml"
        if file.exists() and "best_params" in (results := OmegaConf.load(file)):
            best = " ".join(f"{key}={value}" for key, value in results.best_params.items())
            print(
                f"best of {len(read_sheet(self._sheet).cells)}: {best} (objective {results.best_value:.4g})  [{file}]"
            )

    def _say_what_is_next(self) -> None:
        cells = read_sheet(self._sheet).cells
        folders = {Path(cell.run_dir).parent for cell in cells if cell.run_dir}
        if speaks() and len(folders) == 1:
            folder = shlex.quote(os.path.relpath(folders.pop()))
            print(f"the sweep of {len(cells)} is done; to compare its runs: collapse-report {folder}")

    def _started(self) -> str | None:
        return read_sheet(self._sheet).started if self._sheet.exists() else None

    def _check(self, error: Exception | None) -> None:
        sheet = read_sheet(self._sheet)
        if lines := unfinished(sheet):
            because = [] if error is None else [in_one_line(error)]
            raise SweepError(
                f"{len(lines)} of {len(sheet.cells)} runs of the sweep did not finish; the same command runs only "
                "these\n" + "\n".join([*(f"  {line}" for line in lines), *because])
            ) from error


class SturdyLauncher(Launcher):
    """Launches cells until each of them has begun, also where a job that is killed takes the others down.

    A cell that another process is running is left for later, and taken up when that process is done with it: it is
    then skipped if it is complete and continued if it is not.

    Args:
        chosen: configuration of the launcher that runs them.
        sheet: file of the sweep's sheet.
        command: the sweep's, as it was typed.
    """

    def __init__(self, chosen: DictConfig, sheet: str, command: str) -> None:
        self._chosen, self._sheet, self._command = chosen, Path(sheet), command
        self._has_begun = False
        self.all_cells: Callable[[], Sequence[Sequence[str]]] = list
        """The overrides of all cells of the sweep, where its sweeper knows them before it launches the first batch."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See ``Launcher.setup``; the configuration is given back as the user chose it."""
        with open_dict(config.hydra):
            config.hydra.launcher = self._chosen
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """See ``Launcher.launch``: one return per cell, with the value of the objective, or None.

        Raises:
            SweepError: if no job of the launcher begins.
        """
        (add_cells if self._has_begun else self._start)(self._sheet, job_overrides)
        left = list(job_overrides)
        while left:
            error = self._launch(left, initial_job_idx)
            sheet = read_sheet(self._sheet)
            cells = [sheet.cell(overrides) for overrides in left]
            held = [cell for cell in cells if cell.is_run_elsewhere]
            waiting = [cell for cell in cells if cell.begun is None]
            if len(waiting) == len(cells) and not held:
                raise SweepError(f"no job begins under this launcher: {error}") from error
            self._await(held, sheet)
            left = [cell.overrides for cell in waiting]
        sheet = read_sheet(self._sheet)
        return [
            JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, _return_value=sheet.cell(overrides).value)
            for overrides in job_overrides
        ]

    def _start(self, sheet: Path, job_overrides: Sequence[Sequence[str]]) -> None:
        start_sheet(sheet, self._command, self.all_cells() or job_overrides)
        self._has_begun = True

    def _launch(self, cells: Sequence[Sequence[str]], initial_job_idx: int) -> Exception | None:
        """What went wrong in the launcher itself, if anything; errors of cells are in the sheet."""
        try:
            with _outliving_dead_jobs(self._launcher):
                returns = self._launcher.launch(cells, initial_job_idx=initial_job_idx)
        except Exception as error:  # such as joblib's when a process of its pool is killed: the others are gone too
            return error
        return next((r._return_value for r in returns if r.status != JobStatus.COMPLETED), None)

    def _await(self, cells: Sequence[Cell], sheet: Sheet) -> None:
        """Waits until no other process runs any of these cells; some may have been finished since they were met."""
        if busy := [cell for cell in cells if _is_busy(cell)]:
            names = "; ".join(in_short(cell, sheet) for cell in busy)
            print(f"waiting for another process, which runs {len(busy)} of these runs: {names}", file=sys.stderr)
        for cell in busy:
            with _lock(cell):
                pass


def _lock(cell: Cell) -> FileLock:
    return FileLock(Path(cell.run_dir or "") / ".lock")


def _is_busy(cell: Cell) -> bool:
    try:
        with _lock(cell).acquire(blocking=False):
            return False
    except Timeout:
        return True


@contextmanager
def _outliving_dead_jobs(launcher: Launcher) -> Iterator[None]:
    """Lets submitit and Ray wait for all jobs: at the first one that has died they raise, and forget the others."""
    kind = type(launcher).__module__.split(".")[1]
    if kind == "hydra_submitit_launcher":
        import submitit
        from submitit.core.utils import FailedJobError, UncompletedJobError

        owner, name, errors = submitit.Job, "results", (FailedJobError, UncompletedJobError)
    elif kind == "hydra_ray_launcher":
        import ray
        from ray.exceptions import RayError

        owner, name, errors = ray, "get", (RayError,)
    else:
        yield
        return
    wait = getattr(owner, name)

    def outlive(*args: Any, **kwargs: Any) -> Any:
        try:
            return wait(*args, **kwargs)
        except errors as error:
            dead = JobReturn(_return_value=error)  # its status stays unknown
            return [dead] if owner is not sys.modules.get("ray") else dead

    setattr(owner, name, outlive)
    try:
        yield
    finally:
        setattr(owner, name, wait)
