"""``collapse-measure``: scores of a finished run without retraining, or of images that were made elsewhere."""

import os
import sys

import hydra
from omegaconf import DictConfig

from collapse_bench.cli.config import check_command_line, conf_dir
from collapse_bench.errors import CollapseBenchError, ConfigError


def main() -> None:
    """Measures what the command line asks for; exits with 1 and one clear line for an error that the user can mend."""
    # Hydra prints errors in its own words unless it is told to pass them on.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        if {"-m", "--multirun"} & set(sys.argv[1:]):
            raise ConfigError(
                "collapse-measure does not sweep; start it once for each run, as in: "
                "for run in runs/*/; do collapse-measure run=$run; done"
            )
        check_command_line(sys.argv[1:], "measure")
        _measure()
    except CollapseBenchError as error:
        sys.exit(f"error: {error}")


@hydra.main(config_path=conf_dir(), config_name="measure", version_base="1.3")
def _measure(config: DictConfig) -> None:
    # torch and Lightning take seconds to import, and --help needs neither.
    from collapse_bench.cli.scoring import measure_run_or_samples

    measure_run_or_samples(config)


if __name__ == "__main__":
    main()
