import math

import pytest
import scipy.stats
import torch

from collapse_bench.encoders.classifier import Classifier
from collapse_bench.errors import ConfigError, MetricError
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.metrics.utility import ClassificationAccuracy
from collapse_bench.pool import UNLABELLED
from collapse_bench.training import Optimisation, TrainerOptions
from collapse_bench.types import ImageSpec

SPEC = ImageSpec(1, 8, 8, ("left", "right", "top"))
OPTIONS = TrainerOptions(num_threads=1)


def draw(num_images, rng):
    """Noisy pictures of a bright half: left, right or top."""
    labels = torch.randint(3, (num_images,), generator=rng)
    bright = torch.zeros(3, 1, 8, 8)
    bright[0, :, :, :4] = bright[1, :, :, 4:] = bright[2, :, :4] = 1
    pictures = 60 + 120 * bright[labels] + 30 * torch.randn(num_images, 1, 8, 8, generator=rng)
    return {"images": pictures.clamp(0, 255).to(torch.uint8), "labels": labels}


def scored(generated, reference):
    optimisation = Optimisation(batch_size=32, learning_rate=5e-3, num_warmup_steps=5)
    classifier = Classifier(width=8, num_blocks=1, num_steps=40, seed=0, optimisation=optimisation)
    metric = ClassificationAccuracy(classifier)
    metric.check(SPEC, has_probabilities=False, options=OPTIONS)
    metric.update(ImageSet(**reference), side="reference")
    metric.update(ImageSet(**generated), side="generated")
    return metric.compute()["classification_accuracy_score"]


@pytest.fixture
def classifier():
    return Classifier(width=8, num_blocks=1, num_steps=1, seed=0, optimisation=Optimisation())


def test_good_samples_train_a_good_classifier_and_it_leaves_the_global_random_state(rng):
    generated, reference = draw(120, rng), draw(100, rng)
    before = torch.get_rng_state()
    estimate = scored(generated, reference)
    assert torch.equal(torch.get_rng_state(), before)
    assert estimate.value > 0.9
    expected = scipy.stats.binomtest(round(100 * estimate.value), 100).proportion_ci(method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    # The same images in another order are the same set, and the same set gives the same classifier.
    flipped = {name: rows.flip(0) for name, rows in generated.items()}
    assert scored(flipped, reference) == estimate


def test_wrong_conditions_and_a_lost_class_lower_it(rng):
    generated, reference = draw(120, rng), draw(100, rng)
    wrong = {**generated, "labels": (generated["labels"] + 1) % 3}
    assert scored(wrong, reference).value < 0.1
    kept = generated["labels"] > 0
    lost = {name: rows[kept] for name, rows in generated.items()}
    assert scored(lost, reference).value < 1 - (reference["labels"] == 0).double().mean().item() + 1e-9


def test_it_is_not_defined_for_images_without_conditions(rng):
    generated, reference = draw(10, rng), draw(10, rng)
    assert math.isnan(scored({**generated, "labels": torch.full((10,), UNLABELLED)}, reference).value)


def test_images_without_classes_are_refused_before_anything_is_trained(classifier):
    with pytest.raises(ConfigError, match="two classes or more"):
        ClassificationAccuracy(classifier).check(ImageSpec(1, 8, 8, ("all",)), True, OPTIONS)


def test_scoring_before_the_check_says_so(classifier, rng):
    metric = ClassificationAccuracy(classifier)
    metric.update(ImageSet(**draw(10, rng)), side="reference")
    metric.update(ImageSet(**draw(10, rng)), side="generated")
    with pytest.raises(RuntimeError, match="check must be called"):
        metric.compute()


def test_its_settings_name_the_classifier(classifier):
    assert ClassificationAccuracy(classifier).settings["classifier"] == classifier


def test_a_pixel_that_is_not_finite_is_refused(classifier):
    images = torch.full((2, 1, 8, 8), math.nan)
    with pytest.raises(MetricError, match="2 of 2 generated images"):
        ClassificationAccuracy(classifier).update(
            ImageSet(images=images, labels=torch.zeros(2).long()), side="generated"
        )
