"""Entries of the leaderboard: committed results of one suite on one data set, with what made them."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import pandas as pd

from collapse_bench.analysis.archive import ARCHIVE, write_archive
from collapse_bench.analysis.runs import Run, find_runs, headline
from collapse_bench.errors import RunDirError
from collapse_bench.files import read_json, write_json
from collapse_bench.records import Spent

ENTRY = "entry.json"
"""Name of the file that makes a folder of results an entry. ``results/entry.schema.json`` describes it."""

FRAC_TOLERATED = 0.05
"""Numbers agree that differ by this share of the committed one, or by two standard deviations of their floor."""

# What the values of ``entry.json`` are.
_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("name", "date", "commit", "submitter", "dataset", "archive", "code"), str),
    "suite": str | None,
    "num_runs": int,
    **dict.fromkeys(("commands", "machines"), list),
    "versions": dict,
}
_FOLDER = re.compile(r"(\d{4}-\d{2}-\d{2})_([0-9a-f]{7,40})")


@dataclass(frozen=True)
class Entry:
    """What ``entry.json`` says of a folder of results.

    Args:
        name: of the folder.
        date: on which the runs were started, ``YYYY-MM-DD``; with the commit, the name of the folder above.
        commit: that was checked out when they started.
        submitter: who stands for them.
        suite: the experiment that was swept over; ``None`` where there was none.
        dataset: option of the data set.
        commands: that made the runs.
        archive: name of the file with their records, configurations and states.
        num_runs: in the archive.
        code: hash of the source that made them, as in every ``run.json``.
        versions: of Python and of the libraries that decide numbers.
        machines: that they were made on.
    """

    name: str
    date: str
    commit: str
    submitter: str
    suite: str | None
    dataset: str
    commands: tuple[str, ...]
    archive: str
    num_runs: int
    code: str
    versions: Mapping[str, str]
    machines: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, runs: Sequence[Run], folder: Path, submitter: str) -> Self:
        """The entry that runs make in a folder ``DATE_COMMIT/NAME``.

        Raises:
            RunDirError: if the folder has no such name, or the runs are incomplete, of several data sets, made with
                different code or versions, or do not say with which, or at another commit than the folder's.
        """
        found = _FOLDER.fullmatch(folder.resolve().parent.name)
        if found is None:
            raise RunDirError(
                f"{folder}: an entry is in a folder results/DATE_COMMIT/NAME, for example results/2026-11-21_f58031a/"
                f"suite_digits, with the date of the start and the commit that was checked out then"
            )
        if unfinished := [run for run in runs if not run.complete and run.refused is None]:
            raise RunDirError(
                f"{unfinished[0].path} and {len(unfinished) - 1} other runs are not complete; complete or remove them"
            )
        for run in runs:
            info = run.info
            needed = {"command": info, "versions": info, "code": info["identity"], "dataset": info["choices"]}
            if missing := [key for key, place in needed.items() if not place.get(key)]:
                raise RunDirError(f"{run.path / 'run.json'} says no {missing[0]}, without which runs make no entry")
        infos = [run.info for run in runs]
        for run in runs:  # those that were made without a checkout say none
            commit = str(run.info.get("commit") or found[2])
            if commit.endswith("with changes") or not (commit.startswith(found[2]) or found[2].startswith(commit)):
                raise RunDirError(
                    f"{run.path} was made at commit {commit}, and the folder says {found[2]}; name the folder by the "
                    "commit, and make runs of an entry without changes to the code"
                )
        return cls(
            name=folder.resolve().name,
            date=found[1],
            commit=found[2],
            submitter=submitter,
            suite=_only("experiments", [run.choices.get("experiment") for run in runs]),
            dataset=_only("data sets", [run.choices["dataset"] for run in runs]),
            commands=tuple(dict.fromkeys(i["command"] for i in infos)),
            archive=ARCHIVE,
            num_runs=len(runs),
            code=_only("versions of the code", [i["identity"]["code"] for i in infos]),
            versions=_only("versions", [i["versions"] for i in infos]),
            machines=tuple(_distinct([i["machine"] for i in infos if "machine" in i])),  # refused runs have none
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What the file in a folder says.

        Raises:
            RunDirError: if it is missing, damaged, or not an entry of this version.
        """
        file = folder / ENTRY
        content = read_json(file)
        keys = [field.name for field in fields(cls)]
        if not isinstance(content, dict) or set(content) - {"$schema"} != set(keys):
            raise RunDirError(f"{file}: not an entry of this version, which has the keys {', '.join(keys)}")
        values: dict[str, Any] = {key: content[key] for key in keys}
        if wrong := [key for key, kinds in _KINDS.items() if not isinstance(values[key], kinds)]:
            raise RunDirError(f"{file}: damaged, {wrong[0]} is {values[wrong[0]]!r}")
        return cls(**{**values, "commands": tuple(values["commands"]), "machines": tuple(values["machines"])})

    def save(self, folder: Path) -> Path:
        """Writes the file into a folder."""
        write_json(folder / ENTRY, {"$schema": "../../entry.schema.json", **asdict(self)})
        return folder / ENTRY


def find_entries(folder: str | Path) -> dict[Path, Entry]:
    """The entries in a folder at any depth, the newest first.

    Raises:
        RunDirError: if there is none, or one is damaged.
    """
    folder = Path(folder)
    found = {file.parent: Entry.load(file.parent) for file in sorted(folder.rglob(ENTRY))}
    if not found:
        raise RunDirError(f"{folder}: no entries found: looked for files {ENTRY}, at any depth")
    return dict(sorted(found.items(), key=lambda item: item[1].date, reverse=True))


def load_entry_runs(folder: Path, entry: Entry) -> list[Run]:
    """The runs of an entry.

    Raises:
        RunDirError: if they are not those that the entry describes, naming what differs, or cannot be read.
    """
    runs = find_runs(folder / entry.archive)
    described = Entry.of(runs, folder, entry.submitter)
    if differing := [f.name for f in fields(Entry) if _plain(entry, f.name) != _plain(described, f.name)]:
        texts = ", ".join(
            f"{name}: {_plain(entry, name)} in it, {_plain(described, name)} in fact" for name in differing
        )
        raise RunDirError(
            f"{folder / ENTRY} does not describe {entry.archive} ({texts}); write it with collapse-report entry"
        )
    return runs


def make_entry(runs_folder: Path, folder: Path, submitter: str) -> Entry:
    """Packs runs into a folder of results and describes them.

    Raises:
        RunDirError: if they make no entry, see ``Entry.of``, or the folder cannot be written.
    """
    runs = find_runs(runs_folder)
    if any(not run.path.is_dir() for run in runs):
        raise RunDirError(f"{runs_folder}: holds an archive; an entry is made of run folders, as the runs left them")
    entry = Entry.of(runs, folder, submitter)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_archive([run.path for run in runs], runs_folder, folder / entry.archive)
    except OSError as error:
        raise RunDirError(f"cannot write to {folder}: {error}; choose another folder") from error
    entry.save(folder)
    return entry


def draw_runs(runs: Sequence[Run], count: int, seed: int) -> list[Run]:
    """Complete runs, drawn at random from the cheaper half of them.

    Args:
        runs: of one entry.
        count: how many; where it is more than half of them, the cheapest.
        seed: of the draw.
    """
    cost = _seconds_anew(runs)
    ordered = sorted((run for run in runs if run.complete), key=lambda run: cost[run.path])
    half = ordered[: max(count, (len(ordered) + 1) // 2)]
    return random.Random(seed).sample(half, min(count, len(half)))


def _seconds_anew(runs: Sequence[Run]) -> dict[Path, float]:
    """How long each run would take without a cache, by its path: fits that came from it at the pace of the others."""
    records = [record.spent for run in runs for record in run.records]
    computed = [spent for spent in records if not spent.reused]
    steps = sum(spent.gradient_steps for spent in computed)
    s_per_step = sum(spent.seconds.get("fit", 0.0) for spent in computed) / max(1, steps)

    def seconds(spent: Spent) -> float:
        anew = dict(spent.seconds)
        if spent.reused:
            anew["fit"] = spent.gradient_steps * s_per_step
        return sum(anew.values())

    return {run.path: sum(seconds(record.spent) for record in run.records) for run in runs}


def compare_records(committed: Run, again: Run, frac_tolerated: float = FRAC_TOLERATED) -> pd.DataFrame:
    """The headline numbers of fresh samples of two runs of one cell, one row per (generation, metric).

    Columns: ``generation``, ``metric``, ``committed``, ``again``, ``tolerance`` and ``agrees``. Another machine or
    another version of a library rounds differently, and training carries that on; so what is tolerated is a share
    of the number, or two standard deviations of its real-vs-real floor (the noise of the finite samples) where that is
    more. A number that only one of the runs has does not agree.
    """
    rows = []
    for generation in range(max(len(committed.records), len(again.records))):
        for metric in headline([committed]):
            old, new = committed.value(generation, metric), again.value(generation, metric)
            spread = committed.floor_spread(metric)
            tolerance = max(frac_tolerated * abs(old), 2 * spread if spread == spread else 0.0)
            both_missing = old != old and new != new
            rows.append((generation, metric, old, new, tolerance, both_missing or abs(old - new) <= tolerance))
    return pd.DataFrame(rows, columns=["generation", "metric", "committed", "again", "tolerance", "agrees"])


def _only(what: str, values: Sequence[Any]) -> Any:
    distinct = _distinct(values)
    if len(distinct) > 1:
        raise RunDirError(
            f"the runs have different {what} ({'; '.join(map(str, distinct))}); one entry has one of them: make an "
            "entry of the runs of each"
        )
    return distinct[0]


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


def _plain(entry: Entry, name: str) -> Any:
    return json.loads(json.dumps(getattr(entry, name)))
