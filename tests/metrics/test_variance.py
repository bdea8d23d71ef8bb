import math

import numpy as np
import pytest
import torch

from collapse_bench.errors import MetricError
from collapse_bench.metrics.functional.variance import total_variance, within_class_variance_ratio
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.metrics.variance import TotalVariance, WithinClassVariance


def scored(metric, generated, reference):
    """The one value of a metric for images with features and probabilities."""
    for side, encoded in (("reference", reference), ("generated", generated)):
        metric.update(ImageSet(features=encoded.features, probabilities=encoded.probabilities), side=side)
    (estimate,) = metric.compute().values()
    assert estimate.better == "one"
    return estimate.value


def test_variance_ratio_of_classes_shrunk_by_a_tenth_is_081(rng, mixture):
    classes = mixture.classes(400, rng)
    real = mixture.draw(classes, rng).double()
    shrunk = real.clone()
    for label in classes.unique():
        inside = classes == label
        shrunk[inside] = real[inside].mean(0) + 0.9 * (real[inside] - real[inside].mean(0))
    assert within_class_variance_ratio(shrunk, classes, real, classes) == pytest.approx(0.81, rel=1e-12)


def test_variance_ratio_equals_its_definition_in_numpy(rng, mixture):
    classes, real_classes = mixture.classes(200, rng), mixture.classes(300, rng)
    generated, real = mixture.draw(classes, rng, sd=1.3).double(), mixture.draw(real_classes, rng).double()
    above, below = 0.0, 0.0
    for label in range(5):
        inside, real_inside = (classes == label).numpy(), (real_classes == label).numpy()
        above += real_inside.mean() * np.trace(np.cov(generated.numpy()[inside].T))
        below += real_inside.mean() * np.trace(np.cov(real.numpy()[real_inside].T))
    ratio = within_class_variance_ratio(generated, classes, real, real_classes)
    assert ratio == pytest.approx(above / below, rel=1e-12)


def test_variance_ratio_does_not_see_a_shift_between_classes_of_unequal_width(rng):
    wide, narrow = 3 * torch.randn(50, 4, generator=rng), torch.randn(50, 4, generator=rng)
    few = torch.tensor([0] * 50 + [1] * 50)
    many = torch.tensor([0] * 500 + [1] * 50)
    # Each wide image ten times: the same spread up to the 49/50 and 499/500 of unbiased variances.
    ratio = within_class_variance_ratio(torch.cat([wide.repeat(10, 1), narrow]), many, torch.cat([wide, narrow]), few)
    assert 49 / 50 < ratio < 1


def test_variance_ratio_leaves_out_classes_with_fewer_than_two_images_on_a_side(rng):
    generated, real = torch.randn(2, 6, 3, generator=rng)
    classes, real_classes = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 0, 0, 1, 3])
    zero = torch.zeros(3).long()
    expected = within_class_variance_ratio(generated[:3], zero, real[:4], torch.zeros(4).long())
    assert within_class_variance_ratio(generated, classes, real, real_classes) == pytest.approx(expected)


def test_variance_ratio_without_a_common_class_is_nan(rng):
    generated, real = torch.randn(2, 4, 3, generator=rng)
    assert math.isnan(within_class_variance_ratio(generated, torch.zeros(4).long(), real, torch.ones(4).long()))


def test_variance_ratio_of_one_repeated_image_is_zero(rng):
    real, zero = torch.randn(4, 3, generator=rng), torch.zeros(4).long()
    assert within_class_variance_ratio(torch.ones(4, 3), zero, real, zero) == 0


def test_total_variance_is_the_trace_of_the_covariance(rng):
    features = torch.randn(50, 6, generator=rng) + 30
    assert total_variance(features) == pytest.approx(np.trace(np.cov(features.double().numpy().T)), rel=1e-12)


def test_total_variance_ratio_sees_shrinkage_and_lost_classes_and_not_which(rng, mixture):
    real = mixture.encode(mixture.draw(mixture.classes(400, rng), rng).double())
    mean = real.features.mean(0)
    shrunk = mixture.encode(mean + 0.9 * (real.features - mean))
    assert scored(TotalVariance(), shrunk, real) == pytest.approx(0.81, rel=1e-12)
    lost = mixture.encode(mixture.draw(torch.full((400,), 2), rng))
    # A class has 8 of variance, and the five means add 25 (1 - 1/5) = 20; standard errors are near 3 %.
    assert scored(TotalVariance(), lost, real) == pytest.approx(8 / 28, rel=0.15)
    assert scored(WithinClassVariance(), lost, real) == pytest.approx(1, rel=0.15)


def test_total_variance_ratio_to_real_images_that_are_all_equal_is_nan(rng, mixture):
    one = mixture.encode(torch.ones(5, 8))
    assert math.isnan(scored(TotalVariance(), mixture.fresh(5, rng), one))


@pytest.mark.parametrize("metric", [TotalVariance, WithinClassVariance])
def test_numbers_do_not_depend_on_the_order_and_are_the_same_twice(rng, mixture, metric):
    generated, real = mixture.fresh(50, rng), mixture.fresh(70, rng)
    first = scored(metric(), generated, real)
    assert scored(metric(), generated, real) == first
    assert scored(metric(), mixture.encode(generated.features.flip(0)), mixture.encode(real.features.flip(0))) == first


@pytest.mark.parametrize("metric", [TotalVariance, WithinClassVariance])
def test_a_feature_that_is_not_finite_is_refused(metric):
    images = ImageSet(features=torch.tensor([[0.0], [math.inf]]), probabilities=torch.ones(2, 1))
    with pytest.raises(MetricError, match="first: image 1"):
        metric().update(images, side="generated")
