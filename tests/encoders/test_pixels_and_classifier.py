"""The default ruler: principal components of pixels, and the classes of a frozen classifier."""

from pathlib import Path

import numpy as np
import pytest
import torch
from chains import TINY, TINY_FLOW, composed, parts_of
from sklearn.decomposition import PCA

from collapse_bench.cli.config import build
from collapse_bench.encoders.base import Encoded, Encoder
from collapse_bench.encoders.classifier import FrozenClassifier
from collapse_bench.encoders.pixels import Pixels
from collapse_bench.errors import ConfigError
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec, to_float

SPEC = ImageSpec(1, 6, 6, ("dark", "light"))
OPTIONS = TrainerOptions(num_threads=1)


def shades(count: int) -> Pool:
    """Noise, of which the second class is lighter."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 128, (count, *SPEC.shape), generator=rng) + 128 * labels.view(-1, 1, 1, 1)
    return Pool.real(images.to(torch.uint8), labels, "shades")


def classifier(seed: int = 0) -> Encoder:
    options = ("encoder.classifier.width=8", "encoder.classifier.num_steps=60", f"encoder.classifier.seed={seed}")
    return build(composed("encoder=classifier", *options)["encoder"], "encoder")["classifier"]


@pytest.mark.parametrize("count", [200, 20])  # more and fewer than there are pixels
def test_projections_are_those_of_scikit_learn_up_to_signs_and_the_mean(count: int, tmp_path: Path) -> None:
    real = shades(count)
    features = Pixels(5).fit(real, SPEC, OPTIONS, Store(tmp_path)).encode(real.images).features
    pixels = to_float(real.images).flatten(1).double().numpy()
    theirs = PCA(5, svd_solver="full").fit_transform(pixels)
    ours = (features - features.mean(0)).double().numpy()
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_without_components_the_features_are_the_pixels(tmp_path: Path) -> None:
    real = shades(10)
    encoded = Pixels(None).fit(real, SPEC, OPTIONS, Store(tmp_path)).encode(real.images)
    assert torch.equal(encoded.features, to_float(real.images).flatten(1))
    assert encoded.probabilities is None
    assert encoded.accuracy(real.labels) is None


@pytest.mark.parametrize("count", [0, 21])
def test_more_components_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"num_components must lie between 1 and 20, got {count}"):
        Pixels(count).check(shades(20), SPEC)


def test_a_classifier_learns_what_can_be_told_apart_and_is_the_same_from_the_store(tmp_path: Path) -> None:
    real, store = shades(100), Store(tmp_path)
    fitted = classifier().fit(real, SPEC, OPTIONS, store)
    assert isinstance(fitted, FrozenClassifier)
    encoded = fitted.encode(real.images)
    assert encoded.probabilities is not None
    assert encoded.accuracy(real.labels) == 1.0
    assert torch.allclose(encoded.probabilities.sum(1), torch.ones(100, dtype=torch.float64))
    assert torch.allclose(fitted.classify(encoded.features), encoded.probabilities)
    assert not any(parameter.requires_grad for parameter in fitted.parameters())

    again = classifier().fit(real, SPEC, OPTIONS, store).encode(real.images)
    other = classifier(seed=1).fit(real, SPEC, OPTIONS, store).encode(real.images)
    assert torch.equal(again.features, encoded.features)
    assert not torch.equal(other.features, encoded.features), "another seed is another network"
    assert len(list((tmp_path / "encoder").glob("*.safetensors"))) == 2, "each is trained once"


def test_a_classifier_needs_two_classes_and_labels() -> None:
    with pytest.raises(ConfigError, match="needs labelled images of two classes or more"):
        classifier().check(shades(10), ImageSpec(1, 6, 6, ("all",)))
    unlabelled = Pool.real(shades(10).images, torch.full((10,), UNLABELLED), "unlabelled")
    with pytest.raises(ConfigError, match="needs labelled images of two classes or more"):
        classifier().check(unlabelled, SPEC)


def test_the_accuracy_by_hand() -> None:
    encoded = Encoded(torch.zeros(3, 1), torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]))
    assert encoded.accuracy(torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)


def test_the_accuracies_in_the_run_file_are_those_on_held_out_images(tmp_path: Path) -> None:
    config = composed(*TINY, *TINY_FLOW)
    data = build(config["dataset"], "dataset").load()
    encoder = build(config["encoder"], "encoder")["pca"].fit(data.not_held_out, data.spec, OPTIONS, Store(tmp_path))
    accuracy = parts_of(config, tmp_path).measurer.accuracy
    for of, pool in {"reference": data.held_out.reference, "control": data.held_out.control}.items():
        assert accuracy[f"accuracy_{of}"] == encoder.encode(pool.images).accuracy(pool.labels)
