"""What every metric of ``conf/metrics`` promises."""

import inspect
import math
from pathlib import Path

import hydra.utils
import pytest
import torch
from hydra import compose, initialize_config_dir
from jaxtyping import TypeCheckError
from omegaconf import OmegaConf
from torchmetrics.utilities import dim_zero_cat

from collapse_bench.errors import ConfigError, MetricError
from collapse_bench.metrics.base import GenerativeMetric
from collapse_bench.metrics.classes import ClassShares, Confidence
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.metrics.manifold import Manifold
from collapse_bench.metrics.tail import TailCoverage, TailMass
from collapse_bench.testing import promises
from collapse_bench.testing.promises import feed, plain
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec

CONF = Path(__file__).parents[2] / "conf"


def entries():
    """What all panels hold, as Hydra composes it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        panels = [compose(f"metrics/{path.stem}").metrics for path in sorted((CONF / "metrics").glob("*.yaml"))]
    return {name: entry for panel in panels for name, entry in OmegaConf.to_container(panel, resolve=True).items()}


ENTRIES = entries()


def is_generative(entry):
    return issubclass(hydra.utils.get_class(entry["_target_"]), GenerativeMetric)


GENERATIVE = sorted(name for name, entry in ENTRIES.items() if is_generative(entry))
# Those that train a network take seconds per number.
QUICK = [name for name in GENERATIVE if hydra.utils.get_class(ENTRIES[name]["_target_"]).resampled]


def make(name):
    metric = hydra.utils.instantiate(ENTRIES[name], _convert_="all")
    metric.check(ImageSpec(1, 8, 8, tuple("01234")), True, TrainerOptions(num_threads=1))
    return metric


def split(images, sizes):
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [images.take(slice(start, start + size)) for start, size in zip(starts, sizes, strict=True)]


def fed_scores(metric, sets):
    return plain(feed(metric, sets).compute())


@pytest.fixture
def sets():
    """Images for every side."""
    return promises.images_of_all_sides()


@pytest.fixture(params=QUICK)
def metric(request):
    return make(request.param)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in GENERATIVE])
def test_numbers_have_a_direction_and_lie_in_their_interval(name, sets):
    promises.numbers_are_well_formed(make(name), sets)


def test_no_two_metrics_share_the_name_of_a_number(sets):
    names = [name for metric in QUICK for name in feed(make(metric), sets).compute()]
    assert len(names) == len(set(names))
    assert {"fid", "fid_infinity", "kid", "precision", "recall", "density", "coverage", "tail_mass"} <= set(names)
    assert {"within_class_variance_ratio", "class_kl", "lowest_class_share", "num_classes_covered"} <= set(names)
    assert {f"{of}_{index}" for of in ("class_share", "class_coverage") for index in range(5)} <= set(names)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_raises_and_the_process_lives(metric, sets, bad):
    numbers = {"features", "probabilities", "images"} & {*metric.columns}
    if not numbers:
        assert metric.columns == ("hashes",), "copies are equal bytes, whatever they stand for"
    for side in metric.sides:
        for column in numbers:
            broken = {name: getattr(sets[side], name) for name in ("labels", "born")}
            broken |= {name: getattr(sets[side], name).float() for name in ("images", "features", "probabilities")}
            broken[column].view(len(sets[side]), -1)[7, 2] = bad
            with pytest.raises(MetricError, match="image 7"):
                metric.update(ImageSet(**broken), side=side)


def test_missing_columns_raise_where_they_are_needed(metric, sets):
    only_born = ImageSet(born=sets["generated"].born)
    with pytest.raises(MetricError, match=type(metric).__name__):
        metric.update(only_born, side="generated")


def test_metrics_without_probabilities_need_none(metric, sets):
    columns = {name: getattr(sets["generated"], name) for name in ("images", "labels", "features")}
    if "probabilities" in metric.columns:
        with pytest.raises(MetricError, match="needs class probabilities"):
            metric.update(ImageSet(**columns), side="generated")
    else:
        metric.update(ImageSet(**columns), side="generated")
        assert len(getattr(metric, f"generated_{metric.columns[0]}")) == 1


def test_fewer_than_two_images_raise(metric, sets):
    feed(metric, {**sets, "generated": sets["generated"].take(slice(1))})
    with pytest.raises(MetricError, match="at least two generated images"):
        metric.compute()


def test_computing_twice_gives_the_same_and_leaves_images_and_the_global_random_state(metric, sets):
    promises.computing_changes_nothing(metric, sets)


def test_no_number_depends_on_the_order_of_the_images_or_on_how_many_are_added_at_once(metric, sets):
    promises.order_does_not_matter(metric, sets)


def test_reset_forgets_the_generated_images_and_keeps_the_others(metric, sets):
    promises.reset_forgets_generated_images_alone(metric, sets)


def test_what_is_kept_of_one_side_is_dropped_when_that_side_changes(metric, mixture, rng, sets):
    expected = fed_scores(metric.clone(), sets)
    others = [side for side in metric.sides if side != "generated"]
    feed(metric, {**sets, **{side: mixture.fresh(70, rng) for side in others}}).compute()
    for side in others:
        metric.forget(side)
        metric.update(sets[side], side=side)
    metric.reset()
    metric.update(sets["generated"], side="generated")
    assert plain(metric.compute()) == expected


def test_states_of_two_processes_are_concatenated(metric, sets):
    expected = fed_scores(metric.clone(), sets)
    parts = {side: split(images, [40, len(images) - 40]) for side, images in sets.items()}
    other = feed(metric.clone(), {side: part[1] for side, part in parts.items()})
    feed(metric, {side: part[0] for side, part in parts.items()})
    assert set(metric._reductions.values()) == {dim_zero_cat}
    for state in metric._reductions:
        setattr(metric, state, getattr(metric, state) + getattr(other, state))
    assert plain(metric.compute()) == expected


@pytest.mark.parametrize("name", ENTRIES)
def test_every_argument_of_a_metric_is_visible_in_its_panel(name):
    arguments = inspect.signature(hydra.utils.get_class(ENTRIES[name]["_target_"])).parameters
    assert set(ENTRIES[name]) - {"_convert_"} == {"_target_", *arguments}


OUT_OF_RANGE = {
    (Manifold, "num_neighbours"): [0, -1],
    (TailMass, "frac_tail"): [0.0, 1.0, -0.1, math.nan],
    (TailCoverage, "num_neighbours"): [0, -1],
    (TailCoverage, "frac_tail"): [0.0, 1.0, -0.1, math.nan],
    (ClassShares, "covered_at"): [0.0, 1.1, math.nan],
}
OF_THE_WRONG_TYPE = {
    (Manifold, "num_neighbours"): [2.0, True, "5", None],
    (TailMass, "frac_tail"): [True, "0.1", None],
    (TailCoverage, "num_neighbours"): [2.0, True, "5", None],
    (TailCoverage, "frac_tail"): [True, "0.1", None],
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


def test_class_shares_are_counts_over_images_and_the_lowest_is_one_of_them():
    probabilities = torch.eye(3)[[0, 0, 0, 2]]
    sides = {"generated": ImageSet(probabilities=probabilities), "reference": ImageSet(probabilities=torch.eye(3))}
    scores = feed(ClassShares(), sides).compute()
    assert [scores[f"class_share_{index}"].value for index in range(3)] == [0.75, 0, 0.25]
    assert scores["lowest_class_share"][0] == 0
    assert scores["lowest_class_share"][2:4] == scores["class_share_1"][2:4]
    assert scores["num_classes_covered"].value == 2


def test_confidence_is_the_mean_highest_probability_with_its_standard_error(sets):
    estimate = feed(Confidence(), sets).compute()["confidence"]
    highest = sets["generated"].probabilities.double().max(1).values
    assert estimate.value == pytest.approx(highest.mean().item())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.959964 * highest.std().item() / 120**0.5, rel=1e-5)
