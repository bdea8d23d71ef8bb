"""The sheet of a sweep: its cells and what became of each, for the sweep itself and for those who look on.

``RUNS_DIR/.sweep/<id>.json``, one for every distinct sweep; the same command again has the same one, and while it runs
already ``<id>-2.json``::

    {"command": "collapse-run -m regime=replace,real seed=0,1",
     "started": "2026-11-23T10:00:00+00:00",                  when the command was last given, UTC
     "cells": [{"overrides": ["regime=replace", "seed=0"],    what makes the cell, as the sweeper wrote it
                "run_dir": "runs/digits-flow-...-1a2b3c4d",   null until the cell has begun once: the name of the folder
                                                              has the hash of the data, which are loaded by the job; no
                                                              such folder where it was refused or failed at once
                "begun": "2026-11-23T10:00:03+00:00",         since ``started``; null: not yet
                "ended": "2026-11-23T10:01:03+00:00",         null: running, killed, or not yet begun
                "error": null,                                one line, where it failed, was refused, or (begun: null)
                                                              was put off because another process runs it
                "value": null}, ...]}                         of the objective, where there is one

A sheet is replaced as a whole, so it can be read at any time without a lock. What a cell that has begun is doing, its
run folder says; a job that was killed has begun, has not ended, and nobody holds the lock of its folder.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from collapse_bench.errors import RunDirError
from collapse_bench.files import read_json, write_json
from collapse_bench.rundir import RunDir

FOLDER = ".sweep"
"""Of the sheets, in the folder of the runs."""


@dataclass(frozen=True)
class Cell:
    """One cell of a sweep.

    Args:
        overrides: what makes it, as on the command line.
        run_dir: its run folder, as the command named it; ``None`` until it has begun once.
        begun: when its job began, since the sweep was last started; ISO 8601, UTC.
        ended: when its job ended, well or not.
        error: why it failed, was refused or put off, in one line.
        value: of the objective.
    """

    overrides: tuple[str, ...]
    run_dir: str | None = None
    begun: str | None = None
    ended: str | None = None
    error: str | None = None
    value: float | None = None

    @property
    def is_run_elsewhere(self) -> bool:
        """Whether its job was put off because another process was running it."""
        return self.begun is None and self.error is not None


@dataclass(frozen=True)
class Sheet:
    """The cells of one sweep, at the time of reading.

    Args:
        path: of the file.
        command: as it was typed.
        started: when it was last given; ISO 8601, UTC.
        cells: in the order of the sweep; a sweeper that chooses as it goes appends them.
    """

    path: Path
    command: str
    started: str
    cells: tuple[Cell, ...]

    def cell(self, overrides: Iterable[str]) -> Cell:
        """The cell with these overrides, in any order; one about which nothing is known where there is none."""
        wanted = tuple(overrides)
        return next((cell for cell in self.cells if sorted(cell.overrides) == sorted(wanted)), Cell(wanted))


def read_sheets(runs_dir: str | Path) -> list[Sheet]:
    """The sheets of all sweeps into one folder of runs, the oldest start first.

    Raises:
        RunDirError: if one is damaged.
    """
    sheets = [read_sheet(path) for path in sorted((Path(runs_dir) / FOLDER).glob("*.json"))]
    return sorted(sheets, key=lambda sheet: sheet.started)


def read_sheet(path: Path) -> Sheet:
    """A sheet.

    Raises:
        RunDirError: if it is missing or damaged; it names the file.
    """
    content = read_json(path)
    try:
        cells = tuple(Cell(**{**cell, "overrides": tuple(cell["overrides"])}) for cell in content["cells"])
        return Sheet(path, content["command"], content["started"], cells)
    except (KeyError, TypeError) as error:
        raise RunDirError(f"{path} is not the sheet of a sweep: {error}; delete it") from error


def start_sheet(path: Path, command: str, cells: Iterable[Sequence[str]]) -> None:
    """Begins a sheet; of an earlier start of the same sweep it keeps the run folders.

    Args:
        path: of the file, in a folder that is there.
        command: as it was typed.
        cells: the overrides of each cell.

    Raises:
        RunDirError: if it cannot be written.
    """
    with _locked(path):
        before = read_sheet(path) if path.exists() else Sheet(path, command, now(), ())
        known = [Cell(tuple(overrides), before.cell(overrides).run_dir) for overrides in cells]
        _write(Sheet(path, command, now(), tuple(known)))


def add_cells(path: Path, cells: Iterable[Sequence[str]]) -> None:
    """Adds the cells that a sheet does not have yet."""
    with _locked(path):
        sheet = read_sheet(path)
        new = [Cell(tuple(overrides)) for overrides in cells]
        known = [sorted(cell.overrides) for cell in sheet.cells]
        _write(replace(sheet, cells=(*sheet.cells, *(cell for cell in new if sorted(cell.overrides) not in known))))


def note(path: Path, overrides: Sequence[str], **changes: Any) -> None:
    """Changes what a sheet says of one cell; ``changes`` are fields of ``Cell``."""
    with _locked(path):
        sheet = read_sheet(path)
        cell = sheet.cell(overrides)
        _write(replace(sheet, cells=tuple(replace(c, **changes) if c is cell else c for c in sheet.cells)))


def in_short(cell: Cell, sheet: Sheet) -> str:
    """What tells a cell from the others of its sweep: the overrides that not all of them have."""
    shared = set.intersection(*(set(other.overrides) for other in sheet.cells)) if len(sheet.cells) > 1 else set()
    return " ".join(override for override in cell.overrides if override not in shared)


def unfinished(sheet: Sheet) -> list[str]:
    """One line per cell that did not finish, when a sweep is over: what it is, why, and its folder."""
    lines = []
    for cell in sheet.cells:
        if cell.error is not None:
            why = cell.error
        elif cell.ended is not None or (cell.run_dir is not None and RunDir(Path(cell.run_dir)).complete):
            continue  # also one whose process was killed when all was committed
        elif cell.begun is None:
            why = "never began"
        else:
            committed = 0 if cell.run_dir is None else RunDir(Path(cell.run_dir)).num_committed()
            when = f"after generation {committed - 1}" if committed else "before generation 0"
            why = f"its process died {when} was committed (killed, or out of memory?)"
        folder = cell.run_dir if cell.run_dir is not None and Path(cell.run_dir).exists() else "no folder yet"
        lines.append(f"{in_short(cell, sheet)}: {why}  [{folder}]")
    return lines


def now() -> str:
    """The time as sheets have it: ISO 8601 in UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _locked(path: Path) -> FileLock:
    return FileLock(path.with_suffix(".lock"))


def _write(sheet: Sheet) -> None:
    content: Mapping[str, Any] = {
        "command": sheet.command,
        "started": sheet.started,
        "cells": [asdict(cell) for cell in sheet.cells],
    }
    write_json(sheet.path, content)
