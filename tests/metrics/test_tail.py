import numpy as np
import pytest
import scipy.stats
import torch

from collapse_bench.metrics.functional.tail import tail_count, tail_rank


@pytest.mark.parametrize("num_features", [1, 5])
def test_tail_count_is_beta_binomial_when_the_laws_agree(rng, num_features):
    num_generated, num_reference, frac_tail, num_repeats = 15, 40, 0.2, 1200
    counts = np.zeros(num_generated + 1)
    for _ in range(num_repeats):
        generated = torch.randn(num_generated, num_features, generator=rng, dtype=torch.float64)
        reference = torch.randn(num_reference, num_features, generator=rng, dtype=torch.float64)
        counts[tail_count(generated, reference, frac_tail)] += 1

    rank = tail_rank(20, frac_tail)
    expected = num_repeats * scipy.stats.betabinom(num_generated, 21 - rank, rank).pmf(np.arange(num_generated + 1))
    # Chi-square wants at least five expected per cell: the last cells are one.
    many = expected >= 5
    observed, wanted = (np.append(x[many], x[~many].sum()) for x in (counts, expected))
    assert scipy.stats.chisquare(observed, wanted).pvalue > 1e-3


@pytest.mark.parametrize("num_calibration", [20, 225, 5000])
@pytest.mark.parametrize("frac_tail", [0.05, 0.2])
def test_expected_tail_mass_is_the_one_asked_for_up_to_one_rank(num_calibration, frac_tail):
    rank = tail_rank(num_calibration, frac_tail)
    mean = (num_calibration + 1 - rank) / (num_calibration + 1)
    assert mean == pytest.approx(frac_tail, abs=0.5 / (num_calibration + 1))


def test_tail_rank_stays_within_the_calibration_images():
    assert tail_rank(1, 0.05) == 1
    assert tail_rank(3, 0.99) == 1


def test_tail_count_by_hand():
    # Even half at 0 and 10; the odd half lies 1, 3 away from it, so the tail of one half begins beyond 1 or 3.
    reference = torch.tensor([[0.0], [1.0], [10.0], [13.0]])
    generated = torch.tensor([[0.5], [1.0], [2.0], [5.0], [13.0], [14.0]])
    assert tail_count(generated, reference, frac_tail=0.1) == 2
    assert tail_count(generated, reference, frac_tail=0.7) == 4
