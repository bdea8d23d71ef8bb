"""``collapse-measure``: scores of a finished run or of images made elsewhere, and what each number sees."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from collapse_bench.cli.config import (
    as_choice,
    check_command_line,
    conf_dir,
    conf_folders,
    own_conf_dir,
    parse_overrides,
    resolve,
)
from collapse_bench.errors import CollapseBenchError, ConfigError, in_one_line


def main() -> None:
    """Measures what the command line asks for; exits with 1 and one clear line for an error that the user can mend."""
    # Hydra prints errors in its own words unless it is told to pass them on.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("collapse-measure works in one process; start it without torchrun")
        if {"-m", "--multirun"} & set(sys.argv[1:]):
            raise ConfigError(
                "collapse-measure does not sweep; start it once for each run, as in: "
                "for run in runs/*/; do collapse-measure run=$run; done"
            )
        if sys.argv[1:2] == ["selftest"]:
            del sys.argv[1]
            check_command_line(sys.argv[1:], "selftest")
            _selftest()
        else:
            # Before the user's, which win, and beside them, because Hydra wants all overrides in one place.
            of_the_run = _choices_of_the_run(sys.argv[1:])
            is_override = ["=" in argument and not argument.startswith("-") for argument in sys.argv]
            first = is_override.index(True) if any(is_override) else len(sys.argv)
            sys.argv[first:first] = of_the_run
            check_command_line(sys.argv[1:], "measure")
            _measure()
    except CollapseBenchError as error:
        sys.exit(f"error: {error}")
    except HydraException as error:  # of a key of Hydra's own, which check_command_line does not look at
        sys.exit(f"error: {in_one_line(error)}")


def _choices_of_the_run(arguments: Sequence[str]) -> list[str]:
    """What a run chose, as overrides, so that single keys are looked up in its options and not in the defaults."""
    typed = parse_overrides([a for a in arguments if "=" in a and not a.startswith("-")])
    given = {override.key_or_group: override.value() for override in typed}
    try:
        info = json.loads((Path(str(given["run"])).expanduser() / "run.json").read_text(encoding="utf-8"))
        choices = {group: str(info["choices"][group]) for group in ("encoder", "metrics", "trainer")}
    except (KeyError, OSError, TypeError, ValueError):
        return []  # there is no run, or it is damaged, which is said where it is read
    overrides = []
    folders = conf_folders(own_conf_dir(arguments))
    for group, choice in choices.items():
        if group not in given:
            with suppress(ConfigError):  # an option may have been renamed since
                overrides.append(as_choice(group, choice, folders))
    return overrides


@hydra.main(config_path=conf_dir(), config_name="measure", version_base="1.3")
def _measure(config: DictConfig) -> None:
    try:
        _measure_run_or_samples(resolve(config))
    except CollapseBenchError as error:
        sys.exit(f"error: {error}")  # here, because Hydra prints a line of its own for every other exception


def _measure_run_or_samples(config: Mapping[str, Any]) -> None:
    _check(config)
    # torch and Lightning take seconds to import, and --help needs neither.
    from rich.console import Console

    from collapse_bench.cli.foreign import measure_samples
    from collapse_bench.cli.remeasuring import measure_run

    if config["run"] is not None:
        measure_run(Path(config["run"]).expanduser(), config, Console())
    else:
        measure_samples(Path(config["samples"]).expanduser(), config, Console())


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
    for group in ("dataset", "encoder", "metrics", "trainer"):
        if not config.get(group):
            raise ConfigError(f"{group} is empty; choose one of its options (see --help)")
    if config["out"] is not None and Path(config["out"]).expanduser().is_dir():
        raise ConfigError(f"out={config['out']} is a folder; name a file in it, such as scores.json")


@hydra.main(config_path=conf_dir(), config_name="selftest", version_base="1.3")
def _selftest(config: DictConfig) -> None:
    from collapse_bench.cli.selftest import show_what_metrics_see

    try:
        show_what_metrics_see(config)
    except CollapseBenchError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
