"""What the scripts that show finished runs share: the folder of the runs, and a table and a figure beside them."""

import argparse
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from collapse_bench.analysis.runs import Run, find_runs


def show(doc: str | None, name: str, table_and_figure: Callable[[list[Run]], tuple[str, Figure]]) -> None:
    """Writes NAME.md and NAME.png of the complete runs in the folder on the command line into it, or into ``--out``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, help="folder to write to (default: that of the runs)")
    options = parser.parse_args()
    table, figure = table_and_figure([run for run in find_runs(options.runs) if run.complete])
    out = options.out or options.runs
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(table, encoding="utf-8")
    figure.savefig(out / f"{name}.png", dpi=150)
    print(table)
