"""``collapse-report verify``: cells of committed results, made again and compared. Imports no torch."""

import argparse
import random
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapse_bench.errors import ConfigError, RunDirError

if TYPE_CHECKING:
    from collapse_bench.analysis.runs import Run

_NUM_SHOWN = 12


def verify_entry(arguments: Sequence[str]) -> None:
    """Runs cells of an entry again with the code at hand, and compares their records.

    Args:
        arguments: the command line after ``collapse-report verify``.

    Raises:
        CollapseBenchError: if the entry does not describe its archive, a cell cannot be run, or numbers differ by more
            than the tolerance.
    """
    options = _verify_parser().parse_intermixed_args(arguments)
    from collapse_bench.analysis.entries import Entry, compare_records, draw_runs, load_entry_runs
    from collapse_bench.analysis.runs import load_run
    from collapse_bench.cli.config import as_override

    entry = Entry.load(options.entry)
    runs = load_entry_runs(options.entry, entry)
    print(f"{options.entry}: {len(runs)} runs, as its entry.json says")
    num_apart = 0
    # Nobody who makes an entry knows which of its cells will be looked at.
    seed = random.SystemRandom().randrange(2**31) if options.seed is None else options.seed
    print(f"drawn from the cheaper half with --seed {seed}")
    for run in draw_runs(runs, options.cells, seed):
        command = [*cell_overrides(run), *options.overrides]
        print(f"\n{shlex.join(['collapse-run', *command])}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "run"
            # Not from the cache: what was fitted before proves nothing.
            own = [f"run_dir={as_override(folder)}", "cache.enabled=false", "progress=false"]
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

    The run may be a stranger's, and a command line can name any class to be called. So options are those of our own
    groups, keys those that these options have, and values plain; classes, and settings that the code at hand does not
    have any more, are left out.

    Raises:
        ConfigError: if the run has options that the code at hand does not know, or values that are not plain.
    """
    from omegaconf import OmegaConf

    from collapse_bench.cli.config import as_choice, as_override, compose_config, decides_numbers, flatten

    # What the experiment said is in the settings.
    chosen = {
        group: str(option)
        for group, option in run.choices.items()
        if option is not None and group != "experiment" and decides_numbers(group)
    }
    # An option within another one follows it.
    options = [as_choice(group, chosen[group]) for group in sorted(chosen, key=lambda group: "/" in group)]
    composed = flatten(OmegaConf.to_container(compose_config(options), resolve=True))
    settings = {
        key: value
        for key, value in flatten(run.config).items()
        if key in composed and composed[key] != value and decides_numbers(key) and not key.endswith("_target_")
    }
    if strange := [key for key, value in settings.items() if not _is_plain(value)]:
        raise ConfigError(f"{run.path}: {strange[0]} is {settings[strange[0]]!r}, which no run of ours has; not run")
    return options + [f"{key}={as_override(value)}" for key, value in settings.items()]


def _is_plain(value: Any) -> bool:
    """Whether a value can be no more than it is: a mapping can name a class, and ``${...}`` can make a mapping."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, str):
        return "${" not in value
    return value is None or value == {} or isinstance(value, bool | int | float)


def _run(overrides: Sequence[str], folder: Path) -> None:
    from collapse_bench.cli.config import as_override

    process = subprocess.run(
        [sys.executable, "-m", "collapse_bench.cli.run", *overrides, f"hydra.run.dir={as_override(folder)}"],
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


def _verify_parser() -> argparse.ArgumentParser:
    from collapse_bench.analysis.entries import FRAC_TOLERATED

    parser = argparse.ArgumentParser(
        prog="collapse-report verify",
        description=textwrap.dedent(
            """\
            Make cells of an entry again with the code at hand, and compare the headline numbers. They agree where they
            differ by less than the tolerance or two standard deviations of their floor. The cells are drawn at random
            from the cheaper half."""
        ),
    )
    parser.add_argument("entry", type=Path, help="folder with an entry.json")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="added to the command: dataset.root=data")
    parser.add_argument("--cells", type=int, default=1, help="how many runs (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of the draw (default: another one each time, which is printed)")
    parser.add_argument(
        "--tolerance", type=float, default=FRAC_TOLERATED, help="share of a number (default: %(default)s)"
    )
    return parser
