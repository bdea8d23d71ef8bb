"""Run directories on disk to runs in memory, arms, and one tidy frame of scores."""

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from collapse_bench.analysis.archive import ARCHIVE, RunFiles, arm_settings, one_line, read_archive
from collapse_bench.errors import ConfigError, RunDirError
from collapse_bench.records import Record, Score, Spent, num_ids, union_of_ids
from collapse_bench.rundir import RUN_SCHEMA

HEADLINE = (
    "fid",
    "fid_infinity",
    "precision",
    "recall",
    "within_class_variance_ratio",
    "tail_mass",
    "class_kl",
    "lowest_class_coverage",
    "duplicates",
    "copies_of_training",
    "copies_of_real",
)
"""Headline metrics, in the order of tables and figures. No single one of them sees every kind of collapse."""

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
_CLASS_SHARE = re.compile(r"class_share_(\d+)")
_CELL = ("dataset", "generator", "sampler", "regime", "mitigation")
_ABSENT = "unset"


@dataclass(frozen=True)
class Run:
    """One run directory: a chain of one seed under one resolved config.

    Args:
        path: the directory.
        info: content of ``run.json``.
        config: content of ``config.yaml``: the resolved configuration, also of what decides no number.
        status: content of ``status.json``.
        records: one record per committed generation, from generation 0 on without a gap.
    """

    path: Path
    info: Mapping[str, Any]
    config: Mapping[str, Any]
    status: Mapping[str, Any]
    records: tuple[Record, ...]

    def __repr__(self) -> str:
        cell = "/".join(_as_text(self.choices[group]) for group in _CELL if group in self.choices)
        return f"<Run {cell} seed {self.seed}: {len(self.records)} generations, {self.status['state']}, {self.path}>"

    @property
    def seed(self) -> int:
        """Seed of the chain."""
        return self.info["seed"]

    @cached_property
    def choices(self) -> Mapping[str, Any]:
        """Option chosen in each group, for example ``{"regime": "replace"}``, the groups of the cell first."""
        choices = self.info["choices"]
        return {group: choices[group] for group in sorted(choices, key=lambda g: (*_CELL, g).index(g))}

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Every config key that decides a number, dotted, without the seed: what an arm is."""
        return arm_settings(self.info["identity"])

    def settings_without(self, *keys: str) -> dict[str, Any]:
        """``settings`` but for these keys and all below them: ``"mitigation"`` is all of ``mitigation.*``."""
        below = tuple(f"{key}." for key in keys)
        return {k: value for k, value in self.settings.items() if k not in keys and not k.startswith(below)}

    @cached_property
    def setting_texts(self) -> Mapping[str, str]:
        """``settings`` as they are compared and shown."""
        return {key: _as_text(value) for key, value in self.settings.items()}

    @property
    def arm_name(self) -> str:
        """Name of the run's arm where it is alone: its regime and mitigation."""
        named = [_as_text(self.choices[group]) for group in ("regime", "mitigation") if group in self.choices]
        return ", ".join(named) or "all runs"

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, in label order."""
        return tuple(str(name) for name in self.info["class_names"])

    @property
    def complete(self) -> bool:
        """Whether the loop said that the chain reached its end."""
        return self.status["state"] == "complete"

    @property
    def refused(self) -> str | None:
        """Why its parts make no sense together, in words, if it was refused before training; else ``None``."""
        return str(self.status.get("error")) if self.status["state"] == "refused" else None

    @property
    def num_bytes(self) -> int:
        """Size of all files in the directory as it is now; ``keep`` decides which models and pools are still there.

        0 for a run in an archive, which has no directory.
        """
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Names of everything that was measured, in the order of the records."""
        return tuple(dict.fromkeys(score.metric for record in self.records for score in record.scores))

    @property
    def has_images(self) -> bool:
        """Whether sample grids were saved."""
        return (self.path / "real_grid.npy").exists()

    @property
    def real_grid(self) -> np.ndarray:
        """Real images, uint8 [k, h, w, c].

        Raises:
            RunDirError: if the file is missing or damaged.
        """
        return _read_grid(self.path / "real_grid.npy")

    def grid(self, generation: int) -> np.ndarray:
        """Samples of one generation, uint8 [k, h, w, c]; image k has the same seed in every generation.

        Raises:
            RunDirError: if the file is missing or damaged.
        """
        return _read_grid(self.path / f"gen_{generation:03d}" / "grid.npy")

    def value(self, generation: int, metric: str, of: str = "model") -> float:
        """One number; NaN where the generation is not reached or the number was not measured or is not defined."""
        score = self.score(generation, metric, of)
        return math.nan if score is None else score.value

    def score(self, generation: int, metric: str, of: str = "model") -> Score | None:
        """One number with all that is known of it; ``None`` where it is not reached or was not measured."""
        return self._scores[generation].get((metric, of)) if 0 <= generation < len(self.records) else None

    @cached_property
    def _scores(self) -> Sequence[Mapping[tuple[str, str], Score]]:
        # Of equal names the first counts.
        return [{(score.metric, score.of): score for score in reversed(record.scores)} for record in self.records]

    def floor(self, metric: str, generation: int = 0) -> float:
        """The real-vs-real floor: real images scored as samples are; NaN if it was not measured.

        The mean over random splits of the held-out images, or the control set's score where splits make no sense: of
        numbers that look at the training pool there is one per generation, beside the pool of that generation.
        """
        score = self.floor_score(metric, generation)
        return math.nan if score is None else score.value

    def floor_spread(self, metric: str, generation: int = 0) -> float:
        """Standard deviation of the floor over the splits; NaN where there are none."""
        score = self.floor_score(metric, generation)
        return math.nan if score is None or score.spread is None else score.spread

    def null(self, metric: str, generation: int = 0) -> float:
        """The mean of a metric for a perfect model; NaN where it is not known."""
        score = self.floor_score(metric, generation)
        return math.nan if score is None or score.null is None else score.null

    def floor_score(self, metric: str, generation: int = 0) -> Score | None:
        """The floor with its spread and the null, see ``floor``; None if it was not measured."""
        of_splits = (scores[metric, "floor"] for scores in self._scores if (metric, "floor") in scores)
        return next(of_splits, None) or self.score(generation, metric, "control")

    def class_shares(self, of: str = "model") -> pd.DataFrame:
        """Share of each class among the samples: one row per class name, one column per generation.

        Raises:
            RunDirError: if the run has no class shares.
        """
        columns = {record.generation: _class_shares(record, of) for record in self.records}
        if not any(columns.values()):
            raise RunDirError(f"{self.path}: no class shares of {of!r}; they need an encoder that knows classes")
        shares = pd.DataFrame(columns).sort_index()
        shares.index = pd.Index(
            [self.class_names[i] if i < len(self.class_names) else str(i) for i in shares.index], name="class"
        )
        return shares.rename_axis(columns="generation")


def load_run(path: str | Path) -> Run:
    """One run directory; generations that were not committed (``gen_NNN.tmp``) are ignored.

    Raises:
        RunDirError: if a file is missing, damaged, of another program or of another schema; it names the file.
    """
    path = Path(path)
    if not path.exists():
        raise RunDirError(f"{path}: no such folder; give a run directory")
    inside = [] if (path / "run.json").exists() else sorted(path.glob("*/run.json"))
    if inside:
        raise RunDirError(f"{path} is no run directory and holds {len(inside)}; give one, such as {inside[0].parent}")
    return _load(RunFiles(path))


def find_runs(*paths: str | Path) -> list[Run]:
    """All runs in the given places: run directories, archives of runs, and folders that are searched to any depth.

    Of an archive (``runs.tar.xz``, as committed results have it), records, configurations and states are read, in
    memory; its runs have no images.

    Raises:
        RunDirError: if there is none, or one of them cannot be read.
    """
    found: dict[Path, RunFiles] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise RunDirError(f"{path}: no such folder; give run directories, folders that hold some, or {ARCHIVE}")
        for archive in [path] if path.is_file() else sorted(path.rglob(ARCHIVE)):
            for packed in read_archive(archive):
                found.setdefault(packed.path.resolve(), packed)
        for file in sorted(path.rglob("run.json")):
            found.setdefault(file.parent.resolve(), RunFiles(file.parent))
    if not found:
        places = ", ".join(str(path) for path in paths) or "no folder"
        raise RunDirError(f"no runs found: looked for a file run.json in {places}, at any depth")
    return [_load(files) for files in found.values()]


def _load(files: RunFiles) -> Run:
    path = files.path
    info = files.read_json("run.json")
    if info.get("schema") != RUN_SCHEMA:
        raise RunDirError(f"{path / 'run.json'}: schema {info.get('schema')!r}, this version reads schema {RUN_SCHEMA}")
    _need(path / "run.json", info, {"identity": Mapping, "choices": Mapping, "seed": int, "class_names": list})
    # A run that was killed between its first two files has no status yet.
    status = files.read_json("status.json") if files.has("status.json") else {"state": "interrupted"}
    _need(path / "status.json", status, {"state": str})
    config = files.read_yaml("config.yaml")

    records: list[Record] = []
    for expected, folder in enumerate(files.generations):
        file = path / folder / "record.json"
        record = files.read_record(f"{folder}/record.json")
        if (record.generation, record.seed) != (expected, info["seed"]) or folder != f"gen_{expected:03d}":
            raise RunDirError(
                f"{file}: expected generation {expected} of seed {info['seed']}, "
                f"found generation {record.generation} of seed {record.seed}; a generation is missing or was moved"
            )
        if record.encoder != (records or [record])[0].encoder:
            raise RunDirError(f"{file}: scored with another encoder or other held-out images than generation 0")
        records.append(record)
    return Run(path, info, config, status, tuple(records))


def headline(runs: Sequence[Run]) -> list[str]:
    """Headline metrics that the runs have, in their fixed order; without any, every metric but the class shares."""
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    return [name for name in HEADLINE if name in names] or [name for name in names if not _CLASS_SHARE.match(name)]


def always_zero(runs: Sequence[Run]) -> list[str]:
    """Headline metrics that are 0 in every run, generation and sample set, and at the floor; where all are, none.

    A column or a panel of them says nothing.
    """
    scores = [score for run in runs for record in run.records for score in record.scores]
    moved = {score.metric for score in scores if score.value != 0}
    names = headline(runs)
    still = [metric for metric in names if metric not in moved]
    return still if len(still) < len(names) else []


def group_by_dataset(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the data set that they were fitted on, whose numbers never compare; in the order of the runs."""
    by_dataset: dict[str, list[Run]] = {}
    for run in runs:
        by_dataset.setdefault(_as_text(run.choices.get("dataset")), []).append(run)
    return by_dataset


def group_by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by arm, seeds in order; first the arms that do least against collapse (``control``, then ``replace``).

    An arm is named by what differs between the runs and nothing else: choices by their value (``"replace"``), single
    keys as ``"budget.num_steps=100"``, where null and ``usual_settings`` go without saying, and one of keys that always
    change together.
    Arms with fewer such keys come first, and otherwise the order is that of the names, with numbers by value. Runs of
    one arm differ in the seed only. Runs that were refused before training are in ``refused_arms``.

    Raises:
        RunDirError: if the runs do not compare, because two were scored with different encoders, held-out images or
            counts, or an arm has one seed twice.
    """
    _refuse_mixed_encoders(runs)
    arms: dict[str, list[Run]] = {}
    for run, name in zip(runs, _arm_names(runs), strict=True):
        if run.refused is None:
            arms.setdefault(name, []).append(run)
    arms = {name: _in_order_of_seeds(name, members) for name, members in arms.items()}
    return dict(
        sorted(arms.items(), key=lambda item: (_does_something(item[1][0]), item[0].count("="), _by_number(item[0])))
    )


def group_by_family(runs: Sequence[Run]) -> dict[str, dict[str, list[Run]]]:
    """Runs by family and arm: the arms of a family differ in what is done against collapse and in nothing else.

    A family is named as an arm is, without the mitigation; families and arms are in the order of ``group_by_arm``.

    Raises:
        RunDirError: if the runs do not compare, see ``group_by_arm``.
    """
    arms = group_by_arm(runs)
    undone = [_without_mitigation(members[0]) for members in arms.values()]
    names, _ = _names_and_usual(undone, usual=usual_settings(runs))
    families: dict[str, dict[str, list[Run]]] = {}
    for name, (arm, members) in zip(names, arms.items(), strict=True):
        families.setdefault(name, {})[arm] = members
    return families


def group_by_setting(runs: Sequence[Run], setting: str) -> dict[str, dict[float | None, list[Run]]]:
    """Runs by what else differs between them, and then by one numeric setting: a line, and the points on it.

    A line is named as an arm is, without the setting. Points are in order of the setting; the point ``None`` has the
    runs that do not have it, or have null. Points of which no run has a generation yet are left out.

    Args:
        runs: runs that compare.
        setting: dotted key, as in ``Run.settings``.

    Raises:
        ConfigError: if no run has the setting, it is not a number, or all runs have the same one.
        RunDirError: if the runs do not compare, see ``group_by_arm``.
    """
    _refuse_mixed_encoders(runs)
    _refuse_all_but_numbers(runs, setting)
    points: dict[tuple[str, float | None], list[Run]] = {}
    for run, name in zip(runs, _arm_names(runs, without=setting), strict=True):
        value = run.settings.get(setting)
        if run.refused is None:
            points.setdefault((name, None if value is None else float(value)), []).append(run)
    lines: dict[str, dict[float | None, list[Run]]] = {}
    for name, value in sorted(points, key=lambda point: (point[1] is None, point[1] or 0.0)):
        members = _in_order_of_seeds(f"{name}, {setting}={_as_text(value)}", points[name, value])
        if any(run.records for run in members):
            lines.setdefault(name, {})[value] = members
    values = {value for of_line in lines.values() for value in of_line if value is not None}
    if len(values) < 2:
        only = "".join(f"{value:g}" for value in values) or "null"
        raise ConfigError(f"{setting} has one value only ({only}) in these runs; a line against it needs two")
    return dict(sorted(lines.items(), key=lambda line: _does_something(next(iter(line[1].values()))[0])))


def refused_arms(runs: Sequence[Run]) -> dict[str, str]:
    """Why the arms make no sense that were refused before training, by their names among the other arms."""
    names = list(zip(runs, _arm_names(runs), strict=True))
    let_through = {name for run, name in names if run.refused is None}
    return {name: run.refused for run, name in names if run.refused is not None and name not in let_through}


def to_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Every score of the runs, one row per (run, generation, of, metric).

    Columns: ``arm``, ``run``, ``seed``, ``complete``, ``generation``, ``metric``, ``of``, ``value``, ``low`` and
    ``high`` (the metric's own interval over the finite sample), ``better``, ``num_samples``, ``num_reference``,
    ``floor`` and ``floor_sd`` (the real-vs-real floor and its standard deviation over the splits), ``null`` (the mean
    for a perfect model), and one per choice. NaN stands for what is not known. ``summary_frame`` has the arms.

    Raises:
        RunDirError: if the runs do not compare, see ``group_by_arm``.
    """
    names = ["metric", "of", "value", "low", "high", "better", "num_samples", "num_reference"]
    rows = []
    for arm, members in group_by_arm(runs).items():
        for run in members:
            first = {"arm": arm, "run": str(run.path), "seed": run.seed, "complete": run.complete}
            for t, record in enumerate(run.records):
                floors = {
                    metric: {
                        "floor": run.floor(metric, t),
                        "floor_sd": run.floor_spread(metric, t),
                        "null": run.null(metric, t),
                    }
                    for metric in run.metrics
                }
                rows += [
                    {**first, "generation": t}
                    | {name: getattr(score, name) for name in names}
                    | floors[score.metric]
                    | dict(run.choices)
                    for score in record.scores
                ]
    if not rows:
        raise RunDirError(f"{runs[0].path if runs else 'no runs'}: no generation is committed yet")
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(("value", "low", "high", "floor", "floor_sd", "null"), "float64"))


def seed_curves(runs: Sequence[Run], metric: str, of: str = "model") -> pd.DataFrame:
    """One metric of the runs of one arm: a row per generation, a column per seed.

    NaN where a seed has not reached the generation or the number is not defined there.
    """
    columns = {
        run.seed: {
            record.generation: score.value
            for record in run.records
            for score in record.scores
            if (score.metric, score.of) == (metric, of)
        }
        for run in runs
    }
    curves = pd.DataFrame(columns, dtype="float64").sort_index()
    return curves.rename_axis(index="generation", columns="seed")


def last_generation(members: Sequence[Run]) -> int:
    """The last generation that any run of an arm has reached; -1 where none has one."""
    return max(len(run.records) for run in members) - 1


def mean_floor(runs: Sequence[Run], metric: str, generation: int = 0) -> float:
    """The real-vs-real floor of an arm, see ``Run.floor``: the mean over its runs, which mostly share a control set."""
    floors = [floor for run in runs if math.isfinite(floor := run.floor(metric, generation))]
    return sum(floors) / len(floors) if floors else math.nan


def better(runs: Sequence[Run], metric: str) -> str:
    """Which way is good: ``"lower"``, ``"higher"``, ``"one"`` or ``"floor"``.

    Raises:
        KeyError: if no run has the metric.
    """
    for run in runs:
        for record in run.records:
            for score in record.scores:
                if score.metric == metric:
                    return score.better
    raise KeyError(metric)


def config_differences(arms: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Choices and config keys that differ between the arms: one row per key, one column per arm, values as text."""
    first = {name: members[0] for name, members in arms.items()}
    settings = {name: dict(run.choices) | dict(run.settings) for name, run in first.items()}
    keys = list(dict.fromkeys(key for values in settings.values() for key in values))
    table = pd.DataFrame(
        {name: [_as_text(values.get(key, _ABSENT)) for key in keys] for name, values in settings.items()},
        index=pd.Index(keys, name="key"),
        dtype=object,
    )
    return table[table.nunique(axis=1) > 1]


def total_spent(run: Run) -> Spent:
    """What all generations of a run cost together.

    Counts and seconds are summed. Evaluations per sample and memory are the most of any generation. A real image that
    several generations see counts once; records from before ``Spent.real_images`` do not tell, and the most of any
    generation counts.
    """
    spent = [record.spent for record in run.records]
    real_images = _merge(union_of_ids, [s.real_images for s in spent])
    seen = _merge(max, [s.real_images_seen for s in spent])
    return Spent(
        gradient_steps=sum(s.gradient_steps for s in spent),
        networks_trained=sum(s.networks_trained for s in spent),
        candidates=sum(s.candidates for s in spent),
        kept=sum(s.kept for s in spent),
        other_samples=sum(s.other_samples for s in spent),
        network_evaluations_per_sample=max((s.network_evaluations_per_sample for s in spent), default=0),
        judging_evaluations=sum(s.judging_evaluations for s in spent),
        real_images_seen=seen | {part: num_ids(packed) for part, packed in real_images.items()},
        real_images=real_images,
        artefacts=tuple(name for s in spent for name in s.artefacts),
        peak_memory_mb=max((s.peak_memory_mb for s in spent), default=0),
        peak_device_memory_mb=max((s.peak_device_memory_mb for s in spent), default=0),
        reused=tuple(name for s in spent for name in s.reused),
        seconds=_merge(sum, [s.seconds for s in spent]),
    )


def usual_settings(runs: Sequence[Run]) -> dict[str, str]:
    """What goes without saying in the names of arms, by key: the value that nearly all of many arms have."""
    return _names_and_usual(runs)[1]


def _arm_names(runs: Sequence[Run], without: str | None = None) -> list[str]:
    return _names_and_usual(runs, without)[0]


def _names_and_usual(
    runs: Sequence[Run], without: str | None = None, usual: Mapping[str, str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """Names of arms, and what goes without saying in them: what is given, or else what nearly all of many arms have."""
    # An experiment is a name for a set of overrides; what it overrides shows in the keys themselves.
    groups = [group for group in dict.fromkeys(g for run in runs for g in run.choices) if group != "experiment"]
    chosen: list[str] = []
    for group in sorted(groups, key=lambda group: "/" in group):
        # A group within an option of another one counts only if it differs between runs of one such option.
        peers: dict[str, list[Any]] = {}
        for run in runs:
            peers.setdefault(_as_text(run.choices.get(group.rpartition("/")[0])), []).append(run.choices.get(group))
        if any(_differ(values) for values in peers.values()):
            chosen.append(group)
    settings, texts = [run.settings for run in runs], [run.setting_texts for run in runs]
    keys = dict.fromkeys(key for values in settings for key in values)
    if without is not None:  # and without what repeats it in every run, as the detector of a watermark does its key
        repeats = {key for key in keys if all(v.get(key, _ABSENT) == v.get(without, _ABSENT) for v in settings)}
        keys = {key: None for key in keys if key not in repeats}

    def splits(key: str) -> bool:
        if len({values.get(key, _ABSENT) for values in texts}) == 1:
            return False
        # Below a group with several choices a key counts only if it differs between runs of one choice.
        own = [group for group in chosen if f"{key}/".replace(".", "/").startswith(f"{group}/")]
        peers: dict[tuple[str, ...], list[Any]] = {}
        for run, values in zip(runs, texts, strict=True):
            choice = tuple(_as_text(run.choices.get(group)) for group in own)
            peers.setdefault(choice, []).append(values.get(key, _ABSENT))
        return any(_differ(values) for values in peers.values())

    named = _one_of_those_that_go_together([key for key in keys if splits(key)], texts)

    def names(unsaid: Mapping[str, str]) -> list[str]:
        found = []
        for run, values in zip(runs, settings, strict=True):
            parts = [
                _as_text(run.choices.get(group)) if group in _CELL else f"{group}={_as_text(run.choices.get(group))}"
                for group in chosen
                if "/" not in group or group in run.choices
            ]
            texts_of_run = {key: _as_text(values[key]) for key in named if key in values}
            parts += [f"{key}={text}" for key, text in texts_of_run.items() if unsaid.get(key) != text]
            found.append(", ".join(parts) or run.arm_name)
        return found

    full = names({})
    null = {key: _as_text(None) for key in named if any(values.get(key, "") is None for values in settings)}
    one_of_each = dict(zip(full, texts, strict=True))
    if usual is None:
        usual = {key: text for key in named if key not in null and (text := _usual(key, list(one_of_each.values())))}
    for unsaid in ({**null, **usual}, null):
        short = names(unsaid)
        if len(set(short)) == len(set(full)):
            return short, {key: text for key, text in unsaid.items() if key in usual}
    return full, {}


def _usual(key: str, arms: Sequence[Mapping[str, str]]) -> str | None:
    """The value that all but a quarter of at least eight arms have, if there is one."""
    text, count = Counter(arm.get(key, _ABSENT) for arm in arms).most_common(1)[0]
    return text if len(arms) >= 8 and count >= 0.75 * len(arms) and text != _ABSENT else None


def _one_of_those_that_go_together(keys: Sequence[str], texts: Sequence[Mapping[str, str]]) -> list[str]:
    """Of the keys that tell the same runs apart, such as those of two budgets, the first of the shortest ones."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for key in keys:
        values = [run.get(key, _ABSENT) for run in texts]
        alike.setdefault(tuple(map(values.index, values)), []).append(key)
    kept = {min(together, key=len) for together in alike.values()}
    return [key for key in keys if key in kept]


def _without_mitigation(run: Run) -> Run:
    choices = {group: choice for group, choice in run.choices.items() if group.split("/")[0] != "mitigation"}
    return replace(run, info={**run.info, "choices": choices, "identity": run.settings_without("mitigation")})


def _in_order_of_seeds(arm: str, members: Sequence[Run]) -> list[Run]:
    members = sorted(members, key=lambda run: run.seed)
    for one, other in pairwise(members):
        if one.seed == other.seed:
            raise RunDirError(
                f"{one.path} and {other.path} are the same arm ({arm}) and seed ({one.seed}), which would count "
                "this seed twice; give one of them"
            )
    return members


def _refuse_all_but_numbers(runs: Sequence[Run], setting: str) -> None:
    known = list(dict.fromkeys(key for run in runs for key in run.settings))
    if setting not in known:
        numbers = [k for k in known if any(type(run.settings.get(k)) in (int, float) for run in runs)]
        near = difflib.get_close_matches(setting, numbers, n=1, cutoff=0.6)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"{setting}: no run has such a setting{hint}; config.yaml in a run's folder has them all")
    for run in runs:
        value = run.settings.get(setting)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number and value is not None:
            raise ConfigError(f"{setting} is not a number: it is {_as_text(value)} in {run.path}")


def _does_something(run: Run) -> tuple[bool, bool]:
    return (run.choices.get("mitigation") != "control", run.choices.get("regime") != "replace")


def _differ(values: Iterable[Any]) -> bool:
    return len({_as_text(value) for value in values}) > 1


def _as_text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _by_number(name: str) -> list[tuple[float, str]]:
    """A sorting key in which the numbers of a name count as numbers: n=25 stands before n=100."""
    return [(math.inf, part) if k % 2 == 0 else (float(part), "") for k, part in enumerate(_NUMBER.split(name))]


def _refuse_mixed_encoders(runs: Sequence[Run]) -> None:
    scored = [run for run in runs if run.records]
    for run in scored[1:]:
        one, other = scored[0].records[0].encoder, run.records[0].encoder
        if one != other:
            raise RunDirError(
                f"{scored[0].path} and {run.path} were scored with different encoders, held-out images or counts "
                f"({one[:12]} and {other[:12]}), so their numbers do not compare; report them separately: give the "
                "run directories of one kind"
            )


def _class_shares(record: Record, of: str) -> dict[int, float]:
    shares = {}
    for score in record.scores:
        match = _CLASS_SHARE.fullmatch(score.metric)
        if match and score.of == of:
            shares[int(match[1])] = score.value
    return shares


def _need(file: Path, content: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise RunDirError(f"{file}: not a file of collapse-bench ({key!r} is missing or of the wrong type)")


def _read_grid(file: Path) -> np.ndarray:
    try:
        grid = np.load(file, allow_pickle=False)
    except OSError as error:
        raise RunDirError(f"{file}: the sample grid cannot be read ({error.strerror or one_line(error)})") from error
    except (ValueError, EOFError) as error:
        raise RunDirError(f"{file}: the sample grid is damaged ({one_line(error)})") from error
    if grid.dtype != np.uint8 or grid.ndim != 4 or grid.shape[-1] not in (1, 3):
        raise RunDirError(f"{file}: expected uint8 [k, h, w, 1 or 3], found {grid.dtype} {list(grid.shape)}")
    return grid


def _merge(combine: Callable[[list[Any]], Any], mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    return {key: combine([mapping[key] for mapping in mappings if key in mapping]) for key in keys}
