from pathlib import Path

import pytest
from chains import TINY, TINY_FLOW, FinishedChain, assert_equal_chains, composed, parts_of

from collapse_bench.errors import ConfigError

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
