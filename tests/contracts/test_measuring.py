"""What the measuring side promises: floors with a spread, several encoders, one set of numbers for all."""

import math
from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, composed, opened_run_dir, parts_of

from collapse_bench.cli.config import build
from collapse_bench.errors import ConfigError
from collapse_bench.loop import Parts, run_generations
from collapse_bench.metrics.base import GenerativeMetric
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.records import Score


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def parts(store: Path) -> Parts:
    return parts_of(composed(*TINY, *TINY_FLOW, "budget.num_floor_splits=6"), store)


def by_name(scores: tuple[Score, ...], of: str) -> dict[str, Score]:
    return {score.metric: score for score in scores if score.of == of}


def noise(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_a_floor_is_a_mean_over_splits_with_its_spread_and_lies_near_the_control_set(parts: Parts) -> None:
    scores = parts.measurer.floor()
    floor, control = by_name(scores, "floor"), by_name(scores, "control")
    assert {"fid", "recall", "precision", "tail_mass", "class_kl"} <= floor.keys() <= control.keys()
    # Sixty samples are too few for the extrapolation, which is then not shown.
    assert [name for name, score in floor.items() if math.isnan(score.value)] == ["fid_infinity"]
    for name, score in floor.items():
        if name == "fid_infinity":
            continue
        assert score.spread is not None
        assert score.spread >= 0
        assert (score.low, score.high) == (None, None)
        assert (score.better, score.null) == (control[name].better, control[name].null)
        assert abs(score.value - control[name].value) <= 8 * score.spread + 1e-6, name
    assert floor["fid"].value != control["fid"].value
    assert floor["recall"].spread > 0


def test_a_floor_from_the_store_is_the_one_that_was_computed(parts: Parts, store: Path, tmp_path: Path) -> None:
    config = composed(*TINY, *TINY_FLOW, "budget.num_floor_splits=6")
    again, anew = parts_of(config, store), parts_of(config, tmp_path)
    assert list((store / "floor").glob("*.safetensors"))
    assert again.measurer.floor() == parts.measurer.floor() == anew.measurer.floor()


def test_numbers_in_a_second_encoder_carry_its_name_and_leave_the_others_as_they_are(parts: Parts, store: Path) -> None:
    several = ["encoder=[pca,classifier,pixels]", "encoder.classifier.num_steps=10", "budget.num_floor_splits=6"]
    three = parts_of(composed(*TINY, *TINY_FLOW, *several), store)
    plain, prefixed = (by_name(p.measurer.floor(), "control") for p in (parts, three))
    assert {name: score for name, score in prefixed.items() if "@" not in name} == plain
    suffixes = {name.partition("@")[2] for name in prefixed} - {""}
    assert suffixes == {"classifier", "pixels"}
    assert "recall@pixels" in prefixed
    assert "class_kl@pixels" not in prefixed, "pixels know no classes"
    assert "duplicates@pixels" not in prefixed, "hashes owe nothing to an encoder"
    assert prefixed["recall@classifier"].value != prefixed["recall"].value


def test_numbers_of_the_training_pool_follow_the_pool(parts: Parts) -> None:
    measurer = parts.measurer
    generated, unlabelled = noise(60), torch.full((60,), UNLABELLED)
    measurer.see_training(None)
    assert "copies_of_training" not in by_name(measurer.score(generated, unlabelled, "model"), "model")
    measurer.see_training(parts.setting.real)
    assert by_name(measurer.score(generated, unlabelled, "model"), "model")["copies_of_training"].value == 0
    measurer.see_training(Pool.real(generated[:15], unlabelled[:15], "noise"))
    assert by_name(measurer.score(generated, unlabelled, "model"), "model")["copies_of_training"].value == 0.25
    assert by_name(measurer.floor(), "control")["copies_of_training"].value == 0
    assert "copies_of_training" not in by_name(measurer.floor(), "floor"), "no split of held-out images is a pool"


def test_numbers_of_the_training_pool_are_of_the_images_that_the_fit_saw(tmp_path: Path) -> None:
    real_alone = ("regime=augment", "mitigation=provenance_weight", "mitigation.weigher.synthetic_weight=0")
    parts = parts_of(composed(*TINY, *TINY_FLOW, *real_alone), tmp_path)
    seen: list[Pool | None] = []
    with opened_run_dir(tmp_path / "run") as run_dir, pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(parts.measurer), "see_training", lambda self, pool: seen.append(pool))
        records = run_generations(parts, 0, run_dir)
    assert records[2].train_pool == {"real": 64, "gen_001": 64}
    assert [pool.counts_by_birth() for pool in seen if pool is not None] == 3 * [{"real": 64}]


def test_scoring_twice_gives_the_same_and_leaves_the_global_random_state(parts: Parts) -> None:
    before = torch.get_rng_state()
    first, second = (parts.measurer.score(noise(60), torch.full((60,), UNLABELLED), "model") for _ in range(2))
    assert [(s.metric, repr(s.value)) for s in first] == [(s.metric, repr(s.value)) for s in second]
    assert torch.equal(torch.get_rng_state(), before)


def test_an_encoder_that_is_set_but_not_chosen_is_named(tmp_path: Path) -> None:
    config = composed(*TINY, *TINY_FLOW)
    config["encoder"]["classifier"] = {"num_steps": 5}
    with pytest.raises(ConfigError, match=r"encoder.classifier is set but not chosen.*encoder=\[pca,classifier\]"):
        parts_of(config, tmp_path)


def test_metrics_that_need_classes_are_refused_where_no_encoder_has_them(tmp_path: Path) -> None:
    tiny = [override for override in TINY if not override.startswith("encoder")]
    with pytest.raises(ConfigError, match="needs class probabilities"):
        parts_of(composed(*tiny, *TINY_FLOW, "encoder=pixels"), tmp_path)


@pytest.mark.parametrize("panel", ["headline", "features", "full"])
def test_every_metric_keeps_its_arguments_under_their_names(panel: str) -> None:
    for metric in build(composed(f"metrics={panel}")["metrics"], "metrics").values():
        if isinstance(metric, GenerativeMetric):
            assert "class" in metric.settings
