"""Every cell of every suite goes together, and a suite is what its file says."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chains import TINY, composed, parts_of
from hydra.core.override_parser.overrides_parser import OverridesParser

from collapse_bench.analysis.comparing import compare
from collapse_bench.analysis.runs import Run
from collapse_bench.cli.chain import _identity
from collapse_bench.cli.config import (
    check_command_line,
    chosen_options,
    compose_config,
    conf_dir,
    conf_folders,
    resolve,
)
from collapse_bench.errors import CollapseBenchError, CombinationError
from hydra_plugins.collapse_bench_suite.suite_sweeper import cells

SUITES = sorted(path.stem for path in (Path(conf_dir()) / "experiment" / "suite").glob("*.yaml"))


def tiny(suite: str, cell: list[str]) -> list[str]:
    """The cell on a tiny budget, but for what it says of sizes itself, and on images that need no download."""
    said = {override.split("=")[0] for override in cell}
    smaller = ["regime.num_trusted=32"] if "regime.num_trusted" in said else []
    config = composed(f"experiment=suite/{suite}")
    offline = [] if config["dataset"]["name"] == "digits" else ["dataset=digits", "dataset.image_size=28"]
    usual = (option.replace("encoder.pca.classifier", _classifier(config)) for option in TINY)
    return [*offline, *(option for option in usual if option.split("=")[0] not in said), *cell, *smaller]


def _classifier(config: dict[str, Any]) -> str:
    """Where the options of the frozen classifier are."""
    return "encoder.pca.classifier" if "pca" in config["encoder"] else "encoder.classifier"


def cells_of(suite: str, *overrides: str) -> list[list[str]]:
    """The cells that ``collapse-run -m experiment=suite/... OVERRIDES`` runs, in order."""
    config = compose_config([f"experiment=suite/{suite}"], folders=conf_folders(None), with_hydra=True)
    return cells(config.hydra.sweeper.blocks, OverridesParser.create().parse_overrides(list(overrides)))


@pytest.mark.slow
@pytest.mark.parametrize("suite", [suite for suite in SUITES if suite != "digits_full"])
def test_every_cell_of_a_suite_goes_together(suite: str, tmp_path: Path) -> None:
    configs = [composed(f"experiment=suite/{suite}", *tiny(suite, cell)) for cell in cells_of(suite, "seed=0")]
    assert all(config["metrics"] == configs[0]["metrics"] for config in configs)
    for k, config in enumerate(configs):
        # Metrics score the control set, so that once is enough.
        parts = parts_of(config if k == 0 else {**config, "metrics": {}}, tmp_path)
        assert parts.setting.budget.num_steps == 6


@pytest.mark.slow
def test_the_full_suite_on_digits_has_every_mitigation_that_it_can_have(tmp_path: Path) -> None:
    refused = set()
    mitigations = set()
    of_digits = cells_of("digits", "seed=0")
    for cell in (cell for cell in cells_of("digits_full", "seed=0") if cell not in of_digits):
        chosen = dict(override.split("=", 1) for override in cell)
        regime, mitigation = chosen["regime"], chosen.get("mitigation", "control")
        mitigations.add(mitigation)
        try:
            parts_of({**composed("experiment=suite/digits_full", *TINY, *cell), "metrics": {}}, tmp_path)
        except CombinationError:
            refused.add((regime, mitigation))
    options = {path.stem for path in (Path(conf_dir()) / "mitigation").glob("*.yaml")}
    assert options - mitigations == {"human_audit"}, "it needs a person"
    # Nothing is left under replace without its synthetic images, and there are no real ones to weigh them against.
    assert refused == {("replace", mitigation) for mitigation in ("detector", "optimal_mix", "watermark")}


def planned(suite: str, cell: list[str]) -> Run:
    """The run of a cell, as far as reports compare it before it has numbers."""
    config = compose_config([f"experiment=suite/{suite}", *cell], folders=conf_folders(None), with_hydra=True)
    plain = resolve(config)
    info = {"identity": _identity(plain), "choices": chosen_options(config.hydra), "seed": plain["seed"]}
    begun = SimpleNamespace(train_pool={"real": 1})
    return Run(Path(), info, plain, {}, (begun,))  # type: ignore[arg-type]


def decides_the_control(override: str) -> bool:
    """Whether an override is a matter of the control too: of what is done against collapse, steering alone."""
    key, _, option = override.partition("=")
    if not key.startswith("mitigation"):
        return True
    return key == "mitigation" and "\nsteering:" in (Path(conf_dir()) / "mitigation" / f"{option}.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_every_arm_of_a_suite_finds_its_control(suite: str) -> None:
    plain = {tuple(filter(decides_the_control, cell)) for cell in cells_of(suite, "seed=0")}
    runs = {cell: planned(suite, list(cell)) for cell in sorted(plain)}
    assert not [cell for cell, run in runs.items() if compare([run], list(runs.values())).num_pairs == 0]


def test_a_suite_has_each_cell_once_and_the_lowest_seed_first() -> None:
    found = cells_of("digits")
    assert len({tuple(sorted(cell)) for cell in found}) == len(found) == 133
    seeds = [int(cell[-1].removeprefix("seed=")) for cell in found]
    assert seeds == sorted(seeds)


@pytest.mark.parametrize("seed", ["null", "'1'", "x"])
def test_a_seed_that_is_no_number_is_left_to_the_run_to_refuse(seed: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"seed={seed}"])
    assert cells({"a": {"regime": "replace"}}, [override]) == [["regime=replace", f"seed={seed}"]]


def test_the_command_line_replaces_what_blocks_say() -> None:
    some = cells_of("digits", "seed=7", "regime=augment")
    assert ["regime=augment", "seed=7"] in some
    assert all({"regime=augment", "seed=7"} <= set(cell) for cell in some)


def test_the_sweeper_is_the_one_of_the_experiment() -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("run", ["experiment=suite/digits"], return_hydra_config=True)
    assert config.hydra.sweeper._target_.endswith("SuiteSweeper")
    assert "neon" in config.hydra.sweeper.blocks.mitigations_under_replace.mitigation


@pytest.mark.parametrize("arguments", [["experiment=suite/digits"], ["-m", "experiment=suite/digits,suite/mnist_vae"]])
def test_a_suite_never_runs_as_one_cell(arguments: list[str]) -> None:
    with pytest.raises(CollapseBenchError, match=r"-m|one suite at a time"):
        check_command_line(arguments)
