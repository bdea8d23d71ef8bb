import math

import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import _compute_fid

from collapse_bench.errors import MetricError
from collapse_bench.metrics.frechet import FrechetDistance
from collapse_bench.metrics.functional.frechet import (
    Moments,
    blocks_of_moments,
    extrapolated_distance,
    frechet_distance,
    frechet_distance_of_gaussians,
    moments,
)
from collapse_bench.metrics.image_set import ImageSet

FLOAT64 = 1e-12
"""Relative tolerance of float64 arithmetic over some thousand operations."""


def normal(rng, num_images, num_features, dtype=torch.float64):
    return torch.randn(num_images, num_features, generator=rng, dtype=dtype)


def test_fid_equals_the_closed_form_of_diagonal_gaussians(rng):
    mean_1, mean_2 = normal(rng, 2, 6)
    a, b = normal(rng, 2, 6).square()
    expected = (mean_1 - mean_2).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    got = frechet_distance_of_gaussians(Moments(mean_1, a.sqrt().diag()), Moments(mean_2, b.sqrt().diag()))
    assert got == pytest.approx(expected.item(), rel=FLOAT64)


def test_fid_equals_the_closed_form_of_two_dimensional_gaussians(rng):
    root_1, root_2, zero = normal(rng, 2, 2).triu(), normal(rng, 3, 2).triu(), torch.zeros(2, dtype=torch.float64)
    product = root_1.T @ root_1 @ root_2.T @ root_2
    trace_term = math.sqrt(product.trace() + 2 * math.sqrt(product.det()))
    expected = root_1.square().sum().item() + root_2.square().sum().item() - 2 * trace_term
    assert frechet_distance_of_gaussians(Moments(zero, root_1), Moments(zero, root_2)) == pytest.approx(
        expected, rel=1e-10
    )


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
def test_the_root_squares_to_the_unbiased_covariance(rng, num_images):
    features = normal(rng, num_images, 8)
    root = moments(features).root
    torch.testing.assert_close(root.T @ root, features.T.cov())
    assert len(root) == min(num_images, 8)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["generated", "reference"])
def test_fid_of_features_that_are_not_finite_raises(rng, bad, side):
    features = {"generated": normal(rng, 9, 3), "reference": normal(rng, 9, 3)}
    features[side][4, 1] = bad
    with pytest.raises(MetricError, match=side):
        frechet_distance(**features)


def test_fid_equals_that_of_the_matrix_square_root(rng):
    generated, reference = normal(rng, 300, 16), 1.5 * normal(rng, 400, 16) + 0.2
    product = scipy.linalg.sqrtm((generated.T.cov() @ reference.T.cov()).numpy())
    means = (generated.mean(0) - reference.mean(0)).square().sum().item()
    expected = means + generated.var(0).sum().item() + reference.var(0).sum().item() - 2 * product.trace().real
    # The square root of a matrix that is not symmetric costs some digits.
    assert frechet_distance(generated, reference) == pytest.approx(expected, rel=1e-9)


def test_fid_does_not_depend_on_which_side_is_which(rng):
    generated, reference = normal(rng, 30, 40), 2 * normal(rng, 90, 40)
    assert frechet_distance(generated, reference) == pytest.approx(frechet_distance(reference, generated), rel=FLOAT64)


@pytest.mark.parametrize(("num_generated", "num_dead"), [(400, 0), (400, 60), (280, 0)])
def test_fid_through_squares_equals_its_exact_form(rng, monkeypatch, num_generated, num_dead):
    generated, reference = normal(rng, num_generated, 300), 1.1 * normal(rng, 350, 300)
    generated[:, :num_dead] = 0
    reference[:, num_dead // 2 : num_dead] = 0
    exact = frechet_distance(generated, reference)
    monkeypatch.setattr("collapse_bench.metrics.functional.frechet._EXACT_UP_TO", 100)
    # Squares lose half of the digits: at most 2e-8 of the largest singular value, about 4, for each of 300, twice.
    assert frechet_distance(generated, reference) == pytest.approx(exact, abs=2 * 300 * 8e-8)


def extrapolated(generated, reference):
    blocks = blocks_of_moments(generated), blocks_of_moments(reference)
    return extrapolated_distance(frechet_distance(generated, reference), *blocks)


LAWS = {"same": (1.0, 0.0), "shrunk": (0.8, 0.0), "shifted": (1.0, 0.3)}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("num_features", "num_repeats"), [(8, 200), (32, 100), (64, 60)])
def test_fid_infinity_is_unbiased_where_fid_is_not_and_its_interval_holds_the_truth(
    rng, law, num_features, num_repeats
):
    scale, shift = LAWS[law]
    sd = torch.linspace(1, 0.2, num_features, dtype=torch.float64)
    truth = ((1 - scale) * sd).square().sum().item() + num_features * shift**2
    num_images, num_real, draws = 8 * num_features, 12 * num_features, []
    for _ in range(num_repeats):
        generated = scale * sd * normal(rng, num_images, num_features) + shift
        reference = sd * normal(rng, num_real, num_features)
        value, low, high = extrapolated(generated, reference)
        draws.append((frechet_distance(generated, reference) - truth, value - truth, float(low <= truth <= high)))
    biased, unbiased, holds = torch.tensor(draws, dtype=torch.float64).T
    error = 1 / math.sqrt(num_repeats)
    assert biased.mean() > 4 * biased.std() * error
    # Four standard errors, and a second-order bias that is within a part of the spread of one draw.
    assert unbiased.mean().item() == pytest.approx(0, abs=(4 * error + 0.25) * unbiased.std().item())
    assert abs(unbiased.mean()) < biased.mean() / 3
    assert holds.mean() > 0.95 - 0.03 - 4 * math.sqrt(0.95 * 0.05) * error


def test_fid_infinity_with_a_quarter_of_no_more_images_than_features_is_nan(rng):
    few, enough = normal(rng, 4 * 6 + 3, 6), normal(rng, 4 * 7, 6)
    assert all(math.isnan(number) for number in (*extrapolated(few, enough), *extrapolated(enough, few)))
    assert math.isfinite(extrapolated(enough, enough).value)


@pytest.mark.parametrize("num_images", [20, 60])
def test_the_metric_gives_both_distances_and_no_interval_where_there_is_none(rng, num_images):
    generated, reference = normal(rng, num_images, 8), normal(rng, 60, 8)
    metric = FrechetDistance()
    metric.update(ImageSet(features=generated), side="generated")
    metric.update(ImageSet(features=reference), side="reference")
    scores = metric.compute()
    assert scores["fid"].value == pytest.approx(frechet_distance(generated, reference), rel=1e-9)
    infinity = scores["fid_infinity"]
    assert math.isnan(infinity.value) == (infinity.low is None) == (num_images == 20)


@pytest.mark.parametrize("num_different", [20, 40, 80, 160])
def test_fid_infinity_of_samples_that_repeat_a_few_images_is_that_of_their_law(rng, num_different):
    """Copies of one image must not come to lie in the same part of the samples: the parts would be different laws."""
    errors = []
    for _ in range(8):
        atoms = normal(rng, num_different, 16)
        root = (atoms - atoms.mean(0)) / math.sqrt(num_different)
        truth = frechet_distance_of_gaussians(
            Moments(atoms.mean(0), torch.linalg.qr(root, mode="r").R),
            Moments(torch.zeros(16, dtype=torch.float64), torch.eye(16, dtype=torch.float64)),
        )
        metric = FrechetDistance()
        drawn = torch.randint(num_different, (450,), generator=rng)
        metric.update(ImageSet(features=atoms[drawn]), side="generated")
        metric.update(ImageSet(features=normal(rng, 450, 16)), side="reference")
        errors.append(metric.compute()["fid_infinity"].value - truth)
    mean, sd = torch.tensor(errors).mean().item(), torch.tensor(errors).std().item()
    assert mean == pytest.approx(0, abs=4 * sd / math.sqrt(8))
