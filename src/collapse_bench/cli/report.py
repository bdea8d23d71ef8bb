"""``collapse-report``: runs to a table in the terminal, figures, and one HTML page. Imports no torch, starts fast."""

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from collapse_bench.cli.lineage import report_lineage
from collapse_bench.errors import CollapseBenchError


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report that the command line asks for.

    Args:
        arguments: the command line without the program's name; ``None`` is that of this process.

    Returns:
        The exit status: 0, or 1 after an error that the user can mend.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if list(arguments[:1]) == ["lineage"]:
            report_lineage(arguments[1:])
            return 0
        options = _parser().parse_args(arguments)
        folder = options.out or _default_folder(options.runs)
        _report(options.runs, folder, options.baseline, options.across_budgets, options.against)
    except CollapseBenchError as error:
        print(f"collapse-report: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="collapse-report",
        description="Compare runs: a table in the terminal, and tables, figures and one HTML page in a folder.",
        epilog="collapse-report lineage RUN says where the training images of one run came from; a folder of that name "
        "is given as ./lineage.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, help="run directories, or folders that are searched for them to any depth"
    )
    parser.add_argument(
        "--out", type=Path, help="folder to write to (default: reports/ and the name of the runs' folder)"
    )
    parser.add_argument(
        "--baseline", metavar="ARM", help="arm to compare with, by its name in the table (default: the first arm)"
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
    return Path("reports") / Path(os.path.commonpath([path.resolve() for path in paths])).name


def _report(
    paths: Sequence[Path], folder: Path, baseline: str | None, across_budgets: bool, setting: str | None
) -> None:
    # After the command line is read: pandas, scipy and matplotlib take seconds to load, and --help needs none.
    from collapse_bench.analysis.figures import write_figures
    from collapse_bench.analysis.report import write_report
    from collapse_bench.analysis.runs import find_runs, headline, to_frame
    from collapse_bench.analysis.tables import (
        CARD_LEGEND,
        RANKING_LEGEND,
        VERDICT_LEGEND,
        control_hint,
        default_baseline,
        format_against_table,
        format_arm_table,
        format_curve_table,
        format_paired_table,
        format_ranking_table,
        format_verdict_table,
        label,
        ranking_notes,
        refusals,
        to_markdown,
        to_text,
        verdict_gaps,
    )

    runs = find_runs(*paths)
    arm_table = format_arm_table(runs)
    against = baseline or default_baseline(runs)
    paired_table = format_paired_table(runs, against)
    ranking = format_ranking_table(runs, across_budgets=across_budgets)
    notes = ranking_notes(runs, across_budgets=across_budgets)
    setting_table = None if setting is None else format_against_table(runs, setting)
    verdicts = format_verdict_table(runs)
    hint = control_hint(runs)
    # Of the numbers that most runs have, recall sees a collapse first.
    shown = "recall" if "recall" in headline(runs) else headline(runs)[0]
    curve_table = format_curve_table(runs, shown)

    page = write_report(runs, folder / "report.html", baseline=against, across_budgets=across_budgets, setting=setting)
    figures = write_figures(runs, folder / "figures", setting=setting)
    to_frame(runs).to_csv(folder / "scores.csv", index=False)
    markdown = [to_markdown(arm_table), *refusals(runs)]
    if len(paired_table):
        markdown.append(f"Difference to {against}, seed by seed:\n\n{to_markdown(paired_table)}")
    if setting_table is not None:
        markdown.append(f"Against {setting}, each arm at its last generation:\n\n{to_markdown(setting_table)}")
    markdown += [f"Ranking and cost. {RANKING_LEGEND}", *notes, to_markdown(ranking), CARD_LEGEND]
    if len(verdicts):
        markdown.append(f"Verdicts. {VERDICT_LEGEND}\n\n{to_markdown(verdicts)}")
    (folder / "table.md").write_text("\n\n".join(markdown) + "\n", encoding="utf-8")

    width = shutil.get_terminal_size((120, 24)).columns
    ran = [run for run in runs if run.refused is None]
    incomplete = sum(not run.complete for run in ran)
    print(f"{len(ran)} runs{f', {incomplete} of them incomplete' if incomplete else ''}")
    print("Each arm at its last generation; below each value the change since generation 0.\n")
    print(to_text(arm_table, width))
    for refusal in refusals(runs):
        print(textwrap.fill(refusal, width, subsequent_indent="  "))
    if len(paired_table):
        print(f"\nDifference to {against}, seed by seed, with the t interval:\n")
        print(to_text(paired_table, width))
    if setting_table is not None:
        print(f"\nAgainst {setting}, each arm at its last generation:\n")
        print(to_text(setting_table, width))
    print(f"\nRanking and cost.\n{textwrap.fill(RANKING_LEGEND, width)}\n")
    print(to_text(ranking, width))
    for note in notes:
        print(textwrap.fill(note, width, subsequent_indent="  "))
    print(textwrap.fill(CARD_LEGEND, width))
    print(f"\nOver the generations, {label(shown)} (all metrics: see the page):\n")
    print(to_text(curve_table, width))
    if len(verdicts):
        print(f"\nVerdicts.\n{textwrap.fill(VERDICT_LEGEND, width)}\n")
        print(to_text(verdicts, width))
        for gap, definitions in verdict_gaps(runs).items():
            print(textwrap.fill(f"not decidable: {', '.join(definitions)}: {gap}", width, subsequent_indent="  "))
    if hint:
        print(f"\n{hint}")
    print(f"\npage     {page}\nfigures  {figures[0].parent}\nscores   {folder / 'scores.csv'}")
    print(f"table    {folder / 'table.md'}")


if __name__ == "__main__":
    sys.exit(main())
