"""Loggers: committed generations are shown in TensorBoard, a CSV file, Weights & Biases or MLflow as well.

A log is a copy of the records. It is written when a generation is committed, never while a model is fitted, and from
nothing but what is on the disk; so a log that has stopped, for whatever reason, is completed by the same command.
"""

import logging
import math
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, final
from uuid import uuid4

import numpy as np
import torch
from filelock import FileLock
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from rich.console import Console
from torchvision.utils import make_grid

from collapse_bench.errors import ConfigError
from collapse_bench.records import Record
from collapse_bench.rundir import RunDir, read_json, write_json
from collapse_bench.watch import Watch

_MAX_METRICS = 500
"""Numbers that MLflow is given at once; it takes 1,000."""


@dataclass(frozen=True)
class LogTarget(ABC):
    """A place that takes the log of a run, through one of Lightning's loggers.

    Raises:
        ConfigError: if a package that it needs is not installed.
    """

    packages: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for package in self.packages:
            if find_spec(package) is None:
                raise ConfigError(
                    f"logger={type(self).__name__.lower()} needs the package {package}, which is not installed: "
                    "pip install 'collapse-bench[loggers]'"
                )

    @property
    def continues(self) -> bool:
        """Whether an opened log continues what it had; one that does not is written anew from generation 0 on."""
        return False

    @abstractmethod
    def open(self, folder: Path, name: str, version: str | None) -> Logger:
        """Lightning's logger, ready to take numbers.

        Args:
            folder: for the files, in the run's own folder; not made yet.
            name: of the run.
            version: of the log to continue or to write anew; ``None`` begins one.
        """

    def log_hyperparams(self, log: Any, params: dict[str, Any]) -> None:
        """Logs what decides the numbers."""
        log.log_hyperparams(params)

    def log_metrics(self, log: Any, metrics: dict[str, float], step: int) -> None:
        """Logs the numbers of one step."""
        log.log_metrics(metrics, step)

    def log_samples(self, log: Any, picture: np.ndarray, generation: int) -> None:  # noqa: B027
        """Logs samples as one picture, uint8 [h, w, 3]; does nothing where there is no place for pictures."""

    def close(self, log: Any, status: Literal["success", "failed"]) -> None:
        """Writes what is not written yet."""
        log.finalize(status)


@final
@dataclass(frozen=True)
class CSV(LogTarget):
    """Logs to the file ``metrics.csv``, and what decides the numbers to ``hparams.yaml`` beside it.

    Args:
        folder: the log goes to a sub-folder with the name of the run; ``None`` is ``logs/csv`` in the run's folder.
    """

    folder: str | None

    def open(self, folder: Path, name: str, version: str | None) -> CSVLogger:
        """See ``LogTarget.open``."""
        place = _place(self.folder, folder, name)
        _delete(place, "metrics.csv", "hparams.yaml")
        return CSVLogger(place, name="", version="")


@final
@dataclass(frozen=True)
class TensorBoard(LogTarget):
    """Logs to an event file of TensorBoard.

    Args:
        folder: the log goes to a sub-folder with the name of the run; ``None`` is ``logs/tensorboard`` in the run's
            folder.
    """

    packages = ("tensorboard",)
    folder: str | None

    def open(self, folder: Path, name: str, version: str | None) -> TensorBoardLogger:
        """See ``LogTarget.open``."""
        place = _place(self.folder, folder, name)
        _delete(place, "events.out.tfevents.*", "hparams.yaml")
        return TensorBoardLogger(place, name="", version="")

    def log_hyperparams(self, log: TensorBoardLogger, params: dict[str, Any]) -> None:
        """See ``LogTarget.log_hyperparams``."""
        log.log_hyperparams(params, metrics={"generation": 0.0})  # TensorBoard shows none without a number

    def log_samples(self, log: TensorBoardLogger, picture: np.ndarray, generation: int) -> None:
        """See ``LogTarget.log_samples``."""
        log.experiment.add_image("samples", picture, generation, dataformats="HWC")


@final
@dataclass(frozen=True)
class WandB(LogTarget):
    """Logs to Weights & Biases.

    Args:
        project: that the run belongs to.
        entity: user or team; ``None`` is the default of who is logged in.
        mode: ``"online"``, or ``"offline"``: files only, which ``wandb sync`` sends later.
        folder: the files go to a sub-folder with the name of the run; ``None`` is ``logs/wandb`` in the run's folder.
    """

    packages = ("wandb",)
    project: str
    entity: str | None
    mode: Literal["online", "offline"]
    folder: str | None

    @property
    def continues(self) -> bool:
        """See ``LogTarget.continues``; files that continue other files could not be sent as one run."""
        return self.mode == "online"

    def open(self, folder: Path, name: str, version: str | None) -> WandbLogger:
        """See ``LogTarget.open``."""
        import wandb

        place = _place(self.folder, folder, name)
        place.mkdir(parents=True, exist_ok=True)
        if version is not None:
            for earlier in place.glob(f"wandb/offline-run-*-{version}"):
                shutil.rmtree(earlier)
        run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=name,
            id=version or uuid4().hex[:8],
            resume="allow",
            mode=self.mode,
            dir=place.resolve(),  # another process writes, whose working folder may be another one
            reinit="finish_previous",  # of the job before, where a sweep runs in one process
            settings=wandb.Settings(silent=True, console="off"),  # the terminal belongs to the display of the run
        )
        run.define_metric("trainer/global_step")  # the name that Lightning gives to the step
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return WandbLogger(experiment=run)

    def log_samples(self, log: WandbLogger, picture: np.ndarray, generation: int) -> None:
        """See ``LogTarget.log_samples``."""
        log.log_image("samples", [picture], step=generation)

    def close(self, log: WandbLogger, status: Literal["success", "failed"]) -> None:
        """See ``LogTarget.close``."""
        log.experiment.finish(exit_code=0 if status == "success" else 1)


@final
@dataclass(frozen=True)
class MLflow(LogTarget):
    """Logs to MLflow.

    Args:
        experiment: that the run belongs to.
        tracking_uri: a server, or a database such as ``"sqlite:///mlflow.db"``, that runs may share; ``None`` is a
            database of its own, ``logs/mlflow/mlflow.db`` in the run's folder.
    """

    packages = ("mlflow", "sqlalchemy", "alembic")  # mlflow-skinny brings no databases
    experiment: str
    tracking_uri: str | None

    @property
    def continues(self) -> bool:
        """See ``LogTarget.continues``."""
        return True

    def open(self, folder: Path, name: str, version: str | None) -> MLFlowLogger:
        """See ``LogTarget.open``."""
        import mlflow  # noqa: F401 - sets the level of its messages, which are about the tables of databases

        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # the chain waits; the usual 7 take four minutes
        for talkative in ("mlflow", "pytorch_lightning.loggers.mlflow"):
            logging.getLogger(talkative).setLevel(logging.ERROR)
        uri, artifacts = self.tracking_uri, None
        if uri is None:
            folder = folder.resolve()
            folder.mkdir(parents=True, exist_ok=True)
            uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        log = MLFlowLogger(self.experiment, name, uri, artifact_location=artifacts, run_id=version)
        _ = log.run_id  # connects
        return log

    def log_metrics(self, log: MLFlowLogger, metrics: dict[str, float], step: int) -> None:
        """See ``LogTarget.log_metrics``; ``@`` is not allowed in names and becomes ``_at_``."""
        allowed = [(name.replace("@", "_at_"), value) for name, value in metrics.items()]
        for first in range(0, len(allowed), _MAX_METRICS):
            log.log_metrics(dict(allowed[first : first + _MAX_METRICS]), step)

    def log_samples(self, log: MLFlowLogger, picture: np.ndarray, generation: int) -> None:
        """See ``LogTarget.log_samples``."""
        assert log.run_id is not None
        log.experiment.log_image(log.run_id, picture, artifact_file=f"samples/gen_{generation:03d}.png")


class RunLog(Watch):
    """Logs every generation of one run as it is committed.

    A target that fails (its server is gone) is given up with a warning, and the chain goes on without it.

    Args:
        targets: by their names in the configuration.
        run_dir: of the run.
    """

    def __init__(self, targets: Mapping[str, LogTarget], run_dir: RunDir) -> None:
        self._targets, self._run_dir = targets, run_dir
        self._opened: dict[str, Logger] = {}
        self._states: dict[str, dict[str, Any]] = {}
        self._failures: list[str] = []

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Logs what is committed already, and within the block every further generation.

        Raises:
            ConfigError: if a target cannot be opened; this is before a generation is computed.
        """
        if not self._targets:
            yield
            return
        self._folder.mkdir(exist_ok=True)
        with FileLock(self._folder / ".lock"):
            try:
                for name in self._targets:
                    self._open(name)
                self._catch_up()
                yield
            except BaseException:
                self._close("failed")
                raise
            self._close("success")

    def complete(self) -> None:
        """Logs what is committed and not logged yet of a run that has come to its end, if there is anything.

        Raises:
            ConfigError: if a target cannot be opened.
        """
        if any(self._read_state(name)["num_logged"] < self._run_dir.num_committed() for name in self._targets):
            with self.opened():
                pass

    def committed(self, record: Record) -> None:
        """See ``Watch.committed``."""
        self._catch_up()

    def repeat_warnings(self) -> None:
        """Says once more which logs are not complete, where the last lines of a run are."""
        for failure in self._failures:
            self._warn(failure)

    @property
    def _folder(self) -> Path:
        return self._run_dir.path / "logs"

    def _read_state(self, name: str) -> dict[str, Any]:
        """How far a log is; another place, or other options, make another log."""
        file, options = self._folder / f"{name}.json", asdict(self._targets[name])
        if file.exists() and (state := read_json(file))["options"] == options:
            return state
        return {"options": options, "version": None, "num_logged": 0}

    def _write_state(self, name: str) -> None:
        write_json(self._folder / f"{name}.json", self._states[name])

    def _open(self, name: str) -> None:
        target, state = self._targets[name], self._read_state(name)
        info = read_json(self._run_dir.path / "run.json")
        run_name = self._run_dir.path.resolve().name
        if not run_name.endswith(info["config_hash"]):
            run_name += f"-{info['config_hash']}"
        try:
            log = target.open(self._folder / name, run_name, state["version"])
            if not target.continues:
                state["num_logged"] = 0
            if state["num_logged"] == 0:
                target.log_hyperparams(log, info["identity"])
        except Exception as error:
            anew = f"; to begin its log anew, delete {self._folder / name}.json" if state["version"] else ""
            raise ConfigError(
                f"logger.{name} cannot be opened: {_first_line(error)}. Correct its options or leave it out{anew}"
            ) from error
        self._opened[name] = log
        self._states[name] = {**state, "version": log.version or None}
        self._write_state(name)

    def _catch_up(self) -> None:
        """Logs all committed generations that are not logged yet."""
        for name in list(self._opened):
            target, log, state = self._targets[name], self._opened[name], self._states[name]
            try:
                for t in range(state["num_logged"], self._run_dir.num_committed()):
                    _log_generation(target, log, self._run_dir, t)
                    state["num_logged"] = t + 1
                    self._write_state(name)
            except Exception as error:
                self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        del self._opened[name]
        self._failures.append(
            f"logger.{name} has failed and is given up: {_first_line(error)}. The chain goes on; the same command "
            "completes the log"
        )
        self._warn(self._failures[-1])

    def _close(self, status: Literal["success", "failed"]) -> None:
        for name, log in list(self._opened.items()):
            try:
                self._targets[name].close(log, status)
            except Exception as error:
                self._give_up(name, error)
        self._opened.clear()

    def _warn(self, text: str) -> None:
        Console(stderr=True).print(f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _log_generation(target: LogTarget, log: Any, run_dir: RunDir, t: int) -> None:
    record = Record.from_dict(read_json(run_dir.generation(t) / "record.json"))
    for step, loss in record.losses:
        target.log_metrics(log, {f"loss/gen_{t:03d}": loss}, step)
    target.log_metrics(log, metrics_of(record), t)
    grid = torch.from_numpy(np.load(run_dir.generation(t) / "grid.npy")).permute(0, 3, 1, 2)
    target.log_samples(log, make_grid(grid).permute(1, 2, 0).numpy(), t)
    log.save()


def metrics_of(record: Record) -> dict[str, float]:
    """What is logged of a record at the step of its generation, by name; numbers that are not defined are left out.

    Scores are ``"fid/model"``, ``"fid/kept"``, ``"fid/floor"``, ...; then seconds by phase and what was spent.
    """
    spent = {
        name: getattr(record.spent, name)
        for name in (
            "gradient_steps",
            "networks_trained",
            "candidates",
            "kept",
            "other_samples",
            "network_evaluations_per_sample",
            "judging_evaluations",
            "num_real_images",
            "peak_memory_mb",
            "peak_device_memory_mb",
        )
    }
    metrics = {
        "generation": record.generation,
        **{f"{score.metric}/{score.of}": score.value for score in record.scores},
        **{f"seconds/{phase}": seconds for phase, seconds in record.spent.seconds.items()},
        **{f"spent/{name}": value for name, value in spent.items()},
    }
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _place(given: str | None, folder: Path, name: str) -> Path:
    return folder if given is None else Path(given).expanduser() / name


def _delete(place: Path, *patterns: str) -> None:
    """Deletes the files of an earlier log and nothing else: the folder may be one that the user has named."""
    for pattern in patterns:
        for file in place.glob(pattern):
            file.unlink()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
