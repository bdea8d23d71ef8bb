"""Where the origin of images is lost, a deciding part knows its pool and the trusted real images, and nothing else."""

from pathlib import Path

import pytest
from chains import TINY, TINY_FLOW, FinishedChain, composed, parts_of

from collapse_bench.encoders.base import Encoder
from collapse_bench.encoders.classifier import Classifier
from collapse_bench.errors import ConfigError
from collapse_bench.now import Now
from collapse_bench.testing import promises
from collapse_bench.testing.promises import Option

CHAIN = (
    *(*TINY, *TINY_FLOW, "generator.conditional=true", "generator.condition_dropout=0.1"),
    *("regime=contaminate", "regime.num_trusted=40"),
)


def test_a_part_that_looks_at_the_real_pool_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = promises.tried(Option("mitigation", "farthest_point"), *CHAIN, measured=False)
    promises.looks_at_no_untrusted_real_image(trial)

    def leaking(self: Now, encoder: Encoder):
        return encoder.fit(self.setting.real, self.setting.spec, self.setting.trainer.exact, self.setting.store)

    monkeypatch.setattr(Now, "encoder", leaking)
    with pytest.raises(AssertionError, match="looks at untrusted real images"):
        promises.looks_at_no_untrusted_real_image(trial)


def test_features_are_learnt_from_trusted_images_and_metered_so(tmp_path: Path) -> None:
    cell = (*CHAIN, "mitigation=confidence", "budget.num_generations=0")
    seen = FinishedChain(tmp_path, *cell).records[0].spent.real_images_seen
    assert (seen["encoder"], seen["probe"]) == (40, 40)


@pytest.mark.parametrize("name", ["farthest_point", "threshold_decay", "tail_first", "confidence", "ds3"])
def test_features_that_ask_for_more_images_than_are_trusted_are_refused_before_training(
    name: str, tmp_path: Path
) -> None:
    hidden = ("regime=contaminate", "regime.num_trusted=7")
    cell = (*TINY, *TINY_FLOW, "generator.conditional=true", *hidden, f"mitigation={name}")
    with pytest.raises(ConfigError, match=r"features .* the 7 images that are known to be real \(.*num_components"):
        parts_of(composed(*cell), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_classifier_learns_from_no_empty_set(tmp_path: Path) -> None:
    setting = parts_of(composed(*TINY, *TINY_FLOW, "regime=contaminate"), tmp_path).setting
    classifier = next(e for e in promises.Option("encoder", "classifier").built().values())
    assert isinstance(classifier, Classifier)
    with pytest.raises(ConfigError, match="needs labelled images"):
        classifier.check(setting.trusted, setting.spec)
