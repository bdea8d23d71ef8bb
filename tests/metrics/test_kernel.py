import itertools
import math

import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from collapse_bench.metrics.functional.kernel import kernel_distance, kernel_fit
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.metrics.kernel import KernelDistance


def all_samples(points, num_p, num_q, p, q):
    """Every pair of samples of two small discrete laws, with its chance."""
    for left in itertools.product(range(len(points)), repeat=num_p):
        for right in itertools.product(range(len(points)), repeat=num_q):
            chance = math.prod(p[i] for i in left) * math.prod(q[j] for j in right)
            yield chance, kernel_distance(points[list(left)], points[list(right)])


def test_kid_is_exactly_unbiased_over_all_samples_of_a_small_law():
    points, p, q = torch.tensor([[-1.0], [0.5], [2.0]]).double(), [0.2, 0.5, 0.3], [0.6, 0.1, 0.3]
    kernel = (points @ points.T + 1) ** 3
    difference = torch.tensor(p, dtype=torch.float64) - torch.tensor(q, dtype=torch.float64)
    mean = sum(chance * distance.value for chance, distance in all_samples(points, 3, 2, p, q))
    assert mean == pytest.approx((difference @ kernel @ difference).item(), rel=1e-12)


@pytest.mark.parametrize("q", [(0.6, 0.4), (0.3, 0.7)])
def test_variance_of_kid_is_exactly_unbiased_over_all_samples_of_a_small_law(q):
    points, p = torch.tensor([[-1.0, 0.3], [0.5, 1.0]]).double(), (0.3, 0.7)
    samples = list(all_samples(points, 4, 5, p, q))
    mean = sum(chance * distance.value for chance, distance in samples)
    variance = sum(chance * (distance.value - mean) ** 2 for chance, distance in samples)
    claimed = sum(chance * (distance.first_order + distance.second_order) for chance, distance in samples)
    assert claimed == pytest.approx(variance, rel=1e-12)
    if p == q:
        assert sum(chance * distance.first_order for chance, distance in samples) == pytest.approx(0, abs=1e-12)


def test_kid_of_equal_counts_equals_that_of_torchmetrics(rng):
    generated, reference = torch.randn(2, 300, 8, generator=rng, dtype=torch.float64)
    expected = poly_mmd(reference, generated + 0.3)
    assert kernel_distance(generated + 0.3, reference).value == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize(("shift", "num_features"), [(0.0, 1), (0.0, 6), (0.1, 6), (1.0, 6)])
def test_standard_error_of_kid_is_its_spread_over_repeats(rng, shift, num_features):
    draws = [
        kernel_distance(
            torch.randn(50, num_features, generator=rng) + shift, torch.randn(90, num_features, generator=rng)
        )
        for _ in range(500)
    ]
    values = torch.tensor([distance.value for distance in draws], dtype=torch.float64)
    errors = torch.tensor([distance.standard_error for distance in draws], dtype=torch.float64)
    deviations = (values - values.mean()).square()
    spread, claimed = deviations.mean(), errors.square().mean()
    noise = math.sqrt((deviations.var() + errors.square().var()) / len(draws))
    assert claimed > spread - 4 * noise
    # Near equality a negative first-order part is cut off, which may enlarge the error but by less than a half.
    assert claimed < spread * (1.5**2 if shift < 0.5 else 1) + 4 * noise


def kid_of_unit_normals(shift, num_features):
    """The truth for N(shift 1, I) against N(0, I): the moments of x.y up to the third."""
    d, a = num_features, num_features * shift**2
    generated = (1 + a / d) ** 3 + 3 * (1 + a / d) * (d + 2 * a) / d**2 + 6 * a / d**3
    return generated + (1 + 3 / d) - 2 * (1 + 3 * (a + d) / d**2)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_interval_of_kid_holds_the_truth_at_least_nearly_95_times_in_100(rng, shift):
    truth, num_repeats, holds = kid_of_unit_normals(shift, 6), 400, 0
    for _ in range(num_repeats):
        distance = kernel_distance(torch.randn(50, 6, generator=rng) + shift, torch.randn(90, 6, generator=rng))
        holds += abs(distance.value - truth) <= 1.96 * distance.standard_error
    # Three points for the skewness that 50 images leave, and four standard errors of a share.
    assert holds / num_repeats > 0.95 - 0.03 - 4 * math.sqrt(0.95 * 0.05 / num_repeats)


def test_kid_of_many_images_equals_the_closed_form_of_normals(rng):
    generated, reference = torch.randn(2, 3000, 6, generator=rng, dtype=torch.float64)
    distance = kernel_distance(generated + 0.5, reference)
    assert distance.value == pytest.approx(kid_of_unit_normals(0.5, 6), abs=4 * distance.standard_error)


def test_kid_of_fewer_than_four_images_has_no_standard_error(rng):
    distance = kernel_distance(torch.randn(3, 4, generator=rng), torch.randn(9, 4, generator=rng))
    assert math.isfinite(distance.value)
    assert math.isnan(distance.standard_error)


@pytest.mark.parametrize("num_images", [2, 5, 600])
def test_a_fit_of_one_set_is_that_of_its_whole_kernel_matrix_without_diagonal(rng, num_images):
    # More images than a block has rows, so that both triangles of a symmetric matrix come from one.
    points = torch.randn(num_images, 7, generator=rng, dtype=torch.float64)
    kernel = (points @ points.T / 7 + 1) ** 3
    off = ~torch.eye(num_images, dtype=torch.bool)
    fit = kernel_fit(points)
    assert fit.mean == pytest.approx(kernel[off].mean().item(), rel=1e-12)
    if num_images == 5:
        # Least squares by another way: an effect per image, on every entry off the diagonal.
        row, column = off.nonzero().T
        design = torch.eye(num_images).double()[row] + torch.eye(num_images).double()[column]
        solution = torch.linalg.lstsq(design, kernel[off] - kernel[off].mean()).solution
        torch.testing.assert_close(fit.rows, solution)


def test_kid_of_the_metric_is_that_of_the_function_and_expects_zero(rng):
    generated, reference = torch.randn(60, 5, generator=rng), torch.randn(50, 5, generator=rng)
    metric = KernelDistance()
    metric.update(ImageSet(features=generated), side="generated")
    metric.update(ImageSet(features=reference), side="reference")
    estimate, expected = metric.compute()["kid"], kernel_distance(generated, reference)
    assert estimate.value == pytest.approx(expected.value, rel=1e-9)
    assert estimate.high - estimate.value == pytest.approx(1.959964 * expected.standard_error, rel=1e-5)
    assert estimate.null == 0
