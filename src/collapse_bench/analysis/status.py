"""How far the cells of a sweep are: read from the disk while it runs, or after it broke."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from collapse_bench.analysis.archive import RunFiles, arm_settings
from collapse_bench.errors import RunDirError, in_one_line
from collapse_bench.files import is_locked
from collapse_bench.sheet import FOLDER, Cell, Sheet, in_short, read_sheet

STATES = ("complete", "refused", "running", "interrupted", "failed", "missing")
"""What a cell can be. ``interrupted``: it has begun and no process works on it; ``missing``: it never began."""

_TO_DO = ("interrupted", "failed", "missing")


@dataclass(frozen=True)
class CellStatus:
    """How far one cell is.

    Args:
        name: of its run folder; where it has none yet, the overrides that set it apart in its sweep.
        state: one of ``STATES``.
        generation: the last one that is committed; -1 for none.
        num_generations: the last one of a complete run; ``None`` where it is not known.
        s_per_generation: seconds that its generations took on average, generation 0 left out where there are others.
        left_s: estimate of the seconds to its end, 0 where it is complete or refused; ``None`` where nothing like it
            has run. See ``read_status``.
        error: of a failed or refused one, in one line.
        command: that runs it, or the sweep it belongs to; ``None`` where that is not known.
    """

    name: str
    state: str
    generation: int
    num_generations: int | None
    s_per_generation: float | None
    left_s: float | None
    error: str | None
    command: str | None


@dataclass(frozen=True)
class Status:
    """How far all cells in a folder are.

    Args:
        cells: in the order of ``STATES``, then by name.
        problems: files that could not be read, one line each.
    """

    cells: tuple[CellStatus, ...]
    problems: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Cells by state, for all of ``STATES``."""
        return {state: sum(cell.state == state for cell in self.cells) for state in STATES}

    @property
    def left_s(self) -> float | None:
        """Estimate of the seconds until all cells are complete, where as many run side by side as do now.

        With none running they are counted one after the other. ``None`` where it is not known for any cell.
        """
        left = [cell.left_s for cell in self.cells]
        known = [seconds for seconds in left if seconds is not None]
        if len(known) < len(left):
            return None
        return max(sum(known) / max(1, self.counts["running"]), max(known, default=0.0))

    @property
    def commands(self) -> list[str]:
        """The commands that complete what is interrupted, failed or missing."""
        return list(dict.fromkeys(c.command for c in self.cells if c.state in _TO_DO and c.command is not None))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "counts": self.counts,
            "left_s": self.left_s,
            "commands": self.commands,
            "problems": list(self.problems),
            "cells": [asdict(cell) for cell in self.cells],
        }


def read_status(folder: str | Path, *, now: float | None = None) -> Status:
    """How far the cells are whose runs are in a folder, at any depth, or that a sweep into it will make.

    The time left of a run is estimated, generation by generation, from the finished runs of the same arm, at the pace
    of the run itself; without such runs, from its own generations. A cell that never began takes what finished runs
    of its arm took, or the mean finished run. Work that was reused counts as the little time that it took.

    Args:
        folder: that holds run folders.
        now: seconds since the epoch; the present by default.

    Raises:
        RunDirError: if the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunDirError(f"{folder}: no such folder; give the folder of the runs")
    problems: list[str] = []
    sheets: dict[Path, list[Sheet]] = {}
    for path in sorted(folder.rglob(f"{FOLDER}/*.json")):
        try:
            sheets.setdefault(path.parent.parent, []).append(read_sheet(path))
        except RunDirError as error:
            problems.append(str(error))
    runs = {file.parent.resolve(): _read_run(file.parent) for file in sorted(folder.rglob("run.json"))}
    cells, never = _match(sheets, runs)
    present = time.time() if now is None else now
    pace = _Pace([run for run in runs.values() if run.state == "complete"], cells)
    found = [_status_of_run(run, cells.get(path), pace, present) for path, run in runs.items()]
    found += [_status_of_cell(cell, sheet, pace) for cell, sheet in never]
    return Status(tuple(sorted(found, key=lambda cell: (STATES.index(cell.state), cell.name))), tuple(problems))


def arm_key(identity: Mapping[str, Any]) -> str:
    """What runs of one arm have in common, from the ``identity`` of their ``run.json``."""
    return json.dumps(arm_settings(identity), sort_keys=True, default=str)


@dataclass(frozen=True)
class _RunOnDisk:
    path: Path
    state: str
    error: str | None
    arm: str | None
    command: str | None
    num_generations: int | None
    seconds: tuple[float, ...]


def _read_run(path: Path) -> _RunOnDisk:
    files = RunFiles(path)
    try:
        info = files.read_json("run.json")
        # A run that was killed between its first two files has no status yet.
        status = files.read_json("status.json") if files.has("status.json") else {"state": "running"}
        records = [files.read_json(f"{folder}/record.json") for folder in files.generations]
        seconds = tuple(float(sum(record["spent"]["seconds"].values())) for record in records)
        state, error = str(status["state"]), status.get("error")
        arm, last = arm_key(info["identity"]), info.get("num_generations")
    except RunDirError as problem:
        return _RunOnDisk(path, "failed", str(problem), None, None, None, ())
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        return _RunOnDisk(path, "failed", f"{path}: not a run of this version ({problem!r})", None, None, None, ())
    if state == "running" and not _is_worked_on(path):
        state = "interrupted"
    if state not in STATES:
        state, error = "failed", f"{path / 'status.json'}: state {state!r} is none of this version"
    return _RunOnDisk(path, state, error and in_one_line(error), arm, info.get("command"), last, seconds)


def _is_worked_on(path: Path) -> bool:
    try:
        return is_locked(path / ".lock")
    except OSError:  # a lock cannot be tried in somebody else's folder; what the status says must do
        return True


def _match(
    sheets: Mapping[Path, Sequence[Sheet]], runs: Mapping[Path, _RunOnDisk]
) -> tuple[dict[Path, tuple[Cell, Sheet]], list[tuple[Cell, Sheet]]]:
    """Cells of sweeps by their run folder, and those without one; a cell of several sweeps counts once."""
    begun: dict[Path, tuple[Cell, Sheet]] = {}
    rest: dict[tuple[str, ...], tuple[Cell, Sheet]] = {}
    for place, of_place in sheets.items():
        for sheet in sorted(of_place, key=lambda sheet: sheet.started):  # the last start wins
            for cell in sheet.cells:
                where = _run_folder(cell, place, runs)
                if where is None:
                    rest[tuple(sorted(cell.overrides))] = (cell, sheet)
                else:
                    begun[where] = (cell, sheet)
    known = {tuple(sorted(cell.overrides)) for cell, _ in begun.values()}
    return begun, [pair for overrides, pair in rest.items() if overrides not in known]


def _run_folder(cell: Cell, runs_dir: Path, runs: Iterable[Path]) -> Path | None:
    if cell.run_dir is None:
        return None
    # The folder may have been moved since, or the command been given somewhere else.
    for path in (runs_dir / Path(cell.run_dir).name, Path(cell.run_dir)):
        if path.resolve() in runs:
            return path.resolve()
    return None


class _Pace:
    """How long generations take, from the finished runs."""

    def __init__(self, finished: Sequence[_RunOnDisk], cells: Mapping[Path, tuple[Cell, Sheet]]) -> None:
        self._by_arm: dict[str | None, list[tuple[float, ...]]] = {}
        self._by_overrides: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
        self._by_command: dict[str, list[tuple[float, ...]]] = {}
        self._all = [run.seconds for run in finished]
        for run in finished:
            self._by_arm.setdefault(run.arm, []).append(run.seconds)
            if cell := cells.get(run.path.resolve()):
                self._by_overrides.setdefault(_without_seed(cell[0]), []).append(run.seconds)
                self._by_command.setdefault(cell[1].command, []).append(run.seconds)

    def left_of_run(self, run: _RunOnDisk) -> float | None:
        done = len(run.seconds)
        if run.num_generations is None or not (done or self._all):
            return None
        like = self._by_arm.get(run.arm) or ([] if done else self._all)
        if not like:
            return _typical(run.seconds) * (run.num_generations + 1 - done)
        expected = _mean_by_generation(like)
        # Generation 0 may come from the store in one run and not in another, so it does not set the pace.
        own, others = sum(run.seconds[1:]), sum(expected[1:done])
        return sum(expected[done : run.num_generations + 1]) * (own / others if own and others else 1.0)

    def total_of_cell(self, cell: Cell, sheet: Sheet) -> float | None:
        like = self._by_overrides.get(_without_seed(cell)) or self._by_command.get(sheet.command) or self._all
        return sum(map(sum, like)) / len(like) if like else None


def _status_of_run(run: _RunOnDisk, cell: tuple[Cell, Sheet] | None, pace: _Pace, now: float) -> CellStatus:
    left = 0.0 if run.state in ("complete", "refused") else pace.left_of_run(run)
    if run.state == "running" and left is not None:
        left = max(0.0, left - max(0.0, now - _last_sign(run.path)))
    return CellStatus(
        name=run.path.name,
        state=run.state,
        generation=len(run.seconds) - 1,
        num_generations=run.num_generations,
        s_per_generation=_typical(run.seconds) if run.seconds else None,
        left_s=left,
        error=run.error if run.state in ("failed", "refused") else None,
        command=cell[1].command if cell else run.command,
    )


def _status_of_cell(cell: Cell, sheet: Sheet, pace: _Pace) -> CellStatus:
    failed = cell.ended is not None and cell.error is not None
    return CellStatus(
        name=in_short(cell, sheet),
        state="failed" if failed else "missing",
        generation=-1,
        num_generations=None,
        s_per_generation=None,
        left_s=pace.total_of_cell(cell, sheet),
        error=cell.error if failed else None,
        command=sheet.command,
    )


def _last_sign(path: Path) -> float:
    """When the run last began or committed a generation, in seconds since the epoch."""
    signs = [path / "status.json", *path.glob("gen_*/record.json")]
    return max((sign.stat().st_mtime for sign in signs if sign.exists()), default=0.0)


def _typical(seconds: Sequence[float]) -> float:
    usual = seconds[1:] or seconds
    return sum(usual) / len(usual)


def _mean_by_generation(runs: Sequence[Sequence[float]]) -> list[float]:
    longest = max(map(len, runs))
    columns = [[seconds[t] for seconds in runs if t < len(seconds)] for t in range(longest)]
    return [sum(column) / len(column) for column in columns]


def _without_seed(cell: Cell) -> tuple[str, ...]:
    return tuple(sorted(o for o in cell.overrides if not o.startswith("seed=")))
