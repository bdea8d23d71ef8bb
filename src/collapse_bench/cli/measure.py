"""``collapse-measure``: scores of a finished run or of images made elsewhere, and what each number sees."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import hydra
from omegaconf import DictConfig

from collapse_bench.cli.config import (
    as_choice,
    check_command_line,
    conf_dir,
    conf_folders,
    own_conf_dir,
    parse_overrides,
)
from collapse_bench.errors import CollapseBenchError, ConfigError


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
    # torch and Lightning take seconds to import, and --help needs neither.
    from collapse_bench.cli.scoring import measure_run_or_samples

    try:
        measure_run_or_samples(config)
    except CollapseBenchError as error:
        sys.exit(f"error: {error}")  # here, because Hydra prints a line of its own for every other exception


@hydra.main(config_path=conf_dir(), config_name="selftest", version_base="1.3")
def _selftest(config: DictConfig) -> None:
    from collapse_bench.cli.selftest import show_what_metrics_see

    try:
        show_what_metrics_see(config)
    except CollapseBenchError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
