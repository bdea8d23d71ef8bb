"""What ``collapse-measure`` shows and writes, whether of a run (``remeasuring.py``) or of foreign samples."""

import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from collapse_bench.analysis.runs import HEADLINE
from collapse_bench.analysis.tables import format_scores
from collapse_bench.cli.chain import print_table
from collapse_bench.errors import RunDirError
from collapse_bench.fingerprint import library_versions
from collapse_bench.measuring import Measurer
from collapse_bench.records import Score
from collapse_bench.rundir import write_json

SCHEMA = 1
"""Version of the layout of the JSON files written here."""

REPLACEABLE = ("encoder", "metrics", "trainer")
"""Groups that ``collapse-measure`` can replace in a run."""
GROUPS = ("dataset", *REPLACEABLE)
"""Groups that decide a measurement."""

_OF_ONE_CLASS = re.compile(r".*_\d+(@.*)?")


def circumstances(choices: Mapping[str, Any], settings: Mapping[str, Any], measurer: Measurer) -> dict[str, Any]:
    """How the numbers of a file came about: its schema, command, options, encoder and versions."""
    return {
        "schema": SCHEMA,
        "command": shlex.join(["collapse-measure", *sys.argv[1:]]),
        "choices": {group: choices[group] for group in GROUPS},
        "settings": settings,
        "encoder": {"name": choices["encoder"], "hash": measurer.identity, **measurer.accuracy},
        "versions": library_versions(),
    }


def plain_score(score: Score) -> dict[str, Any]:
    """A score as in the records: plain values, NaN as None."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(score).items()
    }


def show_scores(console: Console, title: str, rows: Mapping[str, Sequence[Score]]) -> None:
    """The headline numbers, and below them all others but those of single classes."""
    names = list(dict.fromkeys(score.metric for scores in rows.values() for score in scores))
    first = next(iter(rows.values()))[0]
    title += f": {first.num_samples:,} samples against {first.num_reference:,} real images"
    headline = [name for name in HEADLINE if name in names]
    others = [name for name in names if name not in headline and not _OF_ONE_CLASS.fullmatch(name)]
    for columns in (headline, others):
        if columns:
            print_table(console, title, format_scores(rows, columns))
            title = "further numbers"


def write_numbers(file: Path, content: Mapping[str, Any], console: Console) -> None:
    """Writes a file of numbers and says where it is.

    Raises:
        RunDirError: if it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, content)
    except OSError as error:
        raise RunDirError(f"cannot write {file}: {error}; name another file with out=FILE.json") from error
    say(console, f"all numbers: {file}")


def say(console: Console, text: str) -> None:
    """Shows a line as it is."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)
