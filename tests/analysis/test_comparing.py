"""Which arm is the control of which, and which runs are pairs."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from collapse_bench.analysis.comparing import _EMPTY_SLOTS, Comparison, arm_controls, compare, does_nothing, is_control
from collapse_bench.analysis.runs import group_by_arm
from collapse_bench.analysis.verdicts import judge

NUM_SYNTHETIC = "budget.num_synthetic"


@pytest.fixture
def arm(chain):
    """Two seeds of a cell, which draw so many candidates per image that they keep."""

    def make(regime="replace", mitigation="control", drawn=1, **settings):
        made = [
            chain({"fid": [1.0, 2.0]}, seed=seed, regime=regime, mitigation=mitigation, settings=settings)
            for seed in range(2)
        ]
        records = [
            [replace(r, spent=replace(r.spent, candidates=round(drawn * 900), kept=900)) for r in run.records]
            for run in made
        ]
        return [replace(run, records=tuple(of_run)) for run, of_run in zip(made, records, strict=True)]

    return make


def controls(*arms):
    return arm_controls(group_by_arm([run for members in arms for run in members]))


def test_a_seed_has_one_control_however_many_would_do(chain):
    arm = [chain({"fid_infinity": [1.0, 5.0 + seed]}, seed=seed) for seed in range(2)]
    c0 = [
        chain({"fid_infinity": [1.0, 1.1]}, seed=seed, regime="real", settings={NUM_SYNTHETIC: number})
        for number in (None, 100, 200, 300)
        for seed in range(2)
    ]
    comparison = compare(arm, [*arm, *c0])
    assert (comparison.num_pairs, comparison.seeds) == (2, (0, 1))
    alone = [run for run in c0 if run.settings[NUM_SYNTHETIC] is None]
    assert judge([*arm, *c0])["replace"] == judge([*arm, *alone])["replace"]


def test_the_control_is_that_of_the_same_number_of_samples_or_else_the_first_by_its_path(chain):
    numbers = (300, 100, 200)
    c0 = [chain({"fid": [1.0]}, regime="real", settings={NUM_SYNTHETIC: number}) for number in numbers]
    c0 = [replace(run, path=Path(f"c0-{number}")) for run, number in zip(c0, numbers, strict=True)]
    for number, expected in ((200, 200), (300, 300), (400, 100), (None, 100)):
        arm = [chain({"fid": [1.0]}, settings={NUM_SYNTHETIC: number})]
        assert compare(arm, [*arm, *c0]).control[0].settings[NUM_SYNTHETIC] == expected


def test_a_size_that_is_given_in_two_ways_counts_each_seed_once(chain):
    named = [{}, {"dataset.num_real": None}]
    runs = [
        chain({"fid": [1.0, 2.0]}, regime=regime, seed=seed, settings=settings)
        for settings in named
        for regime in ("replace", "real")
        for seed in range(2)
    ]
    members = [run for run in runs if run.choices["regime"] == "replace" and run.settings["dataset.num_real"]]
    assert compare(members, runs).sizes[897].seeds == (0, 1)


def test_where_generation_0_has_a_part_of_the_real_pool_its_size_is_still_that_of_the_whole(chain):
    sizes = (300, 600, 897)
    runs = [chain({"fid": [1.0, 2.0]}, regime="fresh", settings={"dataset.num_real": size}) for size in sizes]
    runs = [replace(run, records=tuple(replace(r, train_pool={"real": 100}) for r in run.records)) for run in runs]
    assert list(compare(runs[:1], runs).sizes) == list(sizes)


def test_a_comparison_with_a_seed_twice_is_refused(chain):
    one, other = (chain({"fid": [1.0]}, seed=seed) for seed in range(2))
    for arm, control in (((one, one), (one, one)), ((one,), (other,))):
        with pytest.raises(ValueError, match="each seed once"):
            Comparison(arm, control)


def test_a_mitigation_is_compared_with_its_regime_and_a_regime_with_replace(arm):
    cells = [arm(), arm(mitigation="neon"), arm("mix"), arm("mix", "neon"), arm("window", "neon")]
    assert controls(*cells) == {
        "mix, control": "replace, control",
        "replace, neon": "replace, control",
        "mix, neon": "mix, control",
    }


def test_an_edited_control_is_no_control(arm):
    edited = arm(**{"mitigation.curator._target_": "collapse_bench.mitigations.random_subset.RandomSubset"})
    plain, real = arm(), arm("real")
    assert [does_nothing(members[0]) for members in (plain, edited, real)] == [True, False, True]
    assert [is_control(members[0]) for members in (plain, edited, real)] == [False, False, True]
    found = controls(plain, edited, real, arm(mitigation="neon"))
    (name_of_plain,) = set(found.values())
    assert "KeepAll" in name_of_plain
    assert len(found) == 3
    assert controls(edited, real, arm(mitigation="neon")) == {}


def test_without_a_single_control_there_is_none(arm):
    replaces = [arm(**{"regime.renew": renew}) for renew in (1, 2)]
    assert "mix" not in controls(*replaces, arm("mix"))
    assert controls(replaces[0], arm("mix")) == {"mix": "replace"}


def test_a_selection_is_compared_with_a_random_one_of_as_many_candidates(arm):
    cells = [
        arm(),
        arm(mitigation="random_subset", drawn=2),
        arm(mitigation="farthest_point", drawn=2),
        arm(mitigation="verifier", drawn=10),
        arm(mitigation="neon"),
    ]
    assert controls(*cells) == {
        "random_subset": "control",
        "farthest_point": "random_subset",
        "verifier": "control",
        "neon": "control",
    }


def test_a_random_selection_under_another_regime_or_with_another_part_edited_is_no_control(arm):
    edited = arm(mitigation="random_subset", drawn=2, **{"mitigation.weigher._target_": "my.Weigher"})
    elsewhere = arm("mix", "random_subset", drawn=2)
    found = controls(arm(), edited, elsewhere, arm(mitigation="farthest_point", drawn=2))
    assert found["replace, farthest_point"] == "replace, control"


def test_the_plain_control_is_that_of_the_configuration():
    mitigation = yaml.safe_load((Path(__file__).parents[2] / "conf" / "run.yaml").read_text())["mitigation"]
    slots = {f"mitigation.{slot}._target_": node["_target_"] for slot, node in mitigation.items() if slot[0] != "_"}
    assert {"mitigation._target_": mitigation["_target_"], **slots} == _EMPTY_SLOTS
    assert all(set(node) == {"_target_"} for slot, node in mitigation.items() if slot[0] != "_")
