"""``collapse-report leaderboard`` and ``entry``: committed results. Import no torch."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from collapse_bench.errors import RunDirError
from collapse_bench.files import write_text


def report_leaderboard(arguments: Sequence[str]) -> None:
    """Prints the standing of mitigations in committed results, and writes it as Markdown and as a page.

    Args:
        arguments: the command line after ``collapse-report leaderboard``.

    Raises:
        RunDirError: if there is no entry, one is damaged, or the folder cannot be written.
    """
    options = _leaderboard_parser().parse_args(arguments)
    # After the command line is read, because pandas and scipy take seconds to load.
    from collapse_bench.analysis.leaderboard import as_html, as_markdown, as_text, boards

    found = boards(options.results)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "leaderboard.md").write_text(as_markdown(found), encoding="utf-8")
        (options.out / "leaderboard.html").write_text(as_html(found), encoding="utf-8")
    except OSError as error:
        raise RunDirError(f"cannot write to {options.out}: {error}; choose another folder with --out") from error
    print(as_text(found, shutil.get_terminal_size((120, 24)).columns))
    print(f"page     {options.out / 'leaderboard.html'}\ntable    {options.out / 'leaderboard.md'}")


def write_entry(arguments: Sequence[str]) -> None:
    """Packs runs into a folder of results, with their tables and what made them.

    Args:
        arguments: the command line after ``collapse-report entry``.

    Raises:
        RunDirError: if the runs make no entry, or the folder cannot be written.
    """
    options = _entry_parser().parse_args(arguments)
    from collapse_bench.analysis.entries import ENTRY, Entry, make_entry
    from collapse_bench.analysis.runs import find_runs
    from collapse_bench.cli.sections import as_markdown, compose_sections

    runs = find_runs(options.runs)
    Entry.of(
        runs, options.folder, options.submitter
    )  # what makes no entry is refused before the tables, which take long
    table = as_markdown(compose_sections(runs))
    entry = make_entry(options.runs, options.folder, options.submitter)
    write_text(options.folder / "table.md", table)
    print(f"{entry.num_runs} runs in {options.folder / entry.archive}")
    print(f"entry    {options.folder / ENTRY}\ntable    {options.folder / 'table.md'}")
    if not (options.folder / "README.md").exists():
        print(f"still to write: {options.folder / 'README.md'}, what was run and what it shows")


def _leaderboard_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="collapse-report leaderboard",
        description="The standing of mitigations over suites: what each gains over its control, by budget.",
    )
    parser.add_argument("results", type=Path, help="folder with entries (entry.json) at any depth")
    parser.add_argument(
        "--out", type=Path, default=Path("reports/leaderboard"), help="folder to write to (default: %(default)s)"
    )
    return parser


def _entry_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="collapse-report entry",
        description="Make runs an entry of the leaderboard: their records, their tables and what made them.",
    )
    parser.add_argument("runs", type=Path, help="folder with the run folders of one suite on one data set")
    parser.add_argument("folder", type=Path, help="results/DATE_COMMIT/NAME: of the start, and checked out then")
    parser.add_argument("--submitter", required=True, help="who stands for the numbers")
    return parser
