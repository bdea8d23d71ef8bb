import math

import numpy as np
import pytest
import scipy.stats
import torch

from collapse_bench.errors import MetricError
from collapse_bench.metrics.functional.manifold import expected_coverage
from collapse_bench.metrics.functional.neighbours import ROUNDING
from collapse_bench.metrics.functional.tail import (
    expected_tail_mass,
    tail_balls,
    tail_border,
    tail_count,
    tail_covered,
    tail_rank,
)
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.metrics.tail import TailCoverage, TailMass


def scored(metric, generated, reference):
    metric.update(ImageSet(features=generated), side="generated")
    metric.update(ImageSet(features=reference), side="reference")
    return metric.compute()


@pytest.mark.parametrize("num_features", [1, 5])
def test_tail_count_is_beta_binomial_when_the_laws_agree(rng, num_features):
    num_generated, num_reference, frac_tail, num_repeats = 15, 40, 0.2, 500
    counts = np.zeros(num_generated + 1)
    for _ in range(num_repeats):
        generated = torch.randn(num_generated, num_features, generator=rng, dtype=torch.float64)
        reference = torch.randn(num_reference, num_features, generator=rng, dtype=torch.float64)
        counts[tail_count(generated, tail_border(reference, frac_tail))] += 1

    rank = tail_rank(20, frac_tail)
    law = scipy.stats.betabinom(num_generated, 21 - rank, rank)
    assert law.mean() / num_generated == pytest.approx(expected_tail_mass(num_reference, frac_tail))
    expected = num_repeats * law.pmf(np.arange(num_generated + 1))
    # Chi-square wants at least five expected per cell: the last cells are one.
    many = expected >= 5
    observed, wanted = (np.append(x[many], x[~many].sum()) for x in (counts, expected))
    assert scipy.stats.chisquare(observed, wanted).pvalue > 1e-3


@pytest.mark.parametrize("num_calibration", [20, 225, 5000])
@pytest.mark.parametrize("frac_tail", [0.05, 0.2])
def test_expected_tail_mass_is_the_one_asked_for_up_to_one_rank(num_calibration, frac_tail):
    mean = expected_tail_mass(2 * num_calibration, frac_tail)
    assert mean == pytest.approx(frac_tail, abs=0.5 / (num_calibration + 1))


def test_tail_rank_stays_within_the_calibration_images():
    assert tail_rank(1, 0.05) == 1
    assert tail_rank(3, 0.99) == 1


def test_tail_count_by_hand():
    # Even half at 0 and 10; the odd half lies 1, 3 away from it, so the tail of one half begins beyond 1 or 3.
    reference = torch.tensor([[0.0], [1.0], [10.0], [13.0]])
    generated = torch.tensor([[0.5], [1.0], [2.0], [5.0], [13.0], [14.0]])
    assert tail_count(generated, tail_border(reference, frac_tail=0.1)) == 2
    assert tail_count(generated, tail_border(reference, frac_tail=0.7)) == 4


@pytest.mark.parametrize("frac_tail", [0.1, 0.3])
def test_the_tail_is_where_the_disjoint_half_is_sparse(rng, frac_tail):
    reference = torch.randn(2000, 3, generator=rng)
    tail = tail_balls(reference, 5, frac_tail)
    # A tenth of a thousand images with a binomial spread of the tail, and one of the border.
    assert len(tail.centres) / 1000 == pytest.approx(frac_tail, abs=4 * math.sqrt(2 * frac_tail / 1000))
    assert tail.centres.norm(dim=1).mean() > 1.3 * reference.norm(dim=1).mean()


def test_tail_balls_equal_their_definition(rng):
    reference = torch.randn(60, 2, generator=rng, dtype=torch.float64)
    rest, half = reference[0::2], reference[1::2]
    rarity = torch.cdist(rest, rest).sort(1).values[:, 3].sort().values[tail_rank(30, 0.3) - 1]
    in_tail = torch.cdist(half, rest).sort(1).values[:, 2] > rarity
    radii = torch.cdist(half, half).sort(1).values[:, 3]
    tail = tail_balls(reference, 3, 0.3)
    torch.testing.assert_close(tail.centres, half[in_tail])
    torch.testing.assert_close(tail.squared_radii.sqrt(), radii[in_tail])
    generated = torch.randn(50, 2, generator=rng, dtype=torch.float64)
    inside = torch.cdist(generated, half[in_tail]) <= radii[in_tail] * math.sqrt(ROUNDING)
    assert torch.equal(tail_covered(generated, tail), inside.any(0))


@pytest.mark.parametrize("num_generated", [30, 90])
def test_tail_coverage_has_its_exact_mean_when_the_laws_agree(rng, num_generated):
    covered, counts = [], []
    for _ in range(300):
        reference = torch.randn(80, 3, generator=rng)
        tail = tail_balls(reference, num_neighbours=2, frac_tail=0.2)
        covered.append(tail_covered(torch.randn(num_generated, 3, generator=rng), tail).sum().item())
        counts.append(len(tail.centres))
    covered, counts = np.array(covered), np.array(counts)
    null = expected_coverage(40, num_generated, 2)
    # Each ball has the null as its chance, so that a sum over balls minus null times their number has mean 0.
    surplus = covered - null * counts
    assert surplus.mean() == pytest.approx(0, abs=4 * surplus.std() / math.sqrt(len(surplus)))
    assert counts.mean() == pytest.approx(8, rel=0.2)


def test_numbers_of_the_tail_carry_their_exact_means(rng):
    generated, reference = torch.randn(70, 3, generator=rng), torch.randn(101, 3, generator=rng)
    mass = scored(TailMass(frac_tail=0.1), generated, reference)["tail_mass"]
    coverage = scored(TailCoverage(num_neighbours=3, frac_tail=0.2), generated, reference)["tail_coverage"]
    assert mass.null == expected_tail_mass(101, 0.1) == 5 / 51
    assert coverage.null == expected_coverage(50, 70, 3)
    assert (coverage.low, coverage.high) == (None, None)


def test_a_generator_that_has_lost_its_tail_covers_none_of_it(rng):
    reference, generated = torch.randn(600, 2, generator=rng), torch.randn(600, 2, generator=rng)
    whole = scored(TailCoverage(), generated, reference)["tail_coverage"].value
    lost = scored(TailCoverage(), generated[generated.norm(dim=1) < 1.2], reference)["tail_coverage"].value
    assert whole > 0.8
    assert lost < 0.2


def test_tail_coverage_without_a_tail_is_nan(rng):
    # The even half is so wide that the odd half has no rare image.
    reference = torch.stack([100 * torch.randn(20, generator=rng), torch.randn(20, generator=rng)], 1).view(-1, 1)
    tail = tail_balls(reference, 2, 0.1)
    assert len(tail.centres) == 0
    assert tail_covered(torch.zeros(3, 1), tail).shape == (0,)


def test_too_few_images_for_the_neighbours_raise(rng):
    with pytest.raises(MetricError, match="5 images in half of the reference"):
        scored(TailCoverage(num_neighbours=5), torch.randn(40, 2, generator=rng), torch.randn(11, 2, generator=rng))
