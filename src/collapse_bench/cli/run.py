"""``collapse-run``: one chain, or with ``-m`` a sweep of chains."""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from collapse_bench.cli.config import check_command_line, conf_dir, speaks, typed_command
from collapse_bench.errors import CollapseBenchError, in_one_line


def main() -> None:
    """Runs what the command line asks for; exits with 1 and one clear line for an error that the user can mend."""
    # Hydra prints only the first error of a sweep, in its own words, unless it is told to pass errors on.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        check_command_line(sys.argv[1:])
        _run()
    except CollapseBenchError as error:
        sys.exit(_said_once(error))
    except HydraException as error:  # of a key of Hydra's own, which check_command_line does not look at
        sys.exit(f"error: {in_one_line(error)}")
    except KeyboardInterrupt:
        sys.exit(130)


@hydra.main(config_path=conf_dir(), config_name="run", version_base="1.3")
def _run(config: DictConfig) -> float | None:
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        from collapse_bench.cli.sweep import run_cell

        return run_cell(config)
    # torch and Lightning take seconds to import, and --help needs neither.
    from collapse_bench.cli.chain import run_chain

    try:
        return run_chain(config, command=typed_command())
    except CollapseBenchError as error:
        sys.exit(_said_once(error))


def _said_once(error: CollapseBenchError) -> str | int:
    """What to leave with: of several processes that run into an error the first one says so, and is the one that fails.

    Otherwise torchrun might end it before it has spoken.
    """
    return f"error: {error}" if speaks() else 0


if __name__ == "__main__":
    main()
