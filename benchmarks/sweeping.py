"""Sweeps for benchmarks: ``collapse-run -m`` in a process of its own, and what it found."""

import subprocess
import sys
from pathlib import Path

from collapse_bench.analysis.runs import find_runs
from collapse_bench.records import Record


def run_sweep(folder: Path, *overrides: str) -> None:
    """Runs ``collapse-run -m`` into a folder, with a cache of its own there."""
    command = [sys.executable, "-m", "collapse_bench.cli.run", "-m", "progress=false", *overrides]
    places = [f"runs_dir={folder / 'runs'}", f"cache.root={folder / 'cache'}"]
    process = subprocess.run([*command, *places], capture_output=True, text=True)
    if process.returncode:
        sys.exit(process.stderr)


def records_of(folder: Path) -> list[Record]:
    """All records of all runs in a folder, in the order of the folders' names."""
    runs = sorted(find_runs(folder / "runs"), key=lambda run: run.path.name)
    return [record for run in runs for record in run.records]
