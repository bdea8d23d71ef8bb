import math

import numpy as np
import pytest
import scipy.stats
import torch

from collapse_bench.errors import MetricError
from collapse_bench.metrics.functional.memorisation import median_ratio, nearest, num_authentic
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.metrics.memorisation import Memorisation
from collapse_bench.pool import REAL


def estimates(generated, reference, training, born=None):
    """All estimates, with a training pool of real images unless ``born`` says otherwise."""
    born = torch.full((len(training),), REAL) if born is None else born
    metric = Memorisation()
    metric.update(ImageSet(features=reference), side="reference")
    metric.update(ImageSet(features=training, born=born), side="training")
    metric.update(ImageSet(features=generated), side="generated")
    return metric.compute()


def values(*sides, **options):
    return {name: estimate.value for name, estimate in estimates(*sides, **options).items()}


def normal(rng, *shape):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def everywhere(points):
    return torch.ones(len(points), dtype=torch.bool)


def authentic_share(generated, training):
    return num_authentic(nearest(generated, training, everywhere(training)), training) / len(generated)


def test_nearest_equals_that_of_all_distances(rng):
    queries, points = normal(rng, 300, 4), normal(rng, 500, 4)
    among = torch.rand(500, generator=rng) < 0.4
    distances = torch.cdist(queries, points).masked_fill(~among, math.inf)
    found = nearest(queries, points, among)
    assert torch.equal(found.rows, distances.argmin(1))
    np.testing.assert_allclose(found.distances, distances.amin(1), rtol=1e-9)


def test_nearest_among_none_is_infinitely_far(rng):
    points = normal(rng, 3, 2)
    assert nearest(points, points, ~everywhere(points)).distances.tolist() == [math.inf] * 3


def test_authenticity_by_hand():
    # The training images' own nearest ones are 1, 1 and 9 away.
    training = torch.tensor([[0.0], [1.0], [10.0]]).double()
    generated = torch.tensor([[-0.5], [-1.5], [2.5], [5.0], [6.0], [20.0]]).double()
    by_image = [authentic_share(image[None], training) for image in generated]
    assert by_image == [0, 1, 1, 1, 0, 1]
    assert authentic_share(generated, training) == 4 / 6


def test_authenticity_equals_its_definition_by_all_distances(rng):
    generated, training = normal(rng, 200, 5), normal(rng, 300, 5)
    to_training = torch.cdist(generated, training)
    own = torch.cdist(training, training).fill_diagonal_(math.inf).amin(1)
    expected = (to_training.amin(1) > own[to_training.argmin(1)]).double().mean().item()
    assert authentic_share(generated, training) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("law", ["normal", "uniform", "bimodal"])
def test_authenticity_is_a_third_in_one_dimension(rng, law):
    def draw(n):
        if law == "uniform":
            return torch.rand(n, 1, generator=rng, dtype=torch.float64)
        signs = torch.randint(2, (n, 1), generator=rng) * 2 - 1
        return normal(rng, n, 1) + (4 * signs if law == "bimodal" else 0)

    shares = torch.tensor([authentic_share(draw(400), draw(400)) for _ in range(60)])
    # At the ends of the law the neighbours are on one side only: of the order of one image in 400.
    assert shares.mean().item() == pytest.approx(1 / 3, abs=4 * shares.std().item() / 60**0.5 + 2 / 400)


def test_authenticity_does_not_depend_on_how_often_the_pool_repeats_its_images(rng):
    generated, training = normal(rng, 100, 3), normal(rng, 80, 3)
    assert authentic_share(generated, training.repeat(3, 1)) == authentic_share(generated, training)


def test_a_copy_is_at_no_distance_whatever_the_rounding(rng):
    points = normal(rng, 2000, 50) * 1e3
    assert nearest(points[:300], points, everywhere(points)).distances.max() == 0


def test_authenticity_is_not_defined_where_all_training_images_are_one(rng):
    assert math.isnan(values(normal(rng, 20, 3), normal(rng, 20, 3), torch.ones(30, 3))["authenticity"])


def test_exact_copies_are_not_authentic_and_all_ratios_fall(rng):
    training, reference = 100 + normal(rng, 200, 6).float(), 100 + normal(rng, 150, 6).float()
    scores = values(training[:90], reference, training)
    assert scores["authenticity"] == 0
    # The distance of a copy is rounding of float64, relative to the spread of the features.
    assert scores["generalisation_score"] == pytest.approx(0, abs=1e-6)
    assert scores["nearest_ratio_real"] == pytest.approx(0, abs=1e-6)


def test_fresh_images_of_the_same_law_have_a_ratio_of_one_and_the_authenticity_of_held_out_ones(rng):
    ratios, gaps = [], []
    for _ in range(30):
        training, reference, generated = normal(rng, 150, 4), normal(rng, 150, 4), normal(rng, 150, 4)
        scores = values(generated, reference, training)
        ratios.append(scores["nearest_ratio_real"])
        gaps.append(scores["authenticity"] - values(reference, generated, training)["authenticity"])
    # The ratio of two noisy medians has a mean above 1 by about their relative variance.
    assert np.mean(ratios) == pytest.approx(1, abs=4 * np.std(ratios) / 30**0.5 + np.var(ratios))
    assert np.mean(gaps) == pytest.approx(0, abs=4 * np.std(gaps) / 30**0.5)


def test_generalisation_score_is_the_mean_distance_with_its_standard_error(rng):
    generated, reference, training = normal(rng, 80, 3), normal(rng, 50, 3), normal(rng, 60, 3)
    found = estimates(generated, reference, training)["generalisation_score"]
    distances = torch.cdist(generated, training).amin(1)
    assert found.value == pytest.approx(distances.mean().item(), rel=1e-9)
    expected = scipy.stats.norm(distances.mean().item(), scipy.stats.sem(distances)).interval(0.95)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)


def test_the_origin_of_the_nearest_image_is_told_apart(rng):
    real, synthetic = normal(rng, 60, 3), normal(rng, 40, 3) + 50
    training, born = torch.cat([synthetic, real]), torch.tensor([0] * 25 + [3] * 15 + [REAL] * 60)
    reference = normal(rng, 70, 3)
    generated = torch.cat([real[:30] + 0.01, synthetic[:10] + 0.01])
    scores = values(generated, reference, training, born=born)
    assert scores["nearest_is_real"] == 30 / 40
    assert scores["generalisation_score"] == pytest.approx(0.01 * math.sqrt(3))

    def median(images, points):
        return torch.cdist(images, points).amin(1).median().item()

    expected_real = median(generated, real) / median(reference, real)
    assert scores["nearest_ratio_real"] == pytest.approx(expected_real, rel=1e-6)
    expected_synthetic = median(generated, synthetic) / median(reference, synthetic)
    assert scores["nearest_ratio_synthetic"] == pytest.approx(expected_synthetic, rel=1e-6)
    # The origins do not enter the other numbers.
    plain = values(generated, reference, training)
    assert scores["authenticity"] == plain["authenticity"]
    assert scores["generalisation_score"] == pytest.approx(plain["generalisation_score"], rel=1e-9)


@pytest.mark.parametrize(("origin", "lacking"), [(REAL, "synthetic"), (2, "real")])
def test_numbers_of_an_origin_that_the_pool_lacks_are_nan(rng, origin, lacking):
    sides = (normal(rng, 20, 2), normal(rng, 20, 2), normal(rng, 20, 2))
    scores = values(*sides, born=torch.full((20,), origin))
    undefined = {name for name, value in scores.items() if math.isnan(value)}
    assert undefined == {f"nearest_ratio_{lacking}", "nearest_is_real"}


def test_a_ratio_to_held_out_images_that_were_trained_on_is_nan():
    assert math.isnan(median_ratio(torch.ones(3), torch.zeros(3)))
    assert median_ratio(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([4.0])) == 0.5


def test_another_training_pool_replaces_the_one_before(rng):
    generated, reference, one, other = (normal(rng, 30, 2) for _ in range(4))
    metric = Memorisation()
    for training in (one, other):
        metric.reset()
        metric.forget("training")
        metric.update(ImageSet(features=training, born=torch.full((30,), REAL)), side="training")
        if training is one:
            metric.update(ImageSet(features=reference), side="reference")
        metric.update(ImageSet(features=generated), side="generated")
        found = {name: repr(estimate.value) for name, estimate in metric.compute().items()}
        assert found == {name: repr(value) for name, value in values(generated, reference, training).items()}


def test_numbers_do_not_depend_on_the_order_and_are_the_same_twice(rng):
    sides = normal(rng, 30, 2), normal(rng, 40, 2), normal(rng, 50, 2)
    born = torch.tensor([REAL] * 20 + [0] * 30)
    first = values(*sides, born=born)
    assert values(*sides, born=born) == first
    assert values(*(side.flip(0) for side in sides), born=born.flip(0)) == first


def test_a_feature_that_is_not_finite_is_refused():
    images = ImageSet(features=torch.tensor([[0.0], [math.nan]]), born=torch.tensor([0, 0]))
    for side in ("generated", "reference", "training"):
        with pytest.raises(MetricError, match="first: image 1"):
            Memorisation().update(images, side=side)
