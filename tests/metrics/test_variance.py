import math

import numpy as np
import pytest
import torch

from collapse_bench.metrics.functional.variance import within_class_variance_ratio


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
