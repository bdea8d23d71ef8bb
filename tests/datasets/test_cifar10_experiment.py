"""The protocol on CIFAR-10: its network, and a chain of a few images and steps with a smaller one."""

import math
from pathlib import Path

import pytest
from chains import composed, opened_run_dir, parts_of

from collapse_bench.cli.config import build
from collapse_bench.loop import run_generations
from collapse_bench.types import ImageSpec

TINY_CIFAR = (
    "experiment=cifar10",
    "dataset=image_folder",
    "dataset.image_size=32",
    "dataset.num_real=40",
    "dataset.num_reference=40",
    "dataset.num_control=20",
    "generator/network=unet_tiny",
    "generator.optimisation.batch_size=4",
    "sampler.num_steps=2",
    "budget.num_generations=1",
    "budget.num_steps_initial=2",
    "budget.num_steps=1",
    "budget.num_synthetic=8",
    "budget.num_floor_splits=2",
    "encoder=[pca,classifier]",
    "encoder.pca.classifier.num_steps=2",
    "encoder.classifier.num_steps=2",
    "trainer=cpu",
)


def test_the_network_has_the_size_that_its_comment_says() -> None:
    generator = build(composed("experiment=cifar10")["generator"], "generator")
    model = generator.empty_model(ImageSpec(3, 32, 32, tuple("0123456789")))
    assert model.conditional
    assert round(model.num_parameters / 1e6) == 34


@pytest.mark.slow
def test_the_protocol_runs_on_a_folder_of_the_jpeg_copy(cifar_jpegs: Path, tmp_path: Path) -> None:
    folders = f"dataset.root={cifar_jpegs / 'train'}", f"dataset.test_root={cifar_jpegs / 'test'}"
    parts = parts_of(composed(*TINY_CIFAR, *folders), tmp_path / "store")
    assert (parts.setting.spec.shape, parts.setting.spec.num_classes) == ((3, 32, 32), 10)
    with opened_run_dir(tmp_path / "run") as run_dir:
        records = run_generations(parts, 0, run_dir)
    for record in records:
        values = {score.metric: score.value for score in record.scores if score.of == "model"}
        assert record.kept_labels == "condition"
        assert math.isfinite(values["recall"])
        assert math.isfinite(values["recall@classifier"])
