import math

import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from collapse_bench.errors import MetricError
from collapse_bench.metrics.functional.frechet import covariance_root, frechet_distance, frechet_distance_of_gaussians

FLOAT64 = 1e-12
"""Relative tolerance of float64 arithmetic over some thousand operations."""


def normal(rng, num_images, num_features, dtype=torch.float64):
    return torch.randn(num_images, num_features, generator=rng, dtype=dtype)


def test_fid_equals_the_closed_form_of_diagonal_gaussians(rng):
    mean_1, mean_2 = normal(rng, 2, 6)
    a, b = normal(rng, 2, 6).square()
    expected = (mean_1 - mean_2).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    got = frechet_distance_of_gaussians(mean_1, a.sqrt().diag(), mean_2, b.sqrt().diag())
    assert got == pytest.approx(expected.item(), rel=FLOAT64)


def test_fid_equals_the_closed_form_of_two_dimensional_gaussians(rng):
    root_1, root_2, zero = normal(rng, 2, 2), normal(rng, 3, 2), torch.zeros(2, dtype=torch.float64)
    product = root_1.T @ root_1 @ root_2.T @ root_2
    trace_term = math.sqrt(product.trace() + 2 * math.sqrt(product.det()))
    expected = root_1.square().sum().item() + root_2.square().sum().item() - 2 * trace_term
    assert frechet_distance_of_gaussians(zero, root_1, zero, root_2) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("num_images", [3, 50])
def test_fid_of_one_repeated_image_is_its_squared_distance_plus_the_real_variance(rng, num_images):
    reference = normal(rng, num_images, 10)
    point = normal(rng, 1, 10)
    expected = (point[0] - reference.mean(0)).square().sum() + reference.var(0).sum()
    assert frechet_distance(point.repeat(7, 1), reference) == pytest.approx(expected.item(), rel=FLOAT64)


def test_fid_equals_that_of_torchmetrics(rng):
    generated, reference = normal(rng, 300, 16), 1.5 * normal(rng, 400, 16) + 0.2
    expected = _compute_fid(generated.mean(0), generated.T.cov(), reference.mean(0), reference.T.cov())
    # Their eigenvalues belong to a matrix that is not symmetric, which costs some digits.
    assert frechet_distance(generated, reference) == pytest.approx(expected.item(), rel=1e-9)


def test_fid_of_fewer_images_than_features_equals_that_of_torchmetrics(rng):
    generated, reference = normal(rng, 20, 50), 1.5 * normal(rng, 30, 50) + 0.2
    expected = _compute_fid(generated.mean(0), generated.T.cov(), reference.mean(0), reference.T.cov())
    # Their zero eigenvalues come out as about 1e-16 and their square roots as 1e-8, once per missing dimension.
    assert frechet_distance(generated, reference) == pytest.approx(expected.item(), rel=1e-6)


def test_fid_does_not_depend_on_the_space_in_which_the_features_lie(rng):
    generated, reference = normal(rng, 20, 6), 2 * normal(rng, 30, 6) + 1
    embedding = torch.linalg.qr(normal(rng, 40, 6)).Q.T
    wide = frechet_distance(generated @ embedding, reference @ embedding)
    assert wide == pytest.approx(frechet_distance(generated, reference), rel=FLOAT64)


def test_fid_of_a_dead_feature_is_that_of_the_others(rng):
    generated, reference = normal(rng, 40, 6), normal(rng, 30, 6)
    generated[:, 2], reference[:, 2] = 0, 0
    alive = [0, 1, 3, 4, 5]
    expected = frechet_distance(generated[:, alive], reference[:, alive])
    assert frechet_distance(generated, reference) == pytest.approx(expected, rel=FLOAT64)


def test_fid_of_a_set_with_itself_is_zero(rng):
    features = normal(rng, 40, 6)
    assert frechet_distance(features, features) == pytest.approx(0, abs=FLOAT64)


@pytest.mark.parametrize("num_images", [5, 20])
def test_covariance_root_squares_to_the_unbiased_covariance(rng, num_images):
    features = normal(rng, num_images, 8)
    root = covariance_root(features)
    torch.testing.assert_close(root.T @ root, features.T.cov())
    assert len(root) == min(num_images, 8)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["generated", "reference"])
def test_fid_of_features_that_are_not_finite_raises(rng, bad, side):
    features = {"generated": normal(rng, 9, 3), "reference": normal(rng, 9, 3)}
    features[side][4, 1] = bad
    with pytest.raises(MetricError, match=side):
        frechet_distance(**features)
