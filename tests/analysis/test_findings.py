"""Sentences of the report: they say what the numbers say, also where there is little to say."""

from dataclasses import replace

import pytest

from collapse_bench.analysis import findings
from collapse_bench.analysis.runs import find_runs, load_run
from collapse_bench.analysis.tables import arm_table, verdict_table


@pytest.fixture
def two(make_run):
    """``replace`` loses a tenth of its recall per generation, ``real`` a thousandth; three seeds."""
    return [
        load_run(make_run(f"{regime}{seed}", seed=seed, decay=decay, choices={"regime": regime}, grids=False))
        for regime, decay in (("replace", 0.1), ("real", 0.001))
        for seed in range(3)
    ]


def test_the_best_and_the_worst_arm_are_named_with_their_numbers(two, model_value):
    mean = {arm: sum(model_value("recall", 3, seed, decay) for seed in range(3)) / 3 for arm, decay in _DECAYS.items()}
    sentence = findings.score_finding(two, arm_table(two))
    assert f"from {mean['real']:.3f}" in sentence
    assert f"to {mean['replace']:.3f}" in sentence
    assert sentence.index("“real”") < sentence.index("“replace”")


_DECAYS = {"replace": 0.1, "real": 0.001}


def test_arms_that_became_worse_are_counted_by_their_interval(two, model_value):
    # Every seed falls by the same, so the interval of the change is a point; both arms fall.
    change = model_value("recall", 3, 0, 0.1) - model_value("recall", 0, 0, 0.1)
    sentence = findings.curve_finding(two, arm_table(two))
    assert f"“replace”: by {change:.3f}" in sentence
    assert "All 2 arms are worse than at generation 0" in sentence


def test_a_rise_is_no_worsening_where_higher_is_better(chain):
    runs = [chain({"recall": [0.5 + 0.01 * seed, 0.7 + 0.03 * seed]}, seed=seed) for seed in range(3)]
    up = [*runs, *(chain({"recall": [0.5, 0.6 + 0.01 * seed]}, seed=seed, regime="mix") for seed in range(3))]
    sentence = findings.curve_finding(up, arm_table(up))
    assert "in no arm worse than at generation 0" in sentence
    assert "None of 2 arms is worse" in sentence


def test_arms_within_the_band_of_the_floor_are_counted(chain):
    def with_spread(run):
        scores = [
            replace(record, scores=tuple(replace(s, spread=0.01) if s.of == "control" else s for s in record.scores))
            for record in run.records
        ]
        return replace(run, records=tuple(scores))

    near = [with_spread(chain({"recall": [0.9, 0.895]}, seed=s, regime="mix")) for s in range(2)]
    far = [with_spread(chain({"recall": [0.9, 0.5]}, seed=s)) for s in range(2)]
    assert "1 of 2 arms is within two standard deviations of that, or better" in findings.score_finding(
        [*near, *far], arm_table([*near, *far])
    )


def test_verdicts_are_counted_over_the_arms_that_were_judged(two):
    assert findings.verdict_finding(verdict_table(two)).startswith(
        "1 of 1 judged arm shows a collapse by at least one definition"
    )
    table = verdict_table(two).assign(decision="no")
    assert findings.verdict_finding(table).endswith(
        "With 3 seeds a paired test shows only effects that are large beside their spread."
    )
    assert findings.verdict_finding(table.assign(n=5)).endswith("at this level.")
    alone = [run for run in two if run.choices["regime"] == "replace"]
    assert "none has two seeds beside a control" in findings.verdict_finding(verdict_table(alone))


def test_the_first_and_the_last_of_the_ranked_arms_are_named(two):
    sentence = findings.standing_finding(two)
    assert "the first of the 2 arms without a mitigation of budget 1 is “real”" in sentence
    assert "the last is “replace”" in sentence
    assert "nothing to rank" in findings.standing_finding(two[:3])


def test_better_than_the_control_is_what_the_paired_interval_of_the_gain_says(chain):
    def sentence(gains):
        runs = [chain({"recall": [0.9, 0.1 + 0.01 * seed]}, seed=seed) for seed in range(len(gains))]
        ends = [0.1 + 0.01 * seed + gain for seed, gain in enumerate(gains)]
        runs += [chain({"recall": [0.9, end]}, seed=seed, mitigation="neon") for seed, end in enumerate(ends)]
        return findings.standing_finding(runs)

    # Every run is better than every run of the control, but 0.183 is less than t = 4.30 times 0.126 / sqrt 3.
    assert "None of 1 arm is better" in sentence([0.05, 0.2, 0.3])
    assert "1 of 1 arm is better than “control”: the 95 % t interval of the gain" in sentence([0.18, 0.2, 0.22])


def test_classes_that_are_gone_are_counted(make_run):
    even = load_run(make_run("even", decay=0.0, grids=False, choices={"regime": "real"}))
    skewed = load_run(make_run("skewed", decay=0.1, grids=False))
    sentence = findings.class_finding([even, skewed])
    assert "“digit 0” in “replace”" in sentence
    assert "in the control set it is 25 %" in sentence
    assert "None of 2 arms has a class without any sample" in sentence


def test_pools_without_real_images_are_counted(two):
    real = [replace(run, records=tuple(replace(r, train_shares={"real": 1.0}) for r in run.records)) for run in two[3:]]
    sentence = findings.pool_finding([*two[:3], *real])
    assert sentence == (
        "1 of 2 arms trains on no real image at the last generation; in the others 100 % of what is seen is real."
    )


def test_costs_are_told_apart_where_they_differ(two):
    dear = [
        replace(run, records=tuple(replace(r, spent=replace(r.spent, gradient_steps=600)) for r in run.records))
        for run in two[3:]
    ]
    assert "1,200 to 2,400 gradient steps a chain, most in “real”" in findings.resource_finding([*two[:3], *dear])
    assert "1,200 gradient steps a chain in all" in findings.resource_finding(two)


def test_without_recall_the_sentences_are_about_another_number(make_run, sweep):
    assert findings.lead_metric([load_run(make_run("a", metrics=["fid", "precision"]))]) == "fid"
    assert findings.lead_metric(find_runs(sweep)) == "recall"


def test_one_run_of_one_generation_still_has_sentences(make_run):
    run = load_run(make_run("a", num_generations=0, grids=False))
    assert findings.curve_finding([run], arm_table([run])) == "No arm has gone beyond generation 0."
    assert findings.pool_finding([run]) == "Generation 0 is trained on real images only."
    assert findings.score_finding([run], arm_table([run])).startswith("Recall is 0.910 at generation 0")
