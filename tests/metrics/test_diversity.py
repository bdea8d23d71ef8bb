import math

import numpy as np
import pytest
import scipy.special
import torch
from jaxtyping import TypeCheckError
from sklearn.neighbors import NearestNeighbors

from collapse_bench.errors import ConfigError, MetricError
from collapse_bench.metrics.diversity import NeighbourEntropy, PairwiseDistance, VendiScore
from collapse_bench.metrics.functional.diversity import (
    mean_pairwise_distance,
    neighbour_entropy,
    principal_axes,
    vendi_score,
)
from collapse_bench.metrics.image_set import ImageSet

METRICS = [VendiScore, NeighbourEntropy, PairwiseDistance]


def scored(metric, generated, reference):
    """The values of a metric for these features."""
    metric.reset()
    metric.forget("reference")
    metric.update(ImageSet(features=reference), side="reference")
    metric.update(ImageSet(features=generated), side="generated")
    return {name: estimate.value for name, estimate in metric.compute().items()}


def normal(rng, *shape):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def test_vendi_score_of_equal_orthogonal_groups_is_their_number():
    groups = torch.eye(6)[:4].repeat(5, 1) * torch.arange(1, 21)[:, None]
    assert vendi_score(groups) == pytest.approx(4, rel=1e-12)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (10, 10)])
def test_vendi_score_equals_its_definition_by_the_kernel_of_all_pairs(rng, shape):
    features = normal(rng, *shape)
    unit = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    eigenvalues = eigenvalues[eigenvalues > 1e-14]
    assert vendi_score(features) == pytest.approx(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()), rel=1e-9)


def test_vendi_score_of_one_repeated_image_is_one(rng):
    assert vendi_score(normal(rng, 1, 5).repeat(30, 1)) == pytest.approx(1, abs=1e-9)
    assert vendi_score(torch.zeros(30, 5)) == pytest.approx(1, abs=1e-9)


def test_vendi_score_counts_rows_at_the_origin_as_a_direction_of_their_own():
    assert vendi_score(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])) == pytest.approx(3)


def test_entropy_by_hand():
    # Distances to the nearest other point: 1, 1, 2. psi(3) - psi(1) = 1 + 1/2, and the unit ball of the line is 2 long.
    points = torch.tensor([[0.0], [1.0], [3.0]])
    assert neighbour_entropy(points, 1) == pytest.approx(1.5 + math.log(2) + math.log(2) / 3)


@pytest.mark.parametrize("num_features", [1, 3, 8])
def test_entropy_equals_its_definition_with_other_neighbours(rng, num_features):
    points = normal(rng, 300, num_features) + 50
    radii = NearestNeighbors(n_neighbors=5).fit(points).kneighbors(points)[0][:, 4]  # the first neighbour is itself
    volume = math.pi ** (num_features / 2) / scipy.special.gamma(num_features / 2 + 1)
    expected = scipy.special.psi(300) - scipy.special.psi(4) + np.log(volume * radii**num_features).mean()
    assert neighbour_entropy(points, 4) == pytest.approx(expected, rel=1e-9)


def entropies(draw, num_neighbours, num_repeats=60):
    return torch.tensor([neighbour_entropy(draw(), num_neighbours) for _ in range(num_repeats)], dtype=torch.float64)


@pytest.mark.parametrize("num_neighbours", [3, 5])
@pytest.mark.parametrize("num_features", [1, 2])
def test_entropy_of_a_gaussian_is_its_closed_form(rng, num_features, num_neighbours):
    sd = torch.tensor([2.0, 0.5])[:num_features]
    found = entropies(lambda: sd * normal(rng, 400, num_features) + 7, num_neighbours)
    expected = num_features / 2 * math.log(2 * math.pi * math.e) + sd.log().sum().item()
    # The bias is of the order of the mass k/n of a ball, more in the tails: -0.032 at most over 1,500 repeats.
    assert found.mean().item() == pytest.approx(expected, abs=4 * found.std().item() / len(found) ** 0.5 + 0.035)


def test_entropy_of_a_uniform_law_is_the_log_of_its_length(rng):
    found = entropies(lambda: 3 * torch.rand(400, 1, generator=rng, dtype=torch.float64), 3)
    # The balls of the outermost points reach beyond the ends, a bias of the order of k/n: 0.0035 over 1,500 repeats.
    assert found.mean().item() == pytest.approx(math.log(3), abs=4 * found.std().item() / len(found) ** 0.5 + 0.0075)


def test_entropy_of_scaled_points_grows_by_the_log_of_the_scale(rng):
    points = normal(rng, 300, 3)
    assert neighbour_entropy(5 * points, 4) == pytest.approx(neighbour_entropy(points, 4) + 3 * math.log(5), abs=1e-9)


def test_entropy_is_not_defined_where_an_image_is_there_more_than_k_times(rng):
    points = normal(rng, 50, 3)
    assert math.isfinite(neighbour_entropy(torch.cat([points, points[:1].repeat(2, 1)]), 3))
    assert math.isnan(neighbour_entropy(torch.cat([points, points[:1].repeat(3, 1)]), 3))
    assert math.isnan(neighbour_entropy(torch.cat([points, points[:1] + 1e-8 * normal(rng, 3, 3)]), 3))


def test_principal_axes_are_those_of_the_covariance(rng):
    features = normal(rng, 200, 5) * torch.tensor([1.0, 9.0, 0.1, 4.0, 1e-9])
    projected = principal_axes(features, 2).project(features)
    largest = np.linalg.eigvalsh(np.cov(features.numpy().T))[-2:]
    np.testing.assert_allclose(np.cov(projected.numpy().T), np.diag(largest), atol=1e-9)
    assert principal_axes(features, 5).directions.shape == (5, 4)  # the last one does not vary
    assert principal_axes(torch.ones(4, 3), 2).directions.shape == (3, 0)


def test_mean_pairwise_distance_equals_that_of_torch(rng):
    features = normal(rng, 300, 7) + 100
    assert mean_pairwise_distance(features) == pytest.approx(torch.pdist(features).mean().item(), rel=1e-10)


def test_mean_pairwise_distance_of_a_gaussian_is_its_closed_form(rng):
    # |x - y| of a standard normal in d dimensions is sqrt(2) chi_d.
    draws = [mean_pairwise_distance(normal(rng, 200, 3)) for _ in range(50)]
    expected = math.sqrt(2) * math.sqrt(2) * math.gamma(2) / math.gamma(1.5)
    assert np.mean(draws) == pytest.approx(expected, abs=4 * np.std(draws) / 50**0.5)


def test_shrunk_images_have_a_distance_ratio_of_the_shrinkage_and_an_entropy_gap_of_its_log(rng):
    real = normal(rng, 300, 4)
    assert scored(PairwiseDistance(), 0.5 * real + 3, real)["mean_pairwise_distance_ratio"] == pytest.approx(0.5)
    gap = scored(NeighbourEntropy(num_components=3), 0.5 * real, real)["knn_entropy_gap"]
    assert gap == pytest.approx(3 * math.log(0.5), abs=1e-6)


def test_entropy_gap_is_near_zero_when_the_laws_agree_at_unequal_sizes(rng):
    gaps = torch.tensor(
        [
            scored(NeighbourEntropy(), normal(rng, 300, 3), normal(rng, size, 3))["knn_entropy_gap"]
            for size in (250, 900) * 15
        ]
    )
    assert gaps.mean().item() == pytest.approx(0, abs=4 * gaps.std().item() / len(gaps) ** 0.5)


def test_entropy_gap_is_the_difference_of_two_entropies_of_equally_many_images(rng):
    generated, real = normal(rng, 80, 12) + 5, normal(rng, 200, 12) * torch.arange(1, 13)
    axes = principal_axes(real, 8)
    first = real[ImageSet(features=real).order_keys.argsort(stable=True)][:80]
    expected = neighbour_entropy(axes.project(generated), 5) - neighbour_entropy(axes.project(first), 5)
    assert scored(NeighbourEntropy(), generated, real)["knn_entropy_gap"] == pytest.approx(expected, abs=1e-9)


def test_vendi_takes_the_directions_from_the_real_mean(rng):
    generated, real = normal(rng, 60, 5), normal(rng, 90, 5)
    expected = vendi_score(generated - real.mean(0))
    assert scored(VendiScore(), generated + 1000, real + 1000)["vendi"] == pytest.approx(expected, rel=1e-9)


def test_entropy_gap_is_a_little_negative_where_the_axes_are_chosen_by_chance(rng):
    # All directions vary alike, and the axes are those in which the reference varies most: hence the floor.
    gaps = [scored(NeighbourEntropy(), normal(rng, 300, 32), normal(rng, 300, 32))["knn_entropy_gap"] for _ in range(8)]
    assert -2 < np.mean(gaps) < -4 * np.std(gaps) / 8**0.5


def test_a_lost_class_lowers_and_noise_raises_the_diversity(rng, mixture):
    real = mixture.fresh(500, rng).features
    fresh = mixture.fresh(500, rng).features
    lost = mixture.draw(mixture.classes(500, rng).clamp(min=3), rng)
    noisy = mixture.draw(mixture.classes(500, rng), rng, sd=2.0)
    for metric in METRICS:
        floor, low, high = (next(iter(scored(metric(), images, real).values())) for images in (fresh, lost, noisy))
        assert low < floor < high


@pytest.mark.parametrize("metric", METRICS)
def test_numbers_do_not_depend_on_the_order_and_are_the_same_twice(rng, mixture, metric):
    generated, real = mixture.fresh(90, rng).features, mixture.fresh(120, rng).features
    first = scored(metric(), generated, real)
    again = metric()
    assert scored(again, generated.flip(0), real.flip(0)) == first
    again._computed = None
    assert {name: estimate.value for name, estimate in again.compute().items()} == first


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_kept_of_the_reference_is_dropped_with_it(rng, mixture, metric):
    generated, one, other = (mixture.fresh(60, rng).features for _ in range(3))
    used = metric()
    scored(used, generated, one)
    assert scored(used, generated, other) == scored(metric(), generated, other)


@pytest.mark.parametrize("metric", METRICS)
def test_real_images_that_are_all_equal_raise_no_bare_error(rng, metric):
    value = next(iter(scored(metric(), torch.randn(20, 3, generator=rng), torch.ones(20, 3)).values()))
    assert math.isnan(value) == (metric is not VendiScore)


@pytest.mark.parametrize("metric", METRICS)
def test_a_feature_that_is_not_finite_is_refused(metric):
    with pytest.raises(MetricError, match="first: image 1"):
        metric().update(ImageSet(features=torch.tensor([[0.0], [math.nan]])), side="generated")


def test_too_few_images_for_the_neighbours_are_refused(rng):
    with pytest.raises(MetricError, match="5 images on a side for num_neighbours=5"):
        scored(NeighbourEntropy(), torch.randn(5, 3, generator=rng), torch.randn(50, 3, generator=rng))


@pytest.mark.parametrize("argument", ["num_neighbours", "num_components"])
@pytest.mark.parametrize("value", [0, -1, True, 2.0, "3"])
def test_arguments_are_refused_by_name(argument, value):
    with pytest.raises((ConfigError, TypeCheckError), match=argument):
        NeighbourEntropy(**{argument: value})
