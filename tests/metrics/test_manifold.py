import math

import numpy as np
import pytest
import torch
from prdc import compute_prdc

from collapse_bench.metrics.functional.manifold import EXPECTED_DENSITY, expected_coverage, manifold_scores
from collapse_bench.metrics.functional.neighbours import nearest_distances, squared_radii


@pytest.mark.parametrize("num_neighbours", [1, 3, 5])
@pytest.mark.parametrize(("num_generated", "num_features"), [(300, 2), (700, 16)])
def test_manifold_scores_equal_those_of_prdc(rng, num_generated, num_features, num_neighbours):
    reference = torch.randn(500, num_features, generator=rng, dtype=torch.float64)
    generated = 0.8 * torch.randn(num_generated, num_features, generator=rng, dtype=torch.float64) + 0.3
    expected = compute_prdc(reference.numpy(), generated.numpy(), num_neighbours)
    assert manifold_scores(generated, reference, num_neighbours)._asdict() == pytest.approx(expected, rel=1e-12)


def test_a_large_mean_of_float32_features_does_not_matter(rng):
    # Whole numbers over 64 are exact in float32 at both places, so not even a tie may change.
    reference = (16 * torch.randn(300, 8, generator=rng)).round() / 64
    generated = (14 * torch.randn(300, 8, generator=rng)).round() / 64
    assert manifold_scores(generated + 1000, reference + 1000) == manifold_scores(generated, reference)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("num_neighbours", [1, 5])
def test_copies_of_the_reference_lie_inside_up_to_the_border(rng, offset, num_neighbours):
    reference = torch.randn(400, 12, generator=rng) + offset
    scores = manifold_scores(reference[torch.randperm(400, generator=rng)], reference, num_neighbours)
    # Each ball holds its centre and k neighbours, the last of them on the border.
    assert scores == (1.0, 1.0, (num_neighbours + 1) / num_neighbours, 1.0)


def test_repeated_samples_change_no_score_where_prdc_has_recall_zero(rng):
    reference, generated = torch.randn(2, 300, 4, generator=rng, dtype=torch.float64)
    repeated = generated.repeat(10, 1)
    assert manifold_scores(repeated, reference) == pytest.approx(manifold_scores(generated, reference), rel=1e-12)
    assert compute_prdc(reference.numpy(), repeated.numpy(), 5)["recall"] == 0


def test_one_repeated_point_has_no_recall_and_covers_only_the_balls_around_it(rng):
    reference = torch.randn(300, 4, generator=rng)
    scores = manifold_scores(torch.zeros(200, 4), reference)
    assert (scores.precision, scores.recall) == (1.0, 0.0)
    assert scores.coverage == pytest.approx(scores.density * 5 / 300)


@pytest.mark.parametrize(("num_reference", "num_generated", "num_neighbours"), [(60, 40, 5), (30, 90, 1)])
def test_density_and_coverage_have_their_exact_means_when_the_laws_agree(
    rng, num_reference, num_generated, num_neighbours
):
    draws = []
    for _ in range(400):
        reference = torch.rand(num_reference, 3, generator=rng) ** 2
        generated = torch.rand(num_generated, 3, generator=rng) ** 2
        scores = manifold_scores(generated, reference, num_neighbours)
        draws.append((scores.density, scores.coverage))
    density, coverage = np.array(draws).T
    four_errors = 4 / math.sqrt(len(draws))
    assert density.mean() == pytest.approx(EXPECTED_DENSITY, abs=four_errors * density.std())
    null = expected_coverage(num_reference, num_generated, num_neighbours)
    assert coverage.mean() == pytest.approx(null, abs=four_errors * coverage.std())


def test_expected_coverage_of_one_neighbour_and_equal_counts_is_about_one_half():
    assert expected_coverage(10**9, 10**9, 1) == pytest.approx(0.5)
    assert expected_coverage(2, 3, 1) == pytest.approx(1 - 1 / 4)


def test_radii_are_those_of_a_sorted_distance_matrix(rng):
    points = torch.randn(600, 5, generator=rng, dtype=torch.float64)
    expected = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").sort(1).values[:, 3]
    torch.testing.assert_close(squared_radii(points, 3).sqrt(), expected)


def test_radii_of_too_few_distinct_points_reach_the_farthest():
    points = torch.tensor([[0.0], [0.0], [0.0], [2.0]]).double()
    assert squared_radii(points, 3).tolist() == [4, 4, 4, 4]
    assert squared_radii(points[:3], 3).tolist() == [0, 0, 0]


def test_nearest_distances_are_those_of_a_distance_matrix(rng):
    queries = torch.randn(300, 5, generator=rng, dtype=torch.float64)
    points = torch.randn(400, 5, generator=rng, dtype=torch.float64)
    expected = torch.cdist(queries, points, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    torch.testing.assert_close(nearest_distances(queries, points), expected)
