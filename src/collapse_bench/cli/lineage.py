"""``collapse-report lineage``: which images of a run were in which training pool. Imports no torch."""

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from collapse_bench.errors import RunDirError


def report_lineage(arguments: Sequence[str]) -> None:
    """Prints the lineage of a run and writes its ledger, its table and its figure.

    Args:
        arguments: the command line after ``collapse-report lineage``.

    Raises:
        RunDirError: if there is no such run, it has no ledger, a file of it is damaged, or the folder cannot be
            written.
    """
    options = _parser().parse_args(arguments)
    # After the command line is read, because pandas and matplotlib take seconds to load.
    from collapse_bench.analysis.formats import to_text
    from collapse_bench.analysis.lineage import (
        fate_table,
        format_lineage_table,
        lineage_table,
        load_ledger,
        plot_lineage,
    )
    from collapse_bench.analysis.runs import load_run

    run = load_run(options.run)
    table, ledger = lineage_table(run), load_ledger(run)
    folder = options.out or Path("reports") / run.path.resolve().name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ledger.to_parquet(folder / "ledger.parquet", index=False)
        table.to_csv(folder / "lineage.csv", index=False)
        plot_lineage(table).savefig(folder / "lineage.png", dpi=150)
    except OSError as error:
        raise RunDirError(f"cannot write to {folder}: {error}; choose another folder with --out") from error

    width = shutil.get_terminal_size((120, 24)).columns
    print(f"{run.path}: {len(run.records)} generations{'' if run.complete else ', incomplete'}, {len(ledger)} images")
    words = (
        "Each row is a training pool, each column an origin: the share of the pool that comes from there, as trained "
        "on, with the number of images; below it the share of the images of that origin that are in the pool."
    )
    print(f"{textwrap.fill(words, width)}\n")
    print(to_text(format_lineage_table(table), width))
    if any(name.endswith(" live") for record in run.records for name in record.train_shares):
        words = "This run draws its training images while it trains: they are in no pool, and the ledger lists none."
        print(f"\n{textwrap.fill(words, width)}")
    print("\nWhat became of the images:\n")
    print(to_text(fate_table(ledger), width))
    print(f"\nledger   {folder / 'ledger.parquet'}\ntable    {folder / 'lineage.csv'}")
    print(f"figure   {folder / 'lineage.png'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="collapse-report lineage",
        description="Say which share of the real images, and of those of each generation, was in each training pool.",
    )
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("--out", type=Path, help="folder to write to (default: reports/ and the name of the run)")
    return parser
