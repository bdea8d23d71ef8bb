import math

import pytest
import scipy.stats
import torch

from collapse_bench.metrics.functional.classes import class_counts, class_kl, num_classes_covered
from collapse_bench.metrics.functional.intervals import normal_interval, wilson_interval


def test_class_counts_are_those_of_the_most_probable_class():
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0]])
    assert class_counts(probabilities).tolist() == [1, 2, 0]


def test_class_kl_equals_that_of_scipy(rng):
    generated, reference = torch.randint(1, 100, (2, 10), generator=rng)
    expected = scipy.stats.entropy(generated.numpy(), reference.numpy())
    assert class_kl(generated, reference) == pytest.approx(expected, rel=1e-12)


def test_class_kl_of_lost_classes_is_the_log_of_what_is_left():
    assert class_kl(torch.tensor([7, 0, 0, 0]), torch.tensor([5, 5, 5, 5])) == pytest.approx(math.log(4))


def test_class_kl_is_infinite_where_the_reference_lacks_a_generated_class():
    assert class_kl(torch.tensor([3, 1]), torch.tensor([4, 0])) == math.inf
    assert class_kl(torch.tensor([3, 0]), torch.tensor([4, 0])) == 0


def multinomial(shares, num_images, rng):
    return torch.multinomial(shares, num_images, replacement=True, generator=rng).bincount(minlength=len(shares))


def test_class_kl_is_chi_square_against_known_shares(rng):
    shares = torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1])
    known, num_images, num_repeats = (shares * 10**9).long(), 2000, 2000
    statistics = [2 * num_images * class_kl(multinomial(shares, num_images, rng), known) for _ in range(num_repeats)]
    assert scipy.stats.kstest(statistics, scipy.stats.chi2(4).cdf).pvalue > 1e-3


def test_class_kl_against_a_finite_reference_has_the_mean_of_both_sample_sizes(rng):
    shares, n, m = torch.full((5,), 0.2), 1000, 500
    draws = torch.tensor([class_kl(multinomial(shares, n, rng), multinomial(shares, m, rng)) for _ in range(2000)])
    # The next order in 1/n and 1/m is about a hundredth of the mean.
    expected = 4 / 2 * (1 / n + 1 / m)
    assert draws.mean().item() == pytest.approx(expected, abs=4 * draws.std().item() / 2000**0.5 + 0.01 * expected)


def test_classes_are_covered_from_a_part_of_their_reference_share_on():
    reference = torch.tensor([500, 300, 200, 0])
    generated = torch.tensor([970, 30, 0, 0])
    assert num_classes_covered(generated, reference, 0.1) == 2
    assert num_classes_covered(generated, reference, 0.11) == 1
    assert num_classes_covered(reference, reference, 1.0) == 3


@pytest.mark.parametrize(("count", "total"), [(0, 1), (0, 450), (1, 450), (45, 450), (449, 450), (450, 450)])
def test_wilson_interval_equals_that_of_scipy(count, total):
    expected = scipy.stats.binomtest(count, total).proportion_ci(method="wilson")
    assert wilson_interval(count, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_normal_interval_has_95_percent():
    assert normal_interval(2.0, 0.5) == pytest.approx(scipy.stats.norm(2.0, 0.5).interval(0.95))
