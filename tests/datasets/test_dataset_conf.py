import dataclasses
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf" / "dataset"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml"))


def test_all_data_sets_have_an_option() -> None:
    assert {"cifar10", "digits", "fashion_mnist", "gaussian", "image_folder", "kmnist", "mnist"} <= set(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_lists_every_argument_of_its_class(option: str) -> None:
    config = OmegaConf.load(CONF / f"{option}.yaml")
    fields = dataclasses.fields(get_class(config._target_))
    assert set(config) == {"_target_", *(field.name for field in fields)}
    assert config.name == option


def test_the_digits_option_gives_897_450_and_450() -> None:
    data = instantiate(OmegaConf.load(CONF / "digits.yaml"), _convert_="all").load()
    assert [len(data.pool), len(data.held_out.reference), len(data.held_out.control)] == [897, 450, 450]


def test_the_gaussian_option_is_what_its_comment_says() -> None:
    data = instantiate(OmegaConf.load(CONF / "gaussian.yaml"), _convert_="all").load()
    assert [len(data.pool), len(data.held_out.reference), len(data.held_out.control)] == [1000, 2000, 2000]


def test_the_mnist_option_reads_the_folder_that_the_environment_names(
    mnist_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLAPSE_BENCH_DATA", str(mnist_root))
    config = OmegaConf.load(CONF / "mnist.yaml")
    config.merge_with_dotlist(["classes=[3,5]", "image_size=8", "num_real=100"])
    data = instantiate(config, _convert_="all").load()
    assert data.spec.class_names == ("3", "5")
    assert data.pool.images.shape == (100, 1, 8, 8)
    assert data.pool.images.dtype == torch.uint8
    assert len(data.held_out.reference) == 1010 + 892
