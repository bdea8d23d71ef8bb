from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, FinishedChain, assert_equal_chains, composed, parts_of
from weighing import AT_GENERATION_1, born

from collapse_bench.errors import ConfigError, TrainingError
from collapse_bench.mitigations.class_balanced import ClassBalanced

CONDITIONAL = (*TINY, *TINY_FLOW, "generator.conditional=true")


def weigh(*labels: int) -> list[float]:
    pool = born(*[0] * len(labels), labels=labels)
    return ClassBalanced().weigh(pool.visible(), AT_GENERATION_1).tolist()  # type: ignore[arg-type]


def test_every_class_has_the_same_total_weight() -> None:
    assert weigh(0, 0, 2, 0, 2, 5) == pytest.approx([1 / 3, 1 / 3, 1 / 2, 1 / 3, 1 / 2, 1])


def test_equally_many_images_have_equal_weights() -> None:
    assert len(set(weigh(0, 1, 2, 2, 1, 0))) == 1


def test_equally_many_images_make_it_the_control(tmp_path: Path) -> None:
    one_class = ("dataset.classes=[3]", "dataset.num_reference=50", "dataset.num_control=50", "budget.num_measured=50")
    overrides = [o for o in (*CONDITIONAL, *one_class, "encoder=pixels") if not o.startswith("encoder.")]
    arms = ("class_balanced", "control")
    assert_equal_chains(*(FinishedChain(tmp_path / arm, *overrides, f"mitigation={arm}") for arm in arms))


def test_a_conditional_model_is_asked_for_all_classes_equally_often(tmp_path: Path) -> None:
    held_out = ("dataset.num_reference=60", "dataset.num_control=60", "dataset.num_real=null")
    overrides = (*held_out, "dataset.long_tail=0.1", "mitigation=class_balanced", "budget.num_generations=0")
    chain = FinishedChain(tmp_path, *CONDITIONAL, *overrides)
    counts = chain.parts.setting.real.labels.bincount()
    assert counts.min() < counts.max() / 4
    model = chain.now(1).chain.model
    assert model is not None
    torch.testing.assert_close(model.label_shares, torch.full((10,), 0.1, dtype=torch.float64))


def test_an_unconditional_model_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"generator\.conditional=true"):
        parts_of(composed(*TINY, *TINY_FLOW, "mitigation=class_balanced"), tmp_path)


def test_an_image_without_a_label_is_an_error() -> None:
    with pytest.raises(TrainingError, match="generation 1: mitigation=class_balanced needs labels"):
        weigh(0, -1, 1)
