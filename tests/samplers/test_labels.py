from pathlib import Path

import pandas as pd
import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, TINY_OPTION, FinishedChain, composed, parts_of

from collapse_bench.errors import ConfigError
from collapse_bench.ledger import IMAGES

LABELS = ("labels=classifier", "labels.num_steps=30")
FLOW = (*TINY, *TINY_FLOW)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> FinishedChain:
    return FinishedChain(tmp_path_factory.mktemp("labels"), *FLOW, *LABELS)


def test_samples_of_an_unconditional_model_get_the_class_that_a_classifier_sees(chain: FinishedChain) -> None:
    now = chain.now(3)
    for t, record in enumerate(chain.records):
        kept = now.chain.kept(t)
        recipe, setting = chain.parts.setting.labels, chain.parts.setting
        assert recipe is not None
        classifier = recipe.fit(setting.trusted, setting.spec, setting.trainer.exact, setting.store)
        probabilities = classifier.encode(kept.images).probabilities
        assert probabilities is not None
        assert torch.equal(kept.labels, probabilities.argmax(1))
        assert record.kept_labels == "classifier"
        ledger = pd.read_parquet(chain.run_dir.generation(t) / IMAGES)
        assert ledger.loc[ledger["drawn"], "label"].tolist() == kept.labels.tolist()


def test_the_classifier_is_paid_for_once(chain: FinishedChain) -> None:
    assert [record.spent.artefacts for record in chain.records] == [("labels",), (), ()]
    assert [record.spent.gradient_steps for record in chain.records] == [12 + 30, 6, 6]
    assert chain.records[0].spent.real_images_seen["labels"] == 64


def test_labels_change_no_image_of_an_unconditional_model(chain: FinishedChain, tmp_path: Path) -> None:
    without = FinishedChain(tmp_path, *FLOW)
    assert [record.kept_labels for record in without.records] == ["none"] * 3
    kept, plain = chain.now(3).chain.kept(2), without.now(3).chain.kept(2)
    assert torch.equal(kept.images, plain.images)
    assert set(plain.labels.tolist()) == {-1}


def test_a_conditional_model_keeps_its_conditions_and_needs_no_classifier(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *FLOW, *LABELS, "generator.conditional=true", "budget.num_generations=0")
    assert chain.records[0].kept_labels == "condition"
    assert chain.records[0].spent.artefacts == ()


@pytest.mark.parametrize("mitigation", ["class_balanced", "verifier", "self_correction"])
def test_what_looks_at_classes_goes_with_unconditional_models(mitigation: str, tmp_path: Path) -> None:
    cheap = [option for option in TINY_OPTION.get(mitigation, ()) if not option.startswith("generator.")]
    options = (f"mitigation={mitigation}", *cheap, "budget.num_generations=1")
    chain = FinishedChain(tmp_path, *FLOW, *LABELS, *options)
    kept = chain.now(2).chain.kept(1)
    assert int(kept.labels.min()) >= 0
    if mitigation == "class_balanced":
        weights = chain.parts.mitigation.weigher.weigh(kept.visible(), chain.now(1))
        totals = torch.bincount(kept.labels, weights)
        assert totals[totals > 0].tolist() == pytest.approx([1.0] * int((totals > 0).sum()))


def test_the_classifier_that_measures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labels\.seed=0 makes the labels those of the classifier that measures"):
        parts_of(composed(*FLOW, "labels=classifier", "labels.num_steps=10", "labels.seed=0"), tmp_path)


@pytest.mark.parametrize("cell", [("regime=contaminate", *FLOW), TINY_GAUSSIAN], ids=["contaminate", "laws"])
def test_a_classifier_without_anything_to_learn_from_is_refused(cell: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="labels=classifier learns from labelled images"):
        parts_of(composed(*cell, *LABELS), tmp_path)


def test_trusted_images_are_enough(tmp_path: Path) -> None:
    contaminated = ("regime=contaminate", "regime.num_trusted=30", "budget.num_generations=1")
    chain = FinishedChain(tmp_path, *FLOW, *LABELS, *contaminated)
    assert chain.records[0].spent.real_images_seen["labels"] == 30
    assert int(chain.pool(1).labels.min()) >= 0
