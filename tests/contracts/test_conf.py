"""Every file in every group of ``conf/`` is what it claims to be; a new option is tested by existing."""

import inspect
import json
import re
from pathlib import Path

import pytest
from chains import composed
from hydra.utils import get_class

from collapse_bench.cli.chain import PARTS
from collapse_bench.cli.config import build, conf_dir
from collapse_bench.testing import promises
from collapse_bench.testing.promises import Option

CONF = Path(conf_dir())
OPTIONS = sorted(path.relative_to(CONF) for path in CONF.glob("*/*.yaml"))
NEEDED = {"image_folder": ("dataset.root=somewhere",)}
NETWORKS = sorted(path.relative_to(CONF) for path in CONF.glob("generator/network/*.yaml"))


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_argument_of_every_class_is_visible_in_its_yaml(option: Path) -> None:
    if option.parts[0] == "experiment":
        assert "_target_" not in (CONF / option).read_text()
        return
    promises.shows_every_argument(Option(option.parts[0], option.stem, overrides=NEEDED.get(option.stem, ())))


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("generator", ["flow", "flow_unet", "ddpm", "edm"])
def test_every_network_goes_with_every_process(generator: str, network: Path) -> None:
    assert (CONF / network).read_text().startswith("# ")
    config = composed(f"generator={generator}", f"{network.parent}={network.stem}")["generator"]
    arguments = set(inspect.signature(get_class(config["network"]["_target_"])).parameters)
    assert set(config["network"]) - {"_target_"} == arguments
    assert build(config, "generator").network == build(config["network"], "generator.network")


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_option_says_what_it_is(option: Path) -> None:
    promises.says_what_it_is(Option(option.parts[0], option.stem))


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.parts[0] != "dataset" and "gpu" not in o.stem], ids=str)
def test_every_option_builds(option: Path) -> None:
    group, name = option.parts[0], option.stem
    config = composed(f"{group}={name}")
    json.dumps(config, allow_nan=False)  # as run.json has it
    for built in [group] if group != "experiment" else PARTS:
        assert build(config[built], built) is not None


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.parts[0] == "experiment"], ids=str)
def test_the_sweep_in_the_comment_of_an_experiment_composes_and_builds(option: Path) -> None:
    commands = re.findall(r"^# collapse-run -m (.*)$", (CONF / option).read_text(), flags=re.MULTILINE)
    assert commands or option.stem in ("gaussian", "mnist_vae"), "which are single runs"
    for command in commands:
        sweep = [override.split("=", 1) for override in command.split()]
        assert ["experiment", option.stem] in sweep
        for end in (0, -1):
            config = composed(*(f"{key}={values.split(',')[end]}" for key, values in sweep))
            for built in [*PARTS, "budget", "dataset"]:
                assert build(config[built], built) is not None


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.parts[0] not in ("metrics", "experiment")], ids=str)
def test_parts_are_frozen_dataclasses_so_that_they_can_be_hashed(option: Path) -> None:
    promises.are_frozen_dataclasses(Option(option.parts[0], option.stem, overrides=NEEDED.get(option.stem, ())))


@pytest.mark.parametrize("generator", [o.stem for o in OPTIONS if o.parts[0] == "generator"])
def test_a_generator_brings_the_sampler_of_its_family(generator: str) -> None:
    config = composed(f"generator={generator}")
    data = build(composed("dataset=digits")["dataset"], "dataset").load()
    model = build(config["generator"], "generator").empty_model(data.spec) if generator != "gaussian" else None
    sampler = build(config["sampler"], "sampler")
    if model is None:
        assert "gaussian" in type(sampler).__name__.lower()
    else:
        assert isinstance(model, sampler.model_type)


def test_the_command_line_beats_the_generators_choice_of_a_sampler() -> None:
    assert composed("generator=vae")["sampler"]["output"] == "mean"
    assert composed("generator=vae", "sampler=decoder_draw")["sampler"]["output"] == "draw"
    assert composed("sampler=decoder_draw", "generator=vae")["sampler"]["output"] == "draw"
