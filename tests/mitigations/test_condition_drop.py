import math
from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, FinishedChain, assert_equal_chains, composed, parts_of
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.diffusion import DiffusionModel
from collapse_bench.pool import UNLABELLED
from collapse_bench.seeding import isolated_rng

CONDITIONAL = (*TINY, *TINY_FLOW, "generator.conditional=true", "generator.condition_dropout=0.1")
DROP = ("mitigation=condition_drop",)


def test_only_fits_to_samples_leave_the_class_out_more_often(tmp_path: Path) -> None:
    arm, control = FinishedChain(tmp_path / "arm", *CONDITIONAL, *DROP), FinishedChain(tmp_path / "c", *CONDITIONAL)
    recipes = [arm.parts.mitigation.steering.steer_fit(arm.parts.generator, t) for t in range(3)]
    assert [recipe.condition_dropout for recipe in recipes] == [0.1, 0.2, 0.2]  # type: ignore[attr-defined]
    equal = [
        (arm.run_dir.generation(t) / file).read_bytes() == (control.run_dir.generation(t) / file).read_bytes()
        for t in range(2)
        for file in ("fitted.safetensors", "kept.safetensors")
    ]
    assert equal == [True, True, False, False]


class FarOffWithoutClass(torch.nn.Module):
    """Predicts 0 with a class and 100 without, so that the loss of an image tells whether it had one."""

    def forward(self, x: Tensor, level: Tensor, labels: Tensor) -> Tensor:
        return torch.where(labels == UNLABELLED, 100.0, 0.0).view(-1, 1, 1, 1).expand_as(x)


def test_the_losses_of_each_generation_by_hand(tmp_path: Path) -> None:
    parts = parts_of(composed(*CONDITIONAL, *DROP), tmp_path)
    num_images = 10_000
    images, labels = torch.zeros(num_images, *parts.setting.spec.shape), torch.zeros(num_images, dtype=torch.int64)
    for generation, dropout in ((0, 0.1), (1, 0.2), (2, 0.2)):
        model = parts.mitigation.steering.steer_fit(parts.generator, generation).empty_model(parts.setting.spec)
        assert isinstance(model, DiffusionModel)
        model.network = FarOffWithoutClass()  # type: ignore[assignment]
        with isolated_rng(generation):
            losses = model.train().loss(images, labels)
        # The speed to be predicted is minus the noise: an error of 1 with a class, of 100^2 + 1 without, on average.
        share = (losses > 1000).double().mean().item()
        assert abs(share - dropout) < 4 * math.sqrt(dropout * (1 - dropout) / num_images)
        standard_error = 100**2 * math.sqrt(dropout * (1 - dropout) / num_images)
        assert abs(losses.mean().item() - (1 + dropout * 100**2)) < 4 * standard_error


def test_the_same_dropout_throughout_is_the_control(tmp_path: Path) -> None:
    arm = FinishedChain(tmp_path / "arm", *CONDITIONAL, *DROP, "mitigation.steering.last=0.1")
    assert_equal_chains(arm, FinishedChain(tmp_path / "control", *CONDITIONAL))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["generator.conditional=false", "generator.condition_dropout=0"], "generator.conditional is false"),
        (["mitigation.steering.last=1"], r"condition_dropout must lie in \[0, 1\)"),
        (["mitigation.steering.last=0", "sampler.guidance=1"], "needs a model that knows images with and without"),
    ],
)
def test_it_is_refused_before_training_where_it_makes_no_sense(options: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        parts_of(composed(*CONDITIONAL, *DROP, *options), tmp_path)
