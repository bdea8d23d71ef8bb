from pathlib import Path

import pytest
from chains import TINY_GAUSSIAN, FinishedChain, assert_equal_chains, composed, parts_of
from weighing import AT_GENERATION_1, born

import collapse_bench
from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.provenance_weight import ProvenanceWeight

AUGMENT = (*TINY_GAUSSIAN, "regime=augment")


def test_synthetic_images_count_less_whatever_their_generation() -> None:
    weights = ProvenanceWeight(0.25).weigh(born(-1, 0, -1, 3).visible(), AT_GENERATION_1)  # type: ignore[arg-type]
    assert weights.tolist() == [1.0, 0.25, 1.0, 0.25]


def test_it_is_told_the_truth_where_origin_is_lost() -> None:
    hidden = born(-1, 0).hide("born").visible()
    assert ProvenanceWeight(0.0).weigh(hidden, AT_GENERATION_1).tolist() == [1.0, 0.0]  # type: ignore[arg-type]


def test_it_alone_is_told_the_truth() -> None:
    files = Path(collapse_bench.__file__).parent.rglob("*.py")
    assert [path.name for path in files if ".revealed(" in path.read_text()] == ["provenance_weight.py"]


def test_records_say_what_the_model_really_saw(tmp_path: Path) -> None:
    options = ("mitigation=provenance_weight", "mitigation.weigher.synthetic_weight=0.25")
    records = FinishedChain(tmp_path, *AUGMENT, *options).records
    assert records[0].train_shares == {"real": 1.0}
    assert records[2].train_shares == pytest.approx({"real": 0.8, "gen_001": 0.2})
    assert records[2].train_pool == {"real": 22, "gen_001": 22}


def test_a_weight_of_one_is_the_control(tmp_path: Path) -> None:
    options = ("mitigation=provenance_weight", "mitigation.weigher.synthetic_weight=1")
    arm, control = (FinishedChain(tmp_path / str(k), *AUGMENT, *options[:k]) for k in (2, 0))
    assert_equal_chains(arm, control)


def test_a_weight_of_zero_equals_the_real_arm(tmp_path: Path) -> None:
    options = ("mitigation=provenance_weight", "mitigation.weigher.synthetic_weight=0")
    arm = FinishedChain(tmp_path / "arm", *AUGMENT, *options)
    real = FinishedChain(tmp_path / "real", *TINY_GAUSSIAN, "regime=real")
    for t in range(4):
        files = [chain.run_dir.generation(t) / "fitted.safetensors" for chain in (arm, real)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("regime", ["replace", "window", "replace_multiple", "recover"])
def test_nothing_left_to_train_on_is_refused_before_training(regime: str, tmp_path: Path) -> None:
    options = ("mitigation=provenance_weight", "mitigation.weigher.synthetic_weight=0", f"regime={regime}")
    with pytest.raises(ConfigError, match="synthetic_weight=0 leaves real images only"):
        parts_of(composed(*TINY_GAUSSIAN, *options), tmp_path)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weights_outside_the_range_are_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"synthetic_weight must lie in \[0, 1\]"):
        ProvenanceWeight(weight)
