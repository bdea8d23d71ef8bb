"""Every file in every group of ``conf/`` is what it claims to be; a new option is tested by existing."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import yaml
from chains import composed
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf

from collapse_bench.cli.chain import PARTS
from collapse_bench.cli.config import build, conf_dir

CONF = Path(conf_dir())
OPTIONS = sorted(path.relative_to(CONF) for path in CONF.glob("*/*.yaml"))
NETWORKS = sorted(path.relative_to(CONF) for path in CONF.glob("generator/network/*.yaml"))


def nodes_with_target(node: object, path: str = "") -> list[tuple[str, dict]]:
    """All mappings in a configuration that describe an object, outermost first."""
    if not isinstance(node, dict):
        return []
    below = [found for key, value in node.items() for found in nodes_with_target(value, f"{path}.{key}")]
    return ([(path, node)] if "_target_" in node else []) + below


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_argument_of_every_class_is_visible_in_its_yaml(option: Path) -> None:
    if option.parts[0] == "experiment":
        assert "_target_" not in (CONF / option).read_text()
        return
    with initialize_config_dir(str(CONF), version_base="1.3"):
        content = OmegaConf.to_container(compose("run", [f"{option.parts[0]}={option.stem}"]))[option.parts[0]]
    nodes = nodes_with_target(content)
    assert nodes
    for path, node in nodes:
        arguments = set(inspect.signature(get_class(node["_target_"])).parameters)
        assert set(node) - {"_target_"} == arguments, f"{option}{path}"


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
    first = (CONF / option).read_text().removeprefix("# @package _global_\n").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.parts[0] != "dataset" and "gpu" not in o.stem], ids=str)
def test_every_option_builds(option: Path) -> None:
    group, name = option.parts[0], option.stem
    config = composed(f"{group}={name}")
    for built in [group] if group != "experiment" else PARTS:
        assert build(config[built], built) is not None


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.parts[0] == "experiment"], ids=str)
def test_the_sweep_in_the_comment_of_an_experiment_composes_and_builds(option: Path) -> None:
    for command in re.findall(r"^# collapse-run -m (.*)$", (CONF / option).read_text(), flags=re.MULTILINE):
        sweep = [override.split("=", 1) for override in command.split()]
        assert ["experiment", option.stem] in sweep
        for end in (0, -1):
            config = composed(*(f"{key}={values.split(',')[end]}" for key, values in sweep))
            for built in [*PARTS, "budget", "dataset"]:
                assert build(config[built], built) is not None


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.parts[0] not in ("metrics", "experiment")], ids=str)
def test_parts_are_frozen_dataclasses_so_that_they_can_be_hashed(option: Path) -> None:
    content = yaml.safe_load((CONF / option).read_text())
    for _, node in nodes_with_target(content):
        cls = get_class(node["_target_"])
        assert dataclasses.is_dataclass(cls)
        assert cls.__dataclass_params__.frozen


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
