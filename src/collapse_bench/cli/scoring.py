"""The work of ``collapse-measure``: scores of a finished run's stored models, or of foreign samples."""

import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from collapse_bench.analysis.runs import HEADLINE, Run, load_run
from collapse_bench.analysis.tables import FLOOR, format_scores
from collapse_bench.assembly import assemble, assemble_measurer
from collapse_bench.chain import Chain
from collapse_bench.cli.chain import PARTS, open_store, print_table
from collapse_bench.cli.config import (
    build,
    chosen_options,
    flatten,
    parse_overrides,
    refuse_foreign_code,
    resolve,
)
from collapse_bench.datasets.foreign import read_samples
from collapse_bench.errors import ConfigError, DataError, RunDirError
from collapse_bench.fingerprint import library_versions
from collapse_bench.generators.base import Model
from collapse_bench.loop import Parts
from collapse_bench.measuring import Measurer
from collapse_bench.now import Now
from collapse_bench.pool import UNLABELLED
from collapse_bench.records import Score
from collapse_bench.rundir import RunDir, read_json, write_json
from collapse_bench.seeding import RUN_LEVEL, Role, Stream

SCHEMA = 1
"""Version of the layout of the JSON files written here."""

_REPLACEABLE = ("encoder", "metrics", "trainer")
_NOT_OF_THE_RUN = ("run", "out", "num_floor_splits", "trust", "cache", "hydra")
_GROUPS = ("dataset", *_REPLACEABLE)
_REMEDY = (
    "To have everything, start the run again with keep=all and another run_dir; fits that are still in the cache are "
    "not done again"
)
_OF_ONE_CLASS = re.compile(r".*_\d+(@.*)?")


def measure_run_or_samples(composed: DictConfig) -> None:
    """Measures what the configuration asks for, shows the table and writes the numbers.

    Raises:
        CollapseBenchError: for what the user can mend.
    """
    config = resolve(composed)
    _check(config)
    console = Console()
    if config["run"] is not None:
        _measure_run(Path(config["run"]).expanduser(), config, console)
    else:
        _measure_samples(Path(config["samples"]).expanduser(), config, console)


def _check(config: Mapping[str, Any]) -> None:
    for key in ("run", "samples", "out"):
        if not isinstance(config[key], str | None):
            raise ConfigError(f"{key} must be a path, got {config[key]!r}; put it into quotes within quotes")
    if not isinstance(config["num_floor_splits"], int) or config["num_floor_splits"] < 2:
        raise ConfigError(f"num_floor_splits must be a whole number of at least 2, got {config['num_floor_splits']!r}")
    if not isinstance(config["seed"], int) or not isinstance(config["trust"], bool):
        raise ConfigError(f"seed must be int and trust bool, got {config['seed']!r} and {config['trust']!r}")
    if (config["run"] is None) == (config["samples"] is None):
        raise ConfigError(
            f"{'neither' if config['run'] is None else 'both'} of run and samples given; give one of "
            "run=FOLDER (a finished run) and samples=PATH (images that were made elsewhere)"
        )
    for group in _GROUPS:
        if not config.get(group):
            raise ConfigError(f"{group} is empty; choose one of its options (see --help)")
    if config["out"] is not None and Path(config["out"]).expanduser().is_dir():
        raise ConfigError(f"out={config['out']} is a folder; name a file in it, such as scores.json")


# A run


@dataclass(frozen=True)
class _RunDirUntil(RunDir):
    """A run directory as it was when generation ``last`` had just been committed."""

    last: int

    def generations(self) -> list[int]:
        return super().generations()[: self.last + 1]


def _measure_run(path: Path, given: Mapping[str, Any], console: Console) -> None:
    run = load_run(path)
    run_dir = RunDir(path)
    measured = [t for t in run_dir.generations() if _is_stored(run_dir.generation(t))]
    _say_what_is_missing(run, measured, console)
    if not given["trust"]:
        refuse_foreign_code(run.config, path / "config.yaml", "trust=true")
    config, choices = _replaced(run, given)
    settings = flatten({group: config[group] for group in _REPLACEABLE})
    file = path / "measured" / f"{choices['encoder']}-{choices['metrics']}.json"
    if given["out"] is not None:
        file = Path(given["out"]).expanduser()
    else:
        _refuse_other_settings(file, settings)

    rows: dict[str, Sequence[Score]] = {}
    generations = []
    without_pool: list[str] = []
    with console.status("data set and encoder") as status:
        parts = _parts(run, config, given["cache"])
        for t in measured:
            status.update(f"generation {t} of {len(run.records) - 1}")
            scores, has_pool = _scores_of_generation(t, run, parts)
            # Where there is a resampled floor it comes later and wins.
            rows.setdefault(FLOOR, [score for score in scores if score.of in ("control", "floor")])
            rows[str(t)] = [score for score in scores if score.of == "model"]
            if parts.measurer.looks_at_training and not has_pool:
                without_pool.append(str(t))
            generations.append({"generation": t, "scores": [_plain(score) for score in scores]})

    if without_pool:
        left_out = "numbers of the training pool are left out, because what it was made of is not on the disk"
        _say(console, f"{left_out}: generations {', '.join(without_pool)}. {_REMEDY}")
    _say_what_differs(run, parts.measurer, console)
    cell = " / ".join(str(choices[group]) for group in ("dataset", "generator", "regime", "mitigation"))
    _show(console, f"{cell}, seed {run.seed}, {choices['encoder']}", rows)
    _write(
        file,
        {
            "run": {"path": str(path.resolve()), "config_hash": run.info.get("config_hash"), "seed": run.seed},
            **_circumstances(choices, settings, parts.measurer),
            "generations": generations,
        },
        console,
    )


def _is_stored(generation: Path) -> bool:
    """Whether the model and the images that it handed on are on the disk."""
    return all((generation / f"{name}.safetensors").exists() for name in ("fitted", "kept"))


def _say_what_is_missing(run: Run, measured: Sequence[int], console: Console) -> None:
    if not measured:
        raise RunDirError(f"{run.path}: no generation has its model and its kept images on the disk. {_REMEDY}")
    if not run.complete:
        _say(console, f"the run is not complete: its state is {run.status['state']!r}")
    if missing := [str(record.generation) for record in run.records if record.generation not in measured]:
        not_there = "not measured, because the model or the kept images are not on the disk"
        _say(console, f"{not_there}: generations {', '.join(missing)}. {_REMEDY}")


def _replaced(run: Run, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run's configuration and choices, with what the command line replaces in them.

    Another option than the run's replaces a group as a whole; otherwise single keys change the run's own values.
    """
    file = run.path / "config.yaml"
    if missing := {*PARTS, "dataset", "budget", "trainer", "seed"} - {*run.config}:
        raise RunDirError(f"{file} is not the configuration of a run: it has no {', '.join(sorted(missing))}")
    hydra = HydraConfig.get()
    overrides = [
        override
        for override in parse_overrides(list(hydra.overrides.task))
        if override.key_or_group.partition(".")[0] not in _NOT_OF_THE_RUN
    ]
    config, choices, chosen = OmegaConf.create(dict(run.config)), dict(run.choices), chosen_options()
    named = {override.key_or_group for override in overrides} & {*_REPLACEABLE}
    replaced = {group for group in named if chosen[group] != choices.get(group)}
    for group in replaced:
        config[group], choices[group] = given[group], chosen[group]
    for override in overrides:
        key, group = override.key_or_group, override.key_or_group.partition(".")[0]
        if group not in _REPLACEABLE:
            raise ConfigError(
                f"{override.input_line}: with run=... this comes from the run, leave it out; only "
                f"{', '.join(_REPLACEABLE)} can be replaced"
            )
        if group in replaced or key in named:
            continue  # single keys of a replaced group are in what is given already
        if override.is_delete():
            parent, _, name = key.rpartition(".")
            if OmegaConf.select(config, key) is None:
                raise ConfigError(f"{override.input_line}: the run has no {key}; leave this out")
            OmegaConf.select(config, parent).pop(name)
        else:
            OmegaConf.update(config, key, OmegaConf.select(OmegaConf.create(dict(given)), key), force_add=True)
    return resolve(config), choices


def _refuse_other_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuses to replace what was measured with other options of the same names."""
    if not file.exists():
        return
    before = read_json(file).get("settings", {})
    if differing := sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key)):
        changes = ", ".join(f"{key}: {before.get(key)} -> {settings.get(key)}" for key in differing)
        raise ConfigError(
            f"{file} holds what was measured with other options ({changes}); name another file with out=FILE.json, or "
            "delete it"
        )


def _parts(run: Run, config: Mapping[str, Any], cache: Mapping[str, Any]) -> Parts:
    trainer = build(config["trainer"], "trainer")
    trainer.apply()
    try:
        data = build(config["dataset"], "dataset").load()
    except DataError as error:
        raise DataError(f"{error}. If the images were moved, correct dataset in {run.path / 'config.yaml'}") from error
    if data.content_hash != run.info["identity"].get("data"):
        raise DataError(
            f"the data set {data.name} is not the one of the run {run.path}: its images or their split have changed; "
            "restore them, or start the run again"
        )
    return assemble(
        data=data,
        **{name: build(config[name], name) for name in PARTS},
        labels=build(config.get("labels"), "labels"),
        budget=build(config["budget"], "budget"),
        seed=run.seed,
        trainer=trainer,
        store=open_store(cache),
    )


def _scores_of_generation(t: int, run: Run, parts: Parts) -> tuple[tuple[Score, ...], bool]:
    """The scores of one generation, from the samples that the run itself has measured; whether its pool was there."""
    chain = Chain.resume_or_start(
        _RunDirUntil(run.path, last=t),
        empty_model=lambda t: parts.setting.generator_at(t).empty_model(parts.setting.spec),
        refined_skeleton=parts.mitigation.refiner.skeleton,
        keep="all",
        num_pools_needed=None,
    )
    assert isinstance(chain.model, Model)
    model = chain.model.to(parts.setting.trainer.device)
    now = Now(t, run.seed, parts.setting, chain)
    sampler = parts.mitigation.steering.steer_sampling(parts.sampler, t)
    train = None
    with suppress(RunDirError):  # the pools that the regime looks at may be gone; those numbers are then left out
        train = parts.regime.mix(now)
    return parts.measurer.measure(sampler, model, chain.kept(t), train, now).scores, train is not None


def _say_what_differs(run: Run, measurer: Measurer, console: Console) -> None:
    before = {name: run.info["identity"].get(f"versions.{name}") for name in library_versions()}
    changed = [f"{name} {before[name]} -> {now}" for name, now in library_versions().items() if before[name] != now]
    if changed:
        _say(console, f"versions are not those of the run, so last digits may differ: {', '.join(changed)}")
    if measurer.identity != run.records[0].encoder:
        _say(console, "another encoder than the run's: these numbers do not compare with those in its records")


# Foreign samples


def _measure_samples(path: Path, config: Mapping[str, Any], console: Console) -> None:
    encoders, metrics, trainer = (build(config[name], name) for name in _REPLACEABLE)
    with console.status("data set and samples") as status:
        data = build(config["dataset"], "dataset").load()
        images = read_samples(path, data.spec)
        control = data.held_out.control
        count = min(len(images), len(control))
        rng = Stream(config["seed"], RUN_LEVEL, Role.MEASURE).generator()
        chosen = images[torch.randperm(len(images), generator=rng)[:count]]
        status.update("encoder and floor")
        measurer = assemble_measurer(
            data,
            encoders,
            metrics,
            num_measured=count,
            num_floor_splits=config["num_floor_splits"],
            trainer=trainer,
            store=open_store(config["cache"]),
        )
        status.update("scores")
        measurer.see_training(data.pool)
        unlabelled = torch.full((count,), UNLABELLED)
        scores = {FLOOR: measurer.floor(), "samples": measurer.score(chosen, unlabelled, of="samples")}

    if len(images) > count:
        _say(
            console,
            f"{path} holds {len(images):,} images; a random {count:,} of them (seed={config['seed']}) are scored, as "
            "many as the control set has, so that the floor has the same sample size",
        )
    elif len(control) > count:
        _say(
            console,
            f"{path} holds {count:,} images, all are scored; the floor is of as many of the {len(control):,} control "
            "images",
        )
    _show(console, f"{path} against {data.name}", scores)
    if config["out"] is not None:
        choices = chosen_options()
        samples = {"path": str(path.resolve()), "num_found": len(images), "num_scored": count, "seed": config["seed"]}
        _write(
            Path(config["out"]).expanduser(),
            {
                "samples": samples,
                "data": data.content_hash,
                **_circumstances(choices, flatten({group: config[group] for group in _GROUPS}), measurer),
                "scores": [_plain(score) for of in ("samples", FLOOR) for score in scores[of]],
            },
            console,
        )


# Both


def _circumstances(choices: Mapping[str, Any], settings: Mapping[str, Any], measurer: Measurer) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "command": shlex.join(["collapse-measure", *sys.argv[1:]]),
        "choices": {group: choices[group] for group in _GROUPS},
        "settings": settings,
        "encoder": {"name": choices["encoder"], "hash": measurer.identity, **measurer.accuracy},
        "versions": library_versions(),
    }


def _plain(score: Score) -> dict[str, Any]:
    """A score as in the records: plain values, NaN as None."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(score).items()
    }


def _show(console: Console, title: str, rows: Mapping[str, Sequence[Score]]) -> None:
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


def _write(file: Path, content: Mapping[str, Any], console: Console) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, content)
    except OSError as error:
        raise RunDirError(f"cannot write {file}: {error}; name another file with out=FILE.json") from error
    _say(console, f"all numbers: {file}")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
