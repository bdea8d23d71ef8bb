"""``collapse-report leaderboard``, ``entry`` and ``verify``: committed results. Import no torch."""

import argparse
import json
import math
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapse_bench.errors import RunDirError

if TYPE_CHECKING:
    from collapse_bench.analysis.runs import Run

# Where things are and what is shown, which decides no number.
_PLACES = ("runs_dir", "run_dir", "keep", "progress", "cache", "logger", "dataset.root", "dataset.test_root")
_NUM_SHOWN = 12


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
    from collapse_bench.analysis.entries import ENTRY, make_entry
    from collapse_bench.analysis.runs import find_runs
    from collapse_bench.cli.sections import as_markdown, compose_sections

    table = as_markdown(compose_sections(find_runs(options.runs)))
    entry = make_entry(options.runs, options.folder, options.submitter)
    (options.folder / "table.md").write_text(table, encoding="utf-8")
    print(f"{entry.num_runs} runs in {options.folder / entry.archive}")
    print(f"entry    {options.folder / ENTRY}\ntable    {options.folder / 'table.md'}")
    if not (options.folder / "README.md").exists():
        print(f"still to write: {options.folder / 'README.md'}, what was run and what it shows")


def verify_entry(arguments: Sequence[str]) -> None:
    """Runs the cheapest cells of an entry again with the code at hand, and compares their records.

    Args:
        arguments: the command line after ``collapse-report verify``.

    Raises:
        CollapseBenchError: if the entry does not describe its archive, a cell cannot be run, or numbers differ by more
            than the tolerance.
    """
    options = _verify_parser().parse_args(arguments)
    from collapse_bench.analysis.entries import Entry, cheapest, compare_records, load_entry_runs
    from collapse_bench.analysis.runs import load_run

    entry = Entry.load(options.entry)
    runs = load_entry_runs(options.entry, entry)
    print(f"{options.entry}: {len(runs)} runs, as its entry.json says")
    num_apart = 0
    for run in cheapest(runs, options.cells):
        command = [*cell_overrides(run), *options.overrides]
        print(f"\n{shlex.join(['collapse-run', *command])}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / run.path.name
            # Not from the cache: what was fitted before proves nothing.
            own = [f"run_dir={folder}", "cache.enabled=false", "progress=false"]
            _run([*command, *own], Path(scratch))
            again = load_run(folder)
        table = compare_records(run, again, options.tolerance)
        apart = table[~table["agrees"]]
        num_apart += len(apart)
        equal = int((table["committed"].eq(table["again"]) | (table["committed"].isna() & table["again"].isna())).sum())
        print(
            f"{len(table)} headline numbers of {len(run.records)} generations: {equal} equal, "
            f"{len(table) - equal - len(apart)} within the tolerance, {len(apart)} apart"
        )
        for line in _differences(run, again):
            print(f"  differs: {line}")
        for row in apart.head(_NUM_SHOWN).to_dict("records"):
            print(
                f"  generation {row['generation']}, {row['metric']}: {row['committed']:.6g} committed, "
                f"{row['again']:.6g} now (tolerance {row['tolerance']:.2g})"
            )
        if len(apart) > _NUM_SHOWN:
            print(f"  ... and {len(apart) - _NUM_SHOWN} more")
    if num_apart:
        raise RunDirError(
            f"{num_apart} numbers of {options.entry} are apart from what the code at hand makes, by more than "
            f"{options.tolerance:.0%} and two standard deviations of the floor; check out commit {entry.commit} with "
            "its versions to see whether the code or the entry is the reason"
        )


def cell_overrides(run: "Run") -> list[str]:
    """What ``collapse-run`` needs to make one run of a sweep again: its options, and what else its configuration sets.

    Settings and classes that the code at hand does not have any more are left out; no class is named by the file, so
    that a stranger's entry runs no code but ours.

    Raises:
        ConfigError: if the run has options that the code at hand does not know.
    """
    from omegaconf import OmegaConf

    from collapse_bench.cli.config import compose_config, flatten

    chosen = {group: option for group, option in run.choices.items() if option is not None and group != "experiment"}
    # An option within another one follows it.
    groups = sorted(chosen, key=lambda group: "/" in group)
    options = [f"{group}={_option(str(chosen[group]))}" for group in groups]
    composed = flatten(OmegaConf.to_container(compose_config(options), resolve=True))
    settings = {k: v for k, v in flatten(run.config).items() if k in composed and composed[k] != v}
    return options + [
        f"{key}={_value(value)}"
        for key, value in settings.items()
        if not any(key == place or key.startswith(f"{place}.") for place in _PLACES)
        and "_target_" not in f"{key} {json.dumps(value)}"
    ]


def _option(option: str) -> str:
    return f"[{option.replace('+', ',')}]" if "+" in option else option


def _value(value: Any) -> str:
    """A plain value as Hydra's grammar has it."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(of_key)}" for key, of_key in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_value, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)


def _run(overrides: Sequence[str], folder: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "collapse_bench.cli.run", *overrides, f"hydra.run.dir={folder}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        last = "\n".join(process.stderr.strip().splitlines()[-5:])
        raise RunDirError(f"the cell cannot be made again: {last}\nKEY=VALUE after the entry is added to its command")


def _differences(committed: "Run", again: "Run") -> list[str]:
    """What is not the same in the two runs and decides numbers, by name."""
    before, after = committed.info["identity"], again.info["identity"]
    keys = dict.fromkeys([*before, *after])
    return [f"{key}: {before.get(key)} then, {after.get(key)} now" for key in keys if before.get(key) != after.get(key)]


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


def _verify_parser() -> argparse.ArgumentParser:
    from collapse_bench.analysis.entries import FRAC_TOLERATED

    parser = argparse.ArgumentParser(
        prog="collapse-report verify",
        description=textwrap.dedent(
            """\
            Make the cheapest cells of an entry again with the code at hand, and compare the headline numbers. They
            agree where they differ by less than the tolerance or two standard deviations of their floor."""
        ),
    )
    parser.add_argument("entry", type=Path, help="folder with an entry.json")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="added to the command: dataset.root=data")
    parser.add_argument("--cells", type=int, default=1, help="how many runs (default: %(default)s)")
    parser.add_argument(
        "--tolerance", type=float, default=FRAC_TOLERATED, help="share of a number (default: %(default)s)"
    )
    return parser
