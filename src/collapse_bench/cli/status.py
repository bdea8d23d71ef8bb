"""``collapse-report status``: which cells of a sweep are complete, and what completes the others. Imports no torch."""

import argparse
import json
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from collapse_bench.analysis.status import STATES, CellStatus, Status, read_status

_HEADER = ("cell", "state", "generation", "s each", "left")


def report_status(arguments: Sequence[str]) -> None:
    """Prints how far the cells of a sweep are.

    Args:
        arguments: the command line after ``collapse-report status``.

    Raises:
        RunDirError: if there is no such folder.
    """
    options = _parser().parse_args(arguments)
    status = read_status(options.runs)
    if options.json:
        print(json.dumps(status.to_dict(), indent=1))
    else:
        print(_as_text(status, options.runs, shutil.get_terminal_size((120, 24)).columns))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="collapse-report status",
        description="List the complete, refused, running, interrupted, failed and missing cells of a sweep, with the "
        "time left and the command that completes it.",
    )
    parser.add_argument("runs", type=Path, help="folder that holds run folders, also of a sweep that is running")
    parser.add_argument("--json", action="store_true", help="the same for machines; seconds, null where not known")
    return parser


def _as_text(status: Status, folder: Path, width: int) -> str:
    if not status.cells:
        lines = [f"{folder}: no runs, and no sweep has begun here"]
    else:
        # What needs a look comes last, next to the prompt.
        lines = [*_table([_HEADER, *map(_row, status.cells)]), ""]
        counts = [f"{status.counts[state]} {state}" for state in STATES if status.counts[state]]
        lines.append(f"{len(status.cells)} cells: {', '.join(counts)}")
    for cell in status.cells:
        if cell.error:
            lines.append(
                textwrap.shorten(f"{cell.state}  {cell.name}: {cell.error}", max(width, 60), placeholder=" ...")
            )
    lines += [f"not read: {problem}" for problem in status.problems]
    if any(cell.state not in ("complete", "refused") for cell in status.cells):
        num_running = status.counts["running"]
        how = f"with {num_running} at once, as now" if num_running else "one after the other"
        left = "not known before a first run is complete" if status.left_s is None else f"about {_clock(status.left_s)}"
        lines.append(f"time left: {left}" + ("" if status.left_s is None else f" ({how})"))
    if status.commands:
        lines.append("complete it with, in the folder where it was given first:")
        lines += [f"  {command}" for command in status.commands]
    return "\n".join(lines)


def _row(cell: CellStatus) -> tuple[str, ...]:
    last = "?" if cell.num_generations is None else str(cell.num_generations)
    done = "" if cell.generation < 0 else f"{cell.generation} of {last}"
    each = "" if cell.s_per_generation is None else f"{cell.s_per_generation:.3g}"
    left = "" if not cell.left_s else _clock(cell.left_s)
    return cell.name, cell.state, done, each, left


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                *(c.ljust(w) for c, w in zip(row[:2], widths[:2], strict=True)),
                *(c.rjust(w) for c, w in zip(row[2:], widths[2:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    ]


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
