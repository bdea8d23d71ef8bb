"""Run directories: one resolved configuration, one chain, one commit point per generation.

Layout::

    run.json              what the run is: choices, seed, classes, versions, machine, encoder, command
    config.yaml           the resolved configuration
    status.json           running, complete, failed, interrupted or refused; for people and for ``collapse-report``
    real_grid.npy         some real images, uint8 [k, h, w, c]
    gen_000/record.json   the numbers
    gen_000/grid.npy      samples with the same seeds in every generation, uint8 [k, h, w, c]
    gen_000/images.parquet, trained.parquet: the ledger, see ``ledger.py``
    gen_000/kept.safetensors, fitted.safetensors, model.safetensors (only where a refiner changed the model)

A generation's folder appears under its name only when all its files are on the disk. A cell of a sweep whose parts make
no sense together leaves the first three files and no generation; the next attempt writes them anew.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from collapse_bench.errors import RunBusyError, RunDirError
from collapse_bench.files import PATIENCE_S, is_locked, read_json, sync_file, write_json, write_text
from collapse_bench.records import Record

RUN_SCHEMA = 1
"""Version of the layout of ``run.json``."""


@dataclass(frozen=True)
class RunDir:
    """The folder of one run.

    Args:
        path: the folder.
    """

    path: Path

    @contextmanager
    def opened(self, info: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[None]:
        """Claims the folder for one configuration and one process for the length of the block.

        Args:
            info: what goes into ``run.json``; its ``identity`` is a flat mapping of everything that decides the
                numbers, and a folder made with another identity is refused.
            config: the resolved configuration, as plain values.

        Raises:
            RunBusyError: if another process is running it.
            RunDirError: if the folder belongs to another configuration (naming the keys that differ), is not a run
                directory, or cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=PATIENCE_S)
        except Timeout:
            raise self._busy() from None
        except OSError as error:
            raise RunDirError(f"cannot write the run folder {self.path}: {error}; choose another runs_dir") from error
        try:
            self._claim(info, config)
            for unfinished in self.path.glob("gen_*.tmp"):
                shutil.rmtree(unfinished)
            yield
        finally:
            lock.release()

    def check_idle(self) -> None:
        """Raises RunBusyError if another process is running it."""
        if is_locked(self.path / ".lock", PATIENCE_S):
            raise self._busy()

    def _busy(self) -> RunBusyError:
        return RunBusyError(f"another process is writing the run {self.path}; wait for it or stop it")

    @property
    def refused(self) -> bool:
        """Whether the folder is but the trace of a run that was refused before training."""
        return self._state == "refused"

    @property
    def complete(self) -> bool:
        """Whether the run has come to its end."""
        return self._state == "complete"

    @property
    def _state(self) -> str | None:
        status = self.path / "status.json"
        return read_json(status)["state"] if status.exists() else None

    def refuse(self, info: Mapping[str, Any], config: Mapping[str, Any], reason: str) -> None:
        """Leaves a trace of a run whose parts make no sense together; a folder in which a run has begun stays as it is.

        Args:
            info: what goes into ``run.json``.
            config: the resolved configuration, as plain values.
            reason: why, in words.

        Raises:
            RunDirError: if the folder is not a run directory, or cannot be written.
        """
        if (self.path / "run.json").exists() and not self.refused:
            return
        with self.opened(info, config):
            self.write_status("refused", reason)

    def _claim(self, info: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        path, text = self.path / "run.json", yaml.safe_dump(dict(config), sort_keys=False)
        if self.refused:  # perhaps by another version, which other keys do not forbid to try again
            for name in ("run.json", "config.yaml", "status.json"):  # the one that says so last
                (self.path / name).unlink(missing_ok=True)
        if path.exists():
            before = read_json(path)["identity"]
            differing = sorted(
                key for key in {*before, *info["identity"]} if before.get(key) != info["identity"].get(key)
            )
            if differing:
                changes = ", ".join(f"{key}: {before.get(key)} -> {info['identity'].get(key)}" for key in differing)
                raise RunDirError(
                    f"the run {self.path} belongs to another configuration ({changes}); choose another run_dir, or "
                    "delete the folder to start anew"
                )
            write_text(self.path / "config.yaml", text)  # what decides no number may be another now
            return
        # A first start that was killed leaves nothing but these.
        ours = {".lock", "config.yaml"}
        if foreign := sorted(p.name for p in self.path.iterdir() if p.name not in ours and p.suffix != ".tmp"):
            raise RunDirError(f"{self.path} is not a run directory but holds {foreign[:5]}; choose an empty run_dir")
        write_text(self.path / "config.yaml", text)
        write_json(path, {"schema": RUN_SCHEMA, **info})  # last: its presence makes this a run directory

    def write_status(self, state: str, error: str | None = None) -> None:
        """Says for readers what the run is: ``"running"``, ``"complete"``, ``"failed"``, ``"interrupted"``, ..."""
        status = {"state": state, "generation": len(self.generations()) - 1, "error": error}
        write_json(self.path / "status.json", {**status, "updated": datetime.now(UTC).isoformat(timespec="seconds")})

    def generation(self, t: int) -> Path:
        """The folder of a committed generation."""
        return self.path / f"gen_{t:03d}"

    def generations(self) -> list[int]:
        """The committed generations, from 0 without a gap.

        Raises:
            RunDirError: if one is missing.
        """
        found = sorted(int(p.name[4:]) for p in self.path.glob("gen_*") if p.name[4:].isdecimal())
        if found != list(range(len(found))):
            raise RunDirError(f"{self.path} has generations {found}: one is missing; delete those after the gap")
        return found

    def num_committed(self) -> int:
        """Number of committed generations; 0 also where there is no folder yet."""
        return len(self.generations())

    def records(self) -> tuple[Record, ...]:
        """The records of the committed generations.

        Raises:
            RunDirError: if one cannot be read.
        """
        return tuple(self._read_record(t) for t in self.generations())

    def _read_record(self, t: int) -> Record:
        path = self.generation(t) / "record.json"
        try:
            return Record.from_dict(read_json(path))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunDirError(
                f"{path} is not a record of this version: {error}; restore it from a copy, or name another run_dir"
            ) from error

    @contextmanager
    def committing(self, t: int) -> Iterator[Path]:
        """A folder to write generation ``t`` into; it is committed, all or nothing, at the end of the block.

        Raises:
            RunDirError: if the disk refuses; earlier generations stay as they are.
        """
        unfinished = self.path / f"gen_{t:03d}.tmp"
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            yield unfinished
            for file in unfinished.iterdir():
                sync_file(file)
            _sync_folder(unfinished)
            unfinished.rename(self.generation(t))
            _sync_folder(self.path)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise RunDirError(
                f"cannot commit generation {t} to {self.path}: {error}; free some space, then run the same command "
                f"again: it continues at generation {t}"
            ) from error


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
