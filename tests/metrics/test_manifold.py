import math

import numpy as np
import pytest
import scipy.stats
import torch
from prdc import compute_prdc

from collapse_bench.errors import MetricError
from collapse_bench.metrics.functional import neighbours
from collapse_bench.metrics.functional.manifold import (
    EXPECTED_DENSITY,
    ManifoldScores,
    balls,
    expected_coverage,
    manifold_scores,
    overlap,
    shares_of_classes,
)
from collapse_bench.metrics.functional.neighbours import ROUNDING, Points, distinct, nearest_distances, squared_radii
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.metrics.manifold import Manifold
from collapse_bench.pool import UNLABELLED

# Scores are counts over counts: equal decisions give equal scores up to the last bit of a division.
COUNTS = 1e-12


def brute_squared(left, right):
    return torch.stack([(row - right).square().sum(1) for row in left.double()])


def brute_radii(points, k):
    distinct_points, owner = torch.unique(points.double(), dim=0, return_inverse=True)
    squared = brute_squared(distinct_points, distinct_points).fill_diagonal_(torch.inf)
    k = min(k, len(distinct_points) - 1)
    return (squared.sort(1).values[:, k - 1] if k else torch.zeros(1).double())[owner]


def brute_scores(generated, reference, k):
    """The definition: every distance by float64 differences, no product, no block."""
    squared = brute_squared(generated.double(), reference.double())
    inside = squared <= brute_radii(reference, k) * ROUNDING
    recalled = (squared <= (brute_radii(generated, k) * ROUNDING)[:, None]).any(0)
    return ManifoldScores(
        precision=inside.any(1).double().mean().item(),
        recall=recalled.double().mean().item(),
        density=inside.sum().item() / (k * len(generated)),
        coverage=inside.any(0).double().mean().item(),
    )


@pytest.mark.parametrize("num_neighbours", [1, 3, 5])
@pytest.mark.parametrize(("num_generated", "num_features"), [(300, 2), (700, 16), (400, 600)])
def test_manifold_scores_equal_those_of_prdc(rng, num_generated, num_features, num_neighbours):
    reference = torch.randn(500, num_features, generator=rng, dtype=torch.float64)
    generated = 0.9 * torch.randn(num_generated, num_features, generator=rng, dtype=torch.float64) + 0.1
    expected = compute_prdc(reference.numpy(), generated.numpy(), num_neighbours)
    assert manifold_scores(generated, reference, num_neighbours)._asdict() == pytest.approx(expected, rel=COUNTS)


def tied(rng, num_images, num_features):
    """Whole numbers, of which many are at equal distances."""
    return (2 * torch.randn(num_images, num_features, generator=rng)).round()


def binary(rng, num_images, num_features):
    return (torch.randn(num_images, num_features, generator=rng) > 0).float()


def one_hot(rng, num_images, num_features):
    """All different points are at one distance."""
    return torch.eye(num_features)[torch.randint(num_features, (num_images,), generator=rng)]


def far_out(rng, num_images, num_features):
    return tied(rng, num_images, num_features) + 1000


def tiny(rng, num_images, num_features):
    """Squared norms that float32 cannot hold."""
    return tied(rng, num_images, num_features) * 2.0**-80


def vast(rng, num_images, num_features):
    """Squared norms that overflow in float32."""
    return tied(rng, num_images, num_features) * 2.0**80


def repeated(rng, num_images, num_features):
    return torch.randn(30, num_features, generator=rng)[torch.randint(30, (num_images,), generator=rng)]


@pytest.mark.parametrize("kind", [tied, binary, one_hot, far_out, tiny, vast, repeated], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("num_features", [1, 8, 64, 300])
@pytest.mark.parametrize("num_neighbours", [1, 5])
def test_ties_and_duplicates_are_decided_as_in_float64(rng, kind, num_features, num_neighbours):
    generated, reference = kind(rng, 250, num_features), kind(rng, 300, num_features)
    expected = brute_scores(generated, reference, num_neighbours)
    assert manifold_scores(generated, reference, num_neighbours) == pytest.approx(expected, rel=COUNTS)


@pytest.mark.parametrize("num_features", [8, 700])
def test_near_ties_are_decided_as_in_float64(rng, num_features):
    # Generated images on the border of a ball, moved in or out by less than float32 can tell.
    reference = torch.randn(200, num_features, generator=rng, dtype=torch.float64)
    radii = brute_radii(reference, 3).sqrt()
    direction = torch.nn.functional.normalize(torch.randn(200, num_features, generator=rng).double(), dim=1)
    side = 1 + 1e-8 * torch.where(torch.rand(200, generator=rng) < 0.5, -1, 1).double()
    generated = reference + direction * (radii * side)[:, None]
    scores = manifold_scores(generated, reference, 3)
    assert scores == pytest.approx(brute_scores(generated, reference, 3), rel=COUNTS)
    in_own_ball = brute_squared(generated, reference).diagonal() <= brute_radii(reference, 3)
    assert torch.equal(in_own_ball, side < 1)


def test_a_generator_far_beyond_the_range_of_float32_products_is_outside(rng):
    reference = torch.randn(100, 4, generator=rng)
    generated = 1e25 * torch.randn(100, 4, generator=rng)
    assert manifold_scores(generated, reference) == brute_scores(generated, reference, 5)


def test_products_of_less_than_single_precision_are_not_used(rng):
    reference, generated = torch.randn(2, 200, 16, generator=rng)
    expected = manifold_scores(generated, reference)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert Points(reference).bounds(generated).lower.dtype == torch.float64
        assert manifold_scores(generated, reference) == expected
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("num_features", [3, 600, 1500])
def test_bounds_lie_on_both_sides_of_the_distance_and_close_to_it(rng, num_features):
    points = 3 + torch.randn(150, num_features, generator=rng)
    queries = 3 + 5 * torch.randn(100, num_features, generator=rng)
    prepared = Points(points)
    bounds = prepared.bounds(queries)
    squared = brute_squared(queries, points.double())
    upper = bounds.lower + prepared.slack(bounds.norms)[:, None] + prepared.slack(prepared.norms)
    assert bounds.lower.dtype == torch.float32
    assert (bounds.lower <= squared).all()
    assert (upper >= squared).all()
    # Products of at most 768 terms of float32, above and below, on the squared norms of both.
    assert (upper - bounds.lower).max() <= 2 * 800 * 2**-23 * (bounds.norms.max() + prepared.norms.max())


def test_no_score_depends_on_the_size_of_the_blocks(rng, monkeypatch):
    reference, generated = torch.randn(2, 230, 40, generator=rng)
    expected = manifold_scores(generated, reference)
    for size in (2**11, 1):  # one of several queries, and one query at a time
        monkeypatch.setattr(neighbours, "_BLOCK", size)
        assert manifold_scores(generated, reference) == expected
    monkeypatch.setattr(neighbours, "_BLOCK", 2**11)
    monkeypatch.setattr(neighbours, "_SYMMETRIC_FROM", 1)
    assert manifold_scores(generated, reference) == expected
    monkeypatch.setattr(neighbours, "_TERMS", 16)
    assert manifold_scores(generated, reference) == expected


def test_symmetric_search_over_several_blocks_finds_the_radii_of_a_sorted_distance_matrix(rng):
    points = torch.randn(1100, 260, generator=rng)
    torch.testing.assert_close(squared_radii(points, 4), brute_radii(points, 4), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("num_columns", "k"), [(10, 10), (3001, 3), (6000, 1), (6002, 7)])
def test_the_smallest_numbers_of_a_row_are_those_of_the_sorted_row(rng, num_columns, k):
    # Whole numbers, so that many are equal.
    rows = (100 * torch.randn(40, num_columns, generator=rng)).round()
    values, columns = neighbours._smallest(rows, k)
    assert torch.equal(values, rows.sort(1).values[:, :k])
    assert torch.equal(rows.gather(1, columns), values)
    assert all(len(set(row)) == k for row in columns.tolist())


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
    once_more = generated.repeat(10, 1)
    assert manifold_scores(once_more, reference) == pytest.approx(manifold_scores(generated, reference), rel=COUNTS)
    assert compute_prdc(reference.numpy(), once_more.numpy(), 5)["recall"] == 0


def test_one_repeated_point_has_no_recall_and_covers_only_the_balls_around_it(rng):
    reference = torch.randn(300, 4, generator=rng)
    scores = manifold_scores(torch.zeros(200, 4), reference)
    assert (scores.precision, scores.recall) == (1.0, 0.0)
    assert scores.coverage == pytest.approx(scores.density * 5 / 300)


NUM_DRAWS = 250


@pytest.mark.parametrize(("num_reference", "num_generated", "num_neighbours"), [(60, 40, 5), (30, 90, 1)])
def test_density_coverage_and_coverage_of_classes_have_their_exact_means_when_the_laws_agree(
    rng, num_reference, num_generated, num_neighbours
):
    draws = []
    for _ in range(NUM_DRAWS):
        reference = torch.rand(num_reference, 3, generator=rng) ** 2
        generated = torch.rand(num_generated, 3, generator=rng) ** 2
        found = overlap(balls(generated, num_neighbours), balls(reference, num_neighbours))
        # Classes that lie in one place each; the rare one has a tenth of the images.
        rare = reference[:, 0] > 0.9**2
        surplus = found.covered.double() - expected_coverage(num_reference, num_generated, num_neighbours)
        density = found.num_inside / (num_neighbours * num_generated)
        draws.append((density - EXPECTED_DENSITY, surplus.mean(), surplus[rare].sum(), surplus[~rare].sum()))
    # Sums over a class, not means: the number of its images varies from draw to draw.
    for surplus in np.array(draws).T:
        assert surplus.mean() == pytest.approx(0, abs=4 * surplus.std() / math.sqrt(NUM_DRAWS))


def test_the_number_of_images_in_a_ball_is_beta_binomial_when_the_laws_agree(rng):
    n, m, k, num_draws = 20, 12, 3, 800
    counts = np.zeros(m + 1)
    for _ in range(num_draws):
        reference, generated = balls(torch.randn(n, 4, generator=rng), k), torch.randn(m, 4, generator=rng)
        # One ball per draw, because those of one draw are not independent.
        inside = brute_squared(generated, reference.centres[:1].double()) <= reference.squared_radii[:1]
        counts[int(inside.sum())] += 1
    expected = num_draws * scipy.stats.betabinom(m, k, n - k).pmf(np.arange(m + 1))
    # Chi-square wants at least five expected per cell: the last cells are one.
    many = expected >= 5
    observed, wanted = (np.append(x[many], x[~many].sum()) for x in (counts, expected))
    assert scipy.stats.chisquare(observed, wanted).pvalue > 1e-3


def test_expected_coverage_of_one_neighbour_and_equal_counts_is_about_one_half():
    assert expected_coverage(10**9, 10**9, 1) == pytest.approx(0.5)
    assert expected_coverage(2, 3, 1) == pytest.approx(1 - 1 / 4)


def test_radii_are_those_of_a_sorted_distance_matrix(rng):
    points = torch.randn(600, 5, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(squared_radii(points, 3), brute_radii(points, 3), rtol=1e-12, atol=0)


def test_radii_of_too_few_distinct_points_reach_the_farthest():
    points = torch.tensor([[0.0], [0.0], [0.0], [2.0]])
    assert balls(points, 3).squared_radii[balls(points, 3).owner].tolist() == [4, 4, 4, 4]
    assert balls(points[:3], 3).squared_radii.tolist() == [0]


@pytest.mark.parametrize("num_neighbours", [1, 4, 400])
def test_nearest_distances_are_those_of_a_distance_matrix(rng, num_neighbours):
    queries = torch.randn(300, 5, generator=rng, dtype=torch.float64)
    points = torch.randn(400, 5, generator=rng, dtype=torch.float64)
    expected = brute_squared(queries, points).sqrt().sort(1).values[:, num_neighbours - 1]
    torch.testing.assert_close(nearest_distances(queries, points, num_neighbours), expected)


def test_distinct_rows_ignore_the_sign_of_zero_and_give_every_row_back():
    rows = torch.tensor([[0.0, 1.0], [2.0, 3.0], [-0.0, 1.0], [2.0, 3.0], [0.0, 1.5]])
    unique, owner = distinct(rows)
    assert len(unique) == 3
    assert torch.equal(unique[owner], rows)


def test_shares_of_classes_leave_out_images_without_label_and_are_nan_without_images():
    covered = torch.tensor([True, False, True, True, False])
    shares = shares_of_classes(covered, torch.tensor([0, 0, 2, UNLABELLED, 2]))
    assert shares[0] == shares[2] == 0.5
    assert math.isnan(shares[1])


def scored(generated, reference, labels=None, k=5):
    labels = torch.zeros(len(reference)).long() if labels is None else labels
    metric = Manifold(num_neighbours=k)
    metric.update(ImageSet(features=generated, labels=torch.full((len(generated),), UNLABELLED)), side="generated")
    metric.update(ImageSet(features=reference, labels=labels), side="reference")
    return metric.compute()


def test_numbers_of_the_metric_are_those_of_the_functions_and_carry_their_exact_means(rng):
    generated, reference = torch.randn(120, 3, generator=rng), torch.randn(100, 3, generator=rng)
    labels = torch.randint(0, 3, (100,), generator=rng)
    scores = scored(generated, reference, labels, k=2)
    expected = manifold_scores(generated, reference, 2)
    covered = overlap(balls(generated, 2), balls(reference, 2)).covered
    assert {name: scores[name].value for name in expected._fields} == expected._asdict()
    assert scores["density"].null == 1
    null = expected_coverage(100, 120, 2)
    assert {scores[name].null for name in ("coverage", *(f"class_coverage_{label}" for label in range(3)))} == {null}
    by_class = [covered[labels == label].double().mean().item() for label in range(3)]
    assert [scores[f"class_coverage_{label}"].value for label in range(3)] == pytest.approx(by_class)
    assert scores["lowest_class_coverage"].value == pytest.approx(min(by_class))
    assert scores["lowest_class_coverage"].null is None
    assert scores["precision"].low < scores["precision"].value < scores["precision"].high
    assert (scores["coverage"].low, scores["density"].low) == (None, None)


def test_a_lost_class_takes_its_coverage_and_recall_to_zero(rng):
    labels = torch.tensor([0] * 190 + [1] * 10)
    reference = torch.randn(200, 3, generator=rng) + 100 * labels[:, None]
    scores = scored(torch.randn(200, 3, generator=rng), reference, labels)
    assert scores["coverage"].value > 0.85
    assert scores["lowest_class_coverage"].value == scores["class_coverage_1"].value == 0
    assert scores["lowest_class_recall"].value == 0


def test_without_labels_there_are_no_numbers_of_classes(rng):
    generated, reference = torch.randn(2, 50, 3, generator=rng)
    assert set(scored(generated, reference, torch.full((50,), UNLABELLED))) == {*ManifoldScores._fields}


@pytest.mark.parametrize("side", ["generated", "reference"])
def test_too_few_images_for_the_neighbours_raise(rng, side):
    both = {"generated": torch.randn(30, 2, generator=rng), "reference": torch.randn(30, 2, generator=rng)}
    both[side] = both[side][:5]
    with pytest.raises(MetricError, match=f"5 {side} images"):
        scored(**both, k=5)
