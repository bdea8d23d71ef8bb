"""A finished run measured again: its stored models, with other features or numbers."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from rich.console import Console

from collapse_bench.analysis.runs import Run, load_run
from collapse_bench.analysis.tables import FLOOR
from collapse_bench.assembly import assemble
from collapse_bench.chain import Chain
from collapse_bench.cli.chain import PARTS, open_store
from collapse_bench.cli.config import build, chosen_options, flatten, parse_overrides, refuse_foreign_code, resolve
from collapse_bench.cli.scoring import REPLACEABLE, circumstances, plain_score, say, show_scores, write_numbers
from collapse_bench.errors import ConfigError, DataError, RunDirError
from collapse_bench.fingerprint import library_versions
from collapse_bench.generators.base import Model
from collapse_bench.ledger import TRAINED, read_table
from collapse_bench.loop import Parts
from collapse_bench.measuring import Measurer
from collapse_bench.now import Now
from collapse_bench.records import Score
from collapse_bench.rundir import RunDir, read_json

_NOT_OF_THE_RUN = ("run", "out", "num_floor_splits", "trust", "cache", "hydra")
_REMEDY = (
    "To have everything, start the run again with keep=all and another run_dir; fits that are still in the cache are "
    "not done again"
)


@dataclass(frozen=True)
class _RunDirUntil(RunDir):
    """A run directory as it was when generation ``last`` had just been committed."""

    last: int

    def generations(self) -> list[int]:
        return super().generations()[: self.last + 1]


def measure_run(path: Path, given: Mapping[str, Any], console: Console) -> None:
    """Measures the models that a run has stored, from the samples that it measured itself, and writes the numbers.

    Args:
        path: of the run.
        given: the composed configuration, of which the run's own takes what the command line names.
        console: for the table.

    Raises:
        CollapseBenchError: for what the user can mend.
    """
    run = load_run(path)
    run_dir = RunDir(path)
    measured = [t for t in run_dir.generations() if _is_stored(run_dir.generation(t))]
    _say_what_is_missing(run, measured, console)
    if not given["trust"]:
        refuse_foreign_code(run.config, path / "config.yaml", "trust=true")
    config, choices = _replaced(run, given)
    settings = flatten({group: config[group] for group in REPLACEABLE})
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
            generations.append({"generation": t, "scores": [plain_score(score) for score in scores]})

    if without_pool:
        left_out = "numbers of the training pool are left out, because what it was made of is not on the disk"
        say(console, f"{left_out}: generations {', '.join(without_pool)}. {_REMEDY}")
    _say_what_differs(run, parts.measurer, console)
    cell = " / ".join(str(choices[group]) for group in ("dataset", "generator", "regime", "mitigation"))
    show_scores(console, f"{cell}, seed {run.seed}, {choices['encoder']}", rows)
    write_numbers(
        file,
        {
            "run": {"path": str(path.resolve()), "config_hash": run.info.get("config_hash"), "seed": run.seed},
            **circumstances(choices, settings, parts.measurer),
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
        say(console, f"the run is not complete: its state is {run.status['state']!r}")
    if missing := [str(record.generation) for record in run.records if record.generation not in measured]:
        not_there = "not measured, because the model or the kept images are not on the disk"
        say(console, f"{not_there}: generations {', '.join(missing)}. {_REMEDY}")


def _replaced(run: Run, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run's configuration and choices, with what the command line replaces in them.

    Another option than the run's replaces a group as a whole; otherwise single keys change the run's own values.
    """
    file = run.path / "config.yaml"
    if missing := {*PARTS, "dataset", "budget", "trainer", "seed"} - {*run.config}:
        raise RunDirError(f"{file} is not the configuration of a run: it has no {', '.join(sorted(missing))}")
    overrides = [
        override
        for override in parse_overrides(list(HydraConfig.get().overrides.task))
        if override.key_or_group.partition(".")[0] not in _NOT_OF_THE_RUN
    ]
    for override in overrides:
        if override.key_or_group.partition(".")[0] not in REPLACEABLE:
            raise ConfigError(
                f"{override.input_line}: with run=... this comes from the run, leave it out; only "
                f"{', '.join(REPLACEABLE)} can be replaced"
            )
    chosen, named = chosen_options(), {override.key_or_group for override in overrides} & {*REPLACEABLE}
    replaced = {group for group in named if chosen[group] != run.choices.get(group)}
    config = OmegaConf.create({**run.config, **{group: given[group] for group in replaced}})
    # Single keys of a replaced group are in what is given already.
    single = [o for o in overrides if o.key_or_group not in named and o.key_or_group.partition(".")[0] not in replaced]
    for override in single:
        try:
            ConfigLoaderImpl._apply_overrides_to_config([override], config)
        except ConfigCompositionException as error:
            key = override.key_or_group
            raise ConfigError(f"{override.input_line}: the run has no {key}; leave this out") from error
    return resolve(config), {**run.choices, **{group: chosen[group] for group in replaced}}


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
    trained_on = None
    with suppress(RunDirError):  # the pools that the regime looks at may be gone; those numbers are then left out
        table = read_table(run.path / f"gen_{t:03d}" / TRAINED)
        weights, gate = (torch.tensor(table[column].to_numpy()) for column in ("weight", "gate"))
        trained_on = parts.regime.mix(now).trained_on(weights, gate)
    return parts.measurer.measure(sampler, model, chain.kept(t), trained_on, now).scores, trained_on is not None


def _say_what_differs(run: Run, measurer: Measurer, console: Console) -> None:
    before = {name: run.info["identity"].get(f"versions.{name}") for name in library_versions()}
    changed = [f"{name} {before[name]} -> {now}" for name, now in library_versions().items() if before[name] != now]
    if changed:
        say(console, f"versions are not those of the run, so last digits may differ: {', '.join(changed)}")
    if measurer.identity != run.records[0].encoder:
        say(console, "another encoder than the run's: these numbers do not compare with those in its records")
