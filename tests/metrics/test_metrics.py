"""What every metric of ``conf/metrics`` promises."""

import inspect
import math
from pathlib import Path

import hydra.utils
import pytest
import torch
import yaml
from jaxtyping import TypeCheckError
from torchmetrics.utilities import dim_zero_cat

from collapse_bench.encoders.base import Encoded
from collapse_bench.errors import ConfigError, MetricError
from collapse_bench.metrics.classes import ClassShares, Confidence
from collapse_bench.metrics.manifold import Manifold
from collapse_bench.metrics.tail import TailMass

CONF = Path(__file__).parents[2] / "conf" / "metrics"
PANELS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONF.glob("*.yaml"))}
METRICS = sorted(PANELS["headline"])


def make(name):
    return hydra.utils.instantiate(PANELS["headline"][name])


def feed(metric, generated, reference):
    metric.update(reference, real=True)
    metric.update(generated, real=False)
    return metric


def split(encoded, sizes):
    pairs = zip(encoded.features.split(sizes), encoded.probabilities.split(sizes), strict=True)
    return [Encoded(features, probabilities) for features, probabilities in pairs]


def plain(estimates):
    """Estimates as nested tuples in which NaN equals NaN."""
    return {name: tuple(repr(field) for field in estimate) for name, estimate in estimates.items()}


@pytest.fixture
def generated(mixture, rng):
    return mixture.fresh(120, rng)


@pytest.fixture
def reference(mixture, rng):
    return mixture.fresh(150, rng)


@pytest.fixture(params=METRICS)
def metric(request):
    return make(request.param)


def test_numbers_have_a_direction_and_lie_in_their_interval(metric, generated, reference):
    for estimate in feed(metric, generated, reference).compute().values():
        assert isinstance(estimate.value, float | int)
        assert estimate.better in {"lower", "higher", "one", "floor"}
        assert (estimate.low is None) == (estimate.high is None)
        assert estimate.low is None or estimate.low <= estimate.value <= estimate.high


def test_no_two_metrics_share_the_name_of_a_number(generated, reference):
    names = [name for metric in METRICS for name in feed(make(metric), generated, reference).compute()]
    assert len(names) == len(set(names))
    assert {"fid", "kid", "precision", "recall", "density", "coverage", "tail_mass", "confidence"} <= set(names)
    assert {"within_class_variance_ratio", "class_kl", "lowest_class_share", "num_classes_covered"} <= set(names)
    assert {f"class_share_{index}" for index in range(5)} <= set(names)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("real", [True, False])
def test_a_feature_that_is_not_finite_raises_and_the_process_lives(metric, generated, bad, real):
    generated.features[7, 2] = bad
    with pytest.raises(MetricError, match="image 7"):
        metric.update(generated, real=real)


def test_missing_probabilities_raise_where_they_are_needed(metric, generated):
    without = Encoded(generated.features)
    if metric.needs_probabilities:
        with pytest.raises(MetricError, match="needs class probabilities"):
            metric.update(without, real=False)
    else:
        metric.update(without, real=False)
        assert len(metric.generated_features) == 1


def test_fewer_than_two_images_raise(metric, generated, reference):
    metric.update(reference, real=True)
    metric.update(split(generated, [1, 119])[0], real=False)
    with pytest.raises(MetricError, match="at least two generated images"):
        metric.compute()


def test_computing_twice_gives_the_same_and_leaves_the_global_random_state(metric, generated, reference):
    feed(metric, generated, reference)
    before = torch.get_rng_state()
    first = metric.compute()
    metric._computed = None  # else torchmetrics answers from its cache
    assert plain(metric.compute()) == plain(first)
    assert torch.equal(torch.get_rng_state(), before)


def test_computing_does_not_change_the_features(metric, generated, reference):
    before = generated.features.clone(), reference.features.clone()
    feed(metric, generated, reference).compute()
    assert torch.equal(generated.features, before[0])
    assert torch.equal(reference.features, before[1])


def test_reset_forgets_the_generated_images_and_keeps_the_reference(metric, mixture, rng, generated, reference):
    expected = plain(feed(metric.clone(), generated, reference).compute())
    feed(metric, mixture.fresh(80, rng), reference).compute()
    metric.reset()
    metric.update(generated, real=False)
    assert plain(metric.compute()) == expected


def test_several_updates_equal_one(metric, generated, reference):
    expected = plain(feed(metric.clone(), generated, reference).compute())
    for part in split(generated, [50, 1, 69]):
        metric.update(part, real=False)
    for part in split(reference, [149, 1]):
        metric.update(part, real=True)
    assert plain(metric.compute()) == expected


def test_states_of_two_processes_are_concatenated(metric, generated, reference):
    expected = plain(feed(metric.clone(), generated, reference).compute())
    other = metric.clone()
    feed(metric, split(generated, [70, 50])[0], split(reference, [90, 60])[0])
    feed(other, split(generated, [70, 50])[1], split(reference, [90, 60])[1])
    assert set(metric._reductions.values()) == {dim_zero_cat}
    for state in metric._reductions:
        setattr(metric, state, getattr(metric, state) + getattr(other, state))
    assert plain(metric.compute()) == expected


@pytest.mark.parametrize("panel", sorted(PANELS))
def test_every_argument_of_a_metric_is_visible_in_its_panel(panel):
    for entry in PANELS[panel].values():
        arguments = inspect.signature(hydra.utils.get_class(entry["_target_"])).parameters
        assert set(entry) == {"_target_", *arguments}


def test_the_features_panel_is_the_part_of_the_headline_that_needs_no_probabilities():
    needs_none = {name: entry for name, entry in PANELS["headline"].items() if not make(name).needs_probabilities}
    assert PANELS["features"] == needs_none


OUT_OF_RANGE = {
    (Manifold, "num_neighbours"): [0, -1],
    (TailMass, "frac_tail"): [0.0, 1.0, -0.1, math.nan],
    (ClassShares, "covered_at"): [0.0, 1.1, math.nan],
}
OF_THE_WRONG_TYPE = {
    (Manifold, "num_neighbours"): [2.0, True, "5", None],
    (TailMass, "frac_tail"): [True, "0.1", None],
    (ClassShares, "covered_at"): [True, "0.1", None],
}


def cases(table):
    return [(metric, argument, value) for (metric, argument), values in table.items() for value in values]


@pytest.mark.parametrize(("metric", "argument", "value"), cases(OUT_OF_RANGE))
def test_arguments_out_of_range_are_refused_by_name(metric, argument, value):
    with pytest.raises(ConfigError, match=argument):
        metric(**{argument: value})


@pytest.mark.parametrize(("metric", "argument", "value"), cases(OF_THE_WRONG_TYPE))
def test_arguments_of_the_wrong_type_are_refused_by_name(metric, argument, value):
    # Where annotations are checked, as they may be in tests, that check comes first.
    with pytest.raises((ConfigError, TypeCheckError), match=argument):
        metric(**{argument: value})


@pytest.mark.parametrize("side", ["generated", "reference"])
def test_too_few_images_for_the_neighbours_raise(side, generated, reference):
    both = {"generated": generated, "reference": reference}
    both[side] = split(both[side], [5, len(both[side]) - 5])[0]
    with pytest.raises(MetricError, match=f"5 {side} images"):
        feed(Manifold(num_neighbours=5), both["generated"], both["reference"]).compute()


def test_class_shares_are_counts_over_images_and_the_lowest_is_one_of_them(reference):
    probabilities = torch.eye(3)[[0, 0, 0, 2]]
    real = Encoded(torch.zeros(3, 1), torch.eye(3))
    scores = feed(ClassShares(), Encoded(torch.zeros(4, 1), probabilities), real).compute()
    assert [scores[f"class_share_{index}"].value for index in range(3)] == [0.75, 0, 0.25]
    assert scores["lowest_class_share"][0] == 0
    assert scores["lowest_class_share"][2:] == scores["class_share_1"][2:]
    assert scores["num_classes_covered"].value == 2


def test_confidence_is_the_mean_highest_probability_with_its_standard_error(generated, reference):
    value, _, low, high = feed(Confidence(), generated, reference).compute()["confidence"]
    highest = generated.probabilities.double().max(1).values
    assert value == pytest.approx(highest.mean().item())
    assert (high - low) / 2 == pytest.approx(1.959964 * highest.std().item() / 120**0.5, rel=1e-5)
