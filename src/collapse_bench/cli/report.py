"""``collapse-report``: runs to a table in the terminal, figures, and one HTML page. Imports no torch, starts fast."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from collapse_bench.cli.leaderboard import report_leaderboard, write_entry
from collapse_bench.cli.lineage import report_lineage
from collapse_bench.cli.status import report_status
from collapse_bench.cli.verify import verify_entry
from collapse_bench.errors import CollapseBenchError, RunDirError

if TYPE_CHECKING:
    from collapse_bench.analysis.runs import Run
    from collapse_bench.cli.sections import Section


_COMMANDS = {
    "entry": write_entry,
    "leaderboard": report_leaderboard,
    "lineage": report_lineage,
    "status": report_status,
    "verify": verify_entry,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report that the command line asks for.

    Args:
        arguments: the command line without the program's name; ``None`` is that of this process.

    Returns:
        The exit status: 0, or 1 after an error that the user can mend.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    command = _COMMANDS.get(arguments[0]) if arguments else None
    try:
        if command is not None:
            command(arguments[1:])
        else:
            _report(_parser().parse_args(arguments))
    except CollapseBenchError as error:
        print(f"collapse-report: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="collapse-report",
        description="Compare runs: a table in the terminal, and tables, figures and one HTML page in a folder.",
        epilog=(
            "commands:\n"
            "  collapse-report status FOLDER       which cells of a sweep are complete, and what completes the others\n"
            "  collapse-report lineage RUN         where the training images of one run came from\n"
            "  collapse-report leaderboard FOLDER  the standing of mitigations in committed results\n"
            "  collapse-report entry RUNS FOLDER   runs as an entry of the leaderboard\n"
            "  collapse-report verify ENTRY        a run of an entry, made again and compared\n"
            "A folder with the name of a command is given as ./NAME."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        help="run directories, runs.tar.xz of committed results, or folders that are searched for both to any depth",
    )
    parser.add_argument(
        "--out", type=Path, help="folder to write to (default: reports/ and the name of the runs' folder)"
    )
    parser.add_argument(
        "--baseline",
        metavar="ARM",
        help="arm that all others are compared with, by its name in the table (default: each arm's own control)",
    )
    parser.add_argument(
        "--across-budgets",
        action="store_true",
        help="rank all arms against each other, also those that trained, drew or saw more than others",
    )
    parser.add_argument(
        "--against",
        metavar="SETTING",
        help="also show the scores at the last generation against this number, for example regime.frac_synthetic",
    )
    return parser


def _default_folder(paths: Sequence[Path]) -> Path:
    common = Path(os.path.commonpath([path.resolve() for path in paths]))
    return Path("reports") / (common.parent if common.is_file() else common).name


def _report(options: argparse.Namespace) -> None:
    # After the command line is read: pandas, scipy and matplotlib take seconds to load, and --help needs none.
    from collapse_bench.analysis.runs import find_runs, group_by_dataset
    from collapse_bench.cli.sections import compose_sections

    folder = options.out or _default_folder(options.runs)
    _check_writable(folder)  # before the work, which takes minutes
    by_dataset = group_by_dataset(find_runs(*options.runs))
    # Numbers on different data do not compare: a report of its own for each, all of them composed before any is shown.
    reports = {
        name: compose_sections(
            runs, baseline=options.baseline, across_budgets=options.across_budgets, setting=options.against
        )
        for name, runs in by_dataset.items()
    }
    for name, sections in reports.items():
        if len(reports) > 1:
            print(f"{'' if name == next(iter(reports)) else chr(10)}=== {name} ===\n")
        of_dataset = folder / name if len(reports) > 1 else folder
        try:
            _show(by_dataset[name], sections, of_dataset, options)
        except OSError as error:
            raise RunDirError(f"cannot write to {of_dataset}: {error}; choose another folder with --out") from error


def _check_writable(folder: Path) -> None:
    """Raises RunDirError if a folder cannot be written or made; makes none, which an error later would leave empty."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise RunDirError(
            f"cannot write to {folder}: {place} is no folder that you may write to; choose another folder with --out"
        )


def _show(runs: "Sequence[Run]", sections: "Sequence[Section]", folder: Path, options: argparse.Namespace) -> None:
    from collapse_bench.analysis.figures import write_figures
    from collapse_bench.analysis.report import write_report
    from collapse_bench.analysis.runs import to_frame
    from collapse_bench.analysis.tables import summary_frame
    from collapse_bench.cli.sections import as_latex, as_markdown, as_text

    page = write_report(
        runs,
        folder / "report.html",
        baseline=options.baseline,
        across_budgets=options.across_budgets,
        setting=options.against,
    )
    figures = write_figures(runs, folder / "figures", setting=options.against)
    # As text, every score of every run would be a hundred times as large.
    to_frame(runs).to_parquet(folder / "scores.parquet", index=False)
    summary = summary_frame(runs)
    summary.to_csv(folder / "summary.csv", index=False)
    summary.to_parquet(folder / "summary.parquet", index=False)
    width = shutil.get_terminal_size((120, 24)).columns
    (folder / "table.md").write_text(as_markdown(sections), encoding="utf-8")
    (folder / "table.tex").write_text(as_latex(sections), encoding="utf-8")
    (folder / "table.txt").write_text(as_text(sections, 120), encoding="utf-8")

    ran = [run for run in runs if run.refused is None]
    incomplete = sum(not run.complete for run in ran)
    print(f"{len(ran)} runs{f', {incomplete} of them incomplete' if incomplete else ''}\n")
    print(as_text(sections, width))
    print(f"page     {page}\nfigures  {figures[0].parent}\ntables   {folder / 'table'}.txt, .md, .tex")
    print(f"summary  {folder / 'summary'}.csv, .parquet: every score of every arm, over its seeds")
    print(f"scores   {folder / 'scores.parquet'}: every score of every run")


if __name__ == "__main__":
    sys.exit(main())
