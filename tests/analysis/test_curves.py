import math

import numpy as np
import pytest

from collapse_bench.analysis.comparing import compare
from collapse_bench.analysis.curves import half_lives, last_half_slope, onsets, summarize_curves


def summary(chain, metric, arm, control, **keys):
    """The summary of an arm, given a curve per seed for it and for its control."""
    members = [chain({metric: curve}, seed=seed, **keys) for seed, curve in enumerate(arm)]
    controls = [chain({metric: curve}, seed=seed, regime="real") for seed, curve in enumerate(control)]
    return summarize_curves(members, compare(members, [*members, *controls]), metric)


def test_one_arm_by_hand(chain):
    found = summary(
        chain,
        "recall",
        arm=[[0.8, 0.6, 0.4, 0.2, 0.2], [0.8, 0.8, 0.8, 0.6, 0.6]],
        control=[[0.8] * 5, [0.8] * 5],
    )
    assert found.last_generation == 4
    # Seed 0 has lost 0, 1/4, 1/2, 3/4, 3/4: 1.875 by the trapezoid rule; seed 1 has lost 0, 0, 0, 1/4, 1/4: 0.375.
    assert found.area.centre == pytest.approx((1.875 + 0.375) / 2)
    assert (found.area.n, found.area.kind) == (2, "t")
    assert found.final.centre == pytest.approx(0.4)
    # Generations 2, 3, 4 of seed 0: 0.4, 0.2, 0.2; of seed 1: 0.8, 0.6, 0.6.
    assert found.slope.centre == pytest.approx(-0.1)
    # Seed 0 is at half of 0.8 at generation 2; seed 1 never.
    assert (found.half_life.interval.centre, found.half_life.num_censored) == (pytest.approx((2 + 4) / 2), 1)
    # Seed 0 is a tenth of 0.8 worse from generation 1 on, seed 1 from 3 on.
    assert (found.onset.interval.centre, found.onset.num_censored) == (pytest.approx(2.0), 0)


def test_the_area_is_relative_to_the_control_at_generation_0_and_pairs_by_seed(chain):
    # The seeds start apart, which is no degradation; the scale is the mean start of the control, 3.
    found = summary(chain, "fid", arm=[[2.0, 5.0], [4.0, 7.0]], control=[[2.0, 2.0], [4.0, 4.0]])
    assert found.area.centre == pytest.approx(0.5 * 3 / 3)
    assert found.area.low == pytest.approx(found.area.high)


def test_the_control_drifts_and_the_area_of_the_arm_is_still_relative_to_where_it_began(chain):
    found = summary(chain, "fid", arm=[[2.0, 4.0], [2.0, 4.0]], control=[[2.0, 20.0], [2.0, 20.0]])
    assert found.area.centre == pytest.approx(0.5)
    assert found.onset.num_censored == 2


def test_what_is_best_at_one_is_worse_on_both_sides(chain):
    above = summary(chain, "within_class_variance_ratio", arm=[[1.0, 1.5]] * 2, control=[[1.0, 1.0]] * 2)
    below = summary(chain, "within_class_variance_ratio", arm=[[1.0, 0.5]] * 2, control=[[1.0, 1.0]] * 2)
    assert above.area.centre == below.area.centre == pytest.approx(0.25)


def test_without_a_control_the_area_and_the_onset_have_no_number_and_the_rest_has(chain):
    found = summary(chain, "recall", arm=[[0.8, 0.2]] * 2, control=[])
    assert (found.area.n, found.onset.interval.n) == (0, 0)
    assert (found.final.centre, found.half_life.interval.centre) == (0.2, pytest.approx(2 / 3))


def test_a_control_with_another_start_of_the_fits_is_none(chain):
    found = summary(
        chain, "recall", arm=[[0.8, 0.2]] * 2, control=[[0.8, 0.8]] * 2, settings={"generator.start": "scratch"}
    )
    assert found.area.n == 0


@pytest.mark.parametrize(
    ("direction", "curve", "expected"),
    [
        ("higher", [0.8, 0.6, 0.2], 1.5),
        ("lower", [10.0, 15.0, 25.0], 1.5),
        ("one", [1.0, 0.75, 0.25], 1.5),
        ("one", [0.8, 0.6, 0.2], 1.5),
        ("higher", [0.8, 0.9, 0.7], math.inf),
        ("higher", [0.0, 0.0, 0.0], math.nan),
        ("floor", [0.05, 0.5, 0.9], math.nan),
        ("higher", [0.8, math.nan, 0.2], math.nan),
    ],
)
def test_half_of_the_quality_has_gone_between_two_generations(direction, curve, expected):
    np.testing.assert_allclose(half_lives(np.array([curve]), direction), [expected])


def test_half_lives_of_an_exponential_decay_are_those_of_physics():
    t = np.arange(200)
    curve = 0.9 * 2.0 ** (-t / 37.0)
    np.testing.assert_allclose(half_lives(curve[None], "higher"), [37.0], rtol=1e-6)


@pytest.mark.parametrize(("num_generations", "first"), [(2, 0), (3, 1), (6, 2), (7, 3)])
def test_the_slope_is_numpys_fit_of_the_last_half(num_generations, first):
    curves = np.random.default_rng(0).normal(size=(4, num_generations))
    t = np.arange(first, num_generations)
    np.testing.assert_allclose(last_half_slope(curves), np.polyfit(t, curves[:, first:].T, 1)[0])


def test_generation_0_alone_has_no_slope():
    assert np.isnan(last_half_slope(np.ones((3, 1)))).all()


def test_the_onset_needs_two_generations_in_a_row():
    excess = np.array([[0, 0.2, 0, 0.2, 0.3], [0, 0, 0, 0, 0.9], [0, 0.2, 0.2, 0, 0], [0, math.nan, 0.2, 0.2, 0.2]])
    np.testing.assert_array_equal(onsets(excess), [3, math.inf, 1, math.nan])


def test_a_seed_that_never_loses_half_counts_with_the_last_generation(chain):
    found = summary(chain, "recall", arm=[[0.8, 0.7, 0.7]] * 3, control=[[0.8] * 3] * 3)
    assert (found.half_life.interval.centre, found.half_life.num_censored) == (2.0, 3)
