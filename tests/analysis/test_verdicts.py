import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from collapse_bench.analysis.statistics import holm
from collapse_bench.analysis.verdicts import (
    ANY_RISE,
    CATASTROPHIC,
    DIVERGING,
    EIGHT,
    HALLUCINATION,
    STAGES,
    TAILS,
    EarlyCollapse,
    LateCollapse,
    QualityGate,
    judge,
    threshold_sensitivity,
)

HEALTHY = {
    "fid_infinity": 1.0,
    "held_out_loss": 2.0,
    "within_class_variance_ratio": 0.9,
    "entanglement": 0.02,
    "tail_coverage": 0.9,
    "lowest_class_share": 0.08,
    "num_classes_covered": 10.0,
    "coverage": 0.95,
    "precision": 0.95,
    "recall": 0.9,
}
LAST = 5
T = np.arange(LAST + 1)


def simulate(chain, rng, effects, *, num_seeds=5, noise=0.01, metrics=tuple(HEALTHY)):
    """Arms and controls that share generation 0, with noise of their own afterwards.

    Args:
        chain: the fixture.
        rng: draws the noise, relative to each metric.
        effects: per metric the factors of the arm's curve.
        num_seeds: pairs.
        noise: standard deviation over seeds.
        metrics: what is measured.
    """
    runs = []
    for seed in range(num_seeds):
        starts = {metric: HEALTHY[metric] * (1 + noise * rng.normal()) for metric in metrics}
        for regime in ("replace", "real"):
            curves = {}
            for metric, start in starts.items():
                factors = (
                    np.asarray(effects.get(metric, np.ones(LAST + 1))) if regime == "replace" else np.ones(LAST + 1)
                )
                curve = start * factors * (1 + noise * rng.normal(size=LAST + 1))
                curves[metric] = [start, *curve[1:]]
            runs.append(chain(curves, seed=seed, regime=regime))
    return runs


def decisions(runs, **options):
    (verdicts,) = judge(runs, **options).values()
    return {verdict.definition: verdict for verdict in verdicts}


def pairs(chain, arm, control, metric="precision"):
    """Runs of an arm and its control from a curve per seed."""
    runs = [chain({metric: curve}, seed=seed) for seed, curve in enumerate(arm)]
    return runs + [chain({metric: curve}, seed=seed, regime="real") for seed, curve in enumerate(control)]


@pytest.mark.parametrize(
    ("effects", "found"),
    [
        ({}, set()),
        ({"fid_infinity": 1 + 2.0 * T}, {"catastrophic rise of risk", "any rise of risk", "diverging risk"}),
        ({"held_out_loss": 1 + 0.1 * T}, {"any rise of risk", "diverging risk"}),
        ({"fid_infinity": 1 + 0.5 * (T > 0)}, {"any rise of risk"}),
        ({"within_class_variance_ratio": 0.93**T}, {"collapsing variance"}),
        ({"entanglement": 1 + T}, {"entangled modes"}),
        ({"tail_coverage": 0.9**T}, {"vanishing tails", "early collapse"}),
        ({"lowest_class_share": 0.9**T}, {"vanishing tails", "early collapse"}),
        ({"precision": 0.96**T}, {"hallucinated data"}),
        ({"within_class_variance_ratio": 0.8**T}, {"collapsing variance", "late collapse"}),
        ({"coverage": 0.8**T}, {"late collapse"}),
        ({"num_classes_covered": 0.8**T}, {"late collapse"}),
    ],
)
def test_a_chain_that_collapses_by_a_definition_is_found_by_it_and_by_no_other(chain, effects, found):
    verdicts = decisions(simulate(chain, np.random.default_rng(0), effects))
    assert {name for name, verdict in verdicts.items() if verdict.decision == "yes"} == found
    undecided = {name for name, verdict in verdicts.items() if verdict.decision == "not decidable"}
    assert undecided == {"changed scaling law"}
    assert all(verdict.n == 5 for name, verdict in verdicts.items() if name not in undecided)


def test_an_improvement_is_no_collapse(chain):
    effects = {"fid_infinity": 0.5**T, "precision": 1.01**T, "tail_coverage": 1.02**T, "entanglement": 0.8**T}
    verdicts = decisions(simulate(chain, np.random.default_rng(0), effects))
    assert not [verdict for verdict in verdicts.values() if verdict.decision == "yes"]
    assert verdicts["hallucinated data"].effect.high < 0
    assert "precision up by 0." in verdicts["hallucinated data"].reason
    assert "(counts down, p = " in verdicts["hallucinated data"].reason
    assert verdicts["entangled modes"].effect.high < 0


def test_effect_and_p_by_hand(chain):
    # Precision falls by 0.1, 0.2, 0.3 more than the control's; the threshold is 0.05. t = 0.15 / (0.1 / sqrt 3) with
    # two degrees of freedom, whose upper tail is 1/2 - t / (2 sqrt(2 + t^2)).
    runs = pairs(chain, [[0.9, 0.8], [0.9, 0.6], [0.9, 0.5]], [[0.9, 0.9], [0.9, 0.8], [0.9, 0.8]])
    (verdict,) = decisions(runs, definitions=[HALLUCINATION], stages=[]).values()
    t = 0.15 / (0.1 / math.sqrt(3))
    assert verdict.p == verdict.p_holm == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)))
    assert (verdict.decision, verdict.metric, verdict.n) == ("no", "precision", 3)
    half = 4.302652730 * 0.1 / math.sqrt(3)
    assert (verdict.effect.centre, verdict.effect.low) == (pytest.approx(0.2), pytest.approx(0.2 - half))
    assert "precision down by 0.2 (threshold 0.05, p = 0.061, paired t, n = 3)" in verdict.reason


def test_a_relative_effect_is_a_multiple_of_the_controls_mean_start(chain):
    arm, control = [[1.0, 6.0], [3.0, 14.0]], [[1.0, 1.0], [3.0, 3.0]]
    (verdict,) = decisions(pairs(chain, arm, control, "held_out_loss"), definitions=[CATASTROPHIC], stages=[]).values()
    assert verdict.effect.centre == pytest.approx((5.0 + 11.0) / 2 / 2.0)


def test_a_rise_that_the_control_shares_is_no_collapse(chain):
    rng = np.random.default_rng(0)
    arm, control = ([[1.0, *(5.0 + 0.01 * rng.normal(size=3))] for _ in range(5)] for _ in range(2))
    (verdict,) = decisions(pairs(chain, arm, control, "fid_infinity"), definitions=[ANY_RISE], stages=[]).values()
    assert verdict.decision != "yes"
    assert abs(verdict.effect.centre) < 0.05


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_where_arm_and_control_are_exchangeable_a_verdict_is_wrong_as_often_as_its_level_says(chain, num_seeds):
    num_trials = 400
    rng = np.random.default_rng(num_seeds)
    rule = replace(ANY_RISE, measures=ANY_RISE.measures[:1])
    metrics = [rule.measures[0].metric]
    found = 0
    for _ in range(num_trials):
        runs = simulate(chain, rng, {}, num_seeds=num_seeds, noise=0.1, metrics=metrics)
        found += decisions(runs, definitions=[rule], stages=[])[rule.name].decision == "yes"
    # Its threshold is 0, so the null hypothesis is true and no more than that.
    assert found / num_trials == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / num_trials))


def test_where_arm_and_control_are_exchangeable_any_of_the_eight_is_wrong_at_most_as_often_as_the_level(chain):
    num_trials = 80
    rng = np.random.default_rng(0)
    wrong = {"eight": 0, "stages": 0}
    for _ in range(num_trials):
        verdicts = decisions(simulate(chain, rng, {}, num_seeds=3, noise=0.1))
        for name, family in (("eight", EIGHT), ("stages", STAGES)):
            wrong[name] += any(verdicts[definition.name].decision == "yes" for definition in family)
    for number in wrong.values():
        assert number / num_trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / num_trials)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (lambda run: run.choices["regime"] == "replace", "no control C0 among the runs (regime=real"),
        (lambda run: run.seed == 0, "only one seed has a control"),
        (lambda run: run.seed == 0 or run.choices["regime"] == "replace", "only one seed has a control"),
    ],
)
def test_without_two_pairs_nothing_is_decided_and_the_reason_says_so(chain, keep, words):
    runs = simulate(chain, np.random.default_rng(0), {"fid_infinity": 1 + 2.0 * T})
    verdicts = decisions([run for run in runs if keep(run)])
    assert len(verdicts) == 10
    for verdict in verdicts.values():
        assert (verdict.decision, verdict.n, verdict.effect.kind) == ("not decidable", 0, "none")
        assert words in verdict.reason
        assert math.isnan(verdict.p)


def test_generation_0_alone_decides_nothing(chain):
    runs = pairs(chain, [[0.9]] * 3, [[0.9]] * 3)
    assert {verdict.decision for verdict in decisions(runs).values()} == {"not decidable"}


def test_a_control_that_differs_in_anything_else_is_none(chain):
    arm = [chain({"precision": [0.9, 0.1]}, seed=seed) for seed in range(3)]
    for settings in ({"generator.start": "scratch"}, {"budget.num_steps": 3}):
        other = [chain({"precision": [0.9, 0.9]}, seed=seed, regime="real", settings=settings) for seed in range(3)]
        assert "no control C0" in decisions(arm + other)["hallucinated data"].reason


def test_the_control_of_a_steered_arm_is_steered_alike(chain):
    steering = {
        "mitigation.steering._target_": "collapse_bench.mitigations.schedule.Schedule",
        "mitigation.steering.first": 0.2,
        "mitigation.curator._target_": "collapse_bench.mitigations.control.KeepAll",
    }
    arm = [
        chain({"precision": [0.9, 0.1 + 0.01 * seed]}, seed=seed, mitigation="annealed_truncation", settings=steering)
        for seed in range(3)
    ]
    for settings, found in ((steering, True), ({}, False), (steering | {"mitigation.steering.first": 0.1}, False)):
        mitigation = "annealed_truncation" if settings else "control"
        control = [
            chain({"precision": [0.9, 0.9]}, seed=seed, regime="real", mitigation=mitigation, settings=settings)
            for seed in range(3)
        ]
        verdict = decisions(arm + control)["hallucinated data"]
        assert verdict.decision == ("yes" if found else "not decidable")
        assert ("no control C0" in verdict.reason) == (not found)


def test_an_arm_is_not_forgiven_for_a_bad_generation_0_of_its_own(chain):
    # It does not change at all, and from the control's generation 0 it has lost 0.3.
    arm = [[0.6, 0.6], [0.61, 0.61], [0.62, 0.62]]
    (verdict,) = decisions(pairs(chain, arm, [[0.9, 0.9]] * 3), definitions=[HALLUCINATION], stages=[]).values()
    assert verdict.decision == "yes"
    assert verdict.effect.centre == pytest.approx(0.29)


def test_the_control_is_the_same_however_many_samples_an_arm_hands_on(chain):
    ends = [0.1, 0.11, 0.12]
    arm = [
        chain({"precision": [0.9, end]}, seed=seed, settings={"budget.num_synthetic": 40})
        for seed, end in enumerate(ends)
    ]
    control = [chain({"precision": [0.9, 0.9]}, seed=seed, regime="real") for seed in range(3)]
    assert decisions(arm + control)["hallucinated data"].decision == "yes"


def test_a_missing_metric_is_named_and_what_is_left_can_only_say_yes(chain):
    rng = np.random.default_rng(0)
    for factor, decision in ((2.0, "yes"), (1.0, "not decidable")):
        arm = [[1.0, *(factor + 0.01 * rng.normal(size=2))] for _ in range(5)]
        control = [[1.0, *(1.0 + 0.01 * rng.normal(size=2))] for _ in range(5)]
        verdict = decisions(pairs(chain, arm, control, "held_out_loss"))["any rise of risk"]
        assert verdict.decision == decision
        assert ("fid_infinity was not measured" in verdict.reason) == (decision == "not decidable")


def test_pairs_without_a_number_are_left_out_and_counted(chain):
    arm = [[0.9, 0.8], [0.9, 0.6], [0.9, math.nan]]
    verdict = decisions(pairs(chain, arm, [[0.9, 0.9]] * 3))["hallucinated data"]
    assert verdict.n == 2
    assert "1 of 3 pairs without a number" in verdict.reason


@pytest.mark.parametrize(("num_seeds", "decision"), [(3, "not decidable"), (4, "not decidable"), (5, "yes")])
def test_equal_pairs_are_decided_by_sign_flips_which_need_five(chain, num_seeds, decision):
    runs = pairs(chain, [[0.9, 0.1]] * num_seeds, [[0.9, 0.9]] * num_seeds)
    (verdict,) = decisions(runs, definitions=[HALLUCINATION], stages=[]).values()
    assert (verdict.decision, verdict.p) == (decision, 0.5**num_seeds)
    assert (f"p cannot go below {0.5**num_seeds:.2g}" in verdict.reason) == (decision != "yes")


def test_an_arm_that_is_its_control_has_not_collapsed(chain):
    (verdict,) = decisions(
        pairs(chain, [[0.9, 0.8]] * 3, [[0.9, 0.8]] * 3), definitions=[HALLUCINATION], stages=[]
    ).values()
    assert (verdict.decision, verdict.p) == ("no", 1.0)


def test_the_eight_are_corrected_together_and_the_stages_are_not(chain):
    verdicts = decisions(simulate(chain, np.random.default_rng(0), {"precision": 0.96**T}, noise=0.03))
    tested = [verdicts[d.name] for d in EIGHT if not math.isnan(verdicts[d.name].p)]
    assert len(tested) == 7
    np.testing.assert_allclose([v.p_holm for v in tested], holm([v.p for v in tested]))
    for stage in STAGES:
        assert verdicts[stage.name].p == verdicts[stage.name].p_holm


def test_early_collapse_needs_two_generations_in_a_row(chain):
    factors = np.ones(LAST + 1)
    factors[3] = 0.5
    runs = simulate(chain, np.random.default_rng(0), {"tail_coverage": factors})
    assert decisions(runs)["early collapse"].decision == "no"
    factors[4] = 0.5
    early = decisions(simulate(chain, np.random.default_rng(0), {"tail_coverage": factors}))["early collapse"]
    assert (early.decision, early.metric) == ("yes", "tail_coverage")
    assert "at generations 3 and 4" in early.reason


def test_early_collapse_is_not_decidable_where_too_few_chains_reached_a_generation(chain):
    runs = simulate(chain, np.random.default_rng(0), {})
    cut = [replace(run, records=run.records[:3]) if run.seed > 0 else run for run in runs]
    early = decisions(cut)["early collapse"]
    assert early.decision == "not decidable"
    assert "at generation 2: " in early.reason


def test_early_collapse_ends_where_the_variance_goes(chain):
    tails = {"tail_coverage": np.where(T > 0, 0.5, 1.0)}
    gone = tails | {"within_class_variance_ratio": np.where(T > 0, 0.7, 1.0)}
    early = decisions(simulate(chain, np.random.default_rng(0), gone))["early collapse"]
    assert (early.decision, early.p) == ("no", 1.0)
    assert "if this is collapse, it is late" in early.reason
    later = tails | {"within_class_variance_ratio": np.where(T > 2, 0.7, 1.0)}
    early = decisions(simulate(chain, np.random.default_rng(0), later))["early collapse"]
    assert early.decision == "yes"
    assert "at generations 1 and 2" in early.reason


def test_early_collapse_by_hand(chain):
    # Nine tenths of the control minus the arm is 0.06 +- 0.01 at generation 1 and 0.16 +- 0.01 at generation 2.
    curves = {"within_class_variance_ratio": [0.9] * 3, "num_classes_covered": [10.0] * 3}
    runs = []
    for seed, shift in enumerate((-0.01, 0.0, 0.01)):
        runs.append(chain(curves | {"tail_coverage": [0.8, 0.66 - shift, 0.56 - shift]}, seed=seed))
        runs.append(chain(curves | {"tail_coverage": [0.8, 0.8, 0.8]}, seed=seed, regime="real"))
    (verdict,) = decisions(runs, definitions=[], stages=[EarlyCollapse()]).values()
    t = 0.06 / (0.01 / math.sqrt(3))
    assert verdict.p == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)))
    assert verdict.effect.centre == pytest.approx(0.14 / 0.8)
    # The only other sign was not measured, and what is shown is shown without it.
    assert verdict.decision == "yes"


def test_late_collapse_is_against_the_control_at_the_same_generation(chain):
    rng = np.random.default_rng(0)
    arm = [[0.9, 0.4 + 0.01 * rng.normal()] for _ in range(5)]
    for last, decision in ((0.9, "yes"), (0.7, "not decidable")):
        control = [[0.9, last + 0.01 * rng.normal()] for _ in range(5)]
        (verdict,) = decisions(
            pairs(chain, arm, control, "within_class_variance_ratio"), definitions=[], stages=[LateCollapse()]
        ).values()
        assert verdict.decision == decision
        assert verdict.effect.centre == pytest.approx(1 - 0.4 / last, abs=0.03)


def laws(chain, sizes, arm_exponent, *, num_seeds=3):
    """Arms and controls whose error is n^-1 at first; the arm's exponent changes, seeds differ a little."""
    runs = []
    for seed, size in product(range(num_seeds), sizes):
        start = (3.0 + seed) * size**-1.0
        for regime, exponent in (("replace", arm_exponent + 0.01 * seed), ("real", 1.0)):
            curve = [start, (3.0 + seed) * float(size) ** -exponent]
            runs.append(chain({"fid_infinity": curve}, seed=seed, regime=regime, num_real=size))
    return runs


def test_a_scaling_law_that_flattens_is_found_with_its_exponent(chain):
    for arm, verdicts in judge(laws(chain, (100, 200, 400, 800), 0.6)).items():
        verdict = next(v for v in verdicts if v.definition == "changed scaling law")
        assert "replace" in arm
        assert verdict.decision == "yes"
        assert verdict.effect.centre == pytest.approx(0.4 - 0.01)
        assert "exponent over 4 sizes" in verdict.reason


def test_a_scaling_law_that_stays_or_steepens_is_not(chain):
    for verdicts in judge(laws(chain, (100, 200, 400), 1.2)).values():
        verdict = next(v for v in verdicts if v.definition == "changed scaling law")
        assert verdict.decision == "no"
        assert verdict.effect.centre < 0


def test_two_sizes_or_an_error_below_zero_decide_no_scaling_law(chain):
    for verdicts in judge(laws(chain, (100, 200), 0.5)).values():
        assert "needs runs and controls at 3 sizes of the real pool or more, found 2" in verdicts[3].reason
    runs = laws(chain, (100, 200), 0.5)
    for seed, regime in product(range(3), ("replace", "real")):
        runs.append(chain({"fid_infinity": [0.01, -0.01]}, seed=seed, regime=regime, num_real=400))
    for verdicts in judge(runs).values():
        assert "not above 0" in verdicts[3].reason
        assert verdicts[3].decision == "not decidable"


def test_controls_are_not_judged(chain):
    runs = simulate(chain, np.random.default_rng(0), {})
    assert list(judge(runs)) == ["replace"]
    assert judge([run for run in runs if run.choices["regime"] == "real"]) == {}


def test_the_sensitivity_table_shows_where_a_threshold_decides(chain):
    # A loss of 12 % in tail coverage: shown to exceed 5 and 10 %, not 15 %.
    runs = simulate(chain, np.random.default_rng(0), {"tail_coverage": np.where(T > 0, 0.88, 1.0)}, noise=0.002)
    table = threshold_sensitivity(runs)
    assert table["replace", TAILS.name] == {0.5: "yes", 1.0: "yes", 1.5: "no"}
    assert table["replace", "early collapse"] == {0.5: "yes", 1.0: "yes", 1.5: "no"}
    # Definitions without a threshold do not depend on it.
    assert len(set(table["replace", DIVERGING.name].values())) == 1


@pytest.mark.parametrize(("start", "undertrained"), [(0.2, True), (0.44, True), (0.47, False), (0.9, False)])
def test_the_gate_marks_an_arm_whose_recall_starts_below_half_of_the_floor(chain, floors, start, undertrained):
    assert floors["recall"] == 0.91
    assert QualityGate().undertrained([chain({"recall": [start, 0.1]})]) is undertrained


@pytest.mark.parametrize(("start", "undertrained"), [(3.9, False), (4.1, True)])
def test_the_gate_takes_a_factor_of_a_distance(chain, floors, start, undertrained):
    assert floors["fid"] == 2.0
    assert QualityGate("fid").undertrained([chain({"fid": [start]})]) is undertrained


def test_a_gate_without_its_metric_says_nothing(chain):
    assert QualityGate().undertrained([chain({"fid": [1.0]})]) is None


def test_undefined_numbers_do_not_open_the_gate(chain):
    runs = [chain({"recall": [value]}, seed=seed) for seed, value in enumerate((0.1, math.nan))]
    assert QualityGate().undertrained(runs) is True


def test_every_definition_says_its_rule_with_its_thresholds():
    for definition in (*EIGHT, *STAGES):
        assert definition.scaled(1.0) == definition
        assert len(definition.rule) > 20
    assert "fid_infinity up by more than 4 times the control at generation 0, or held_out_loss" in CATASTROPHIC.rule
    assert "down by more than 0.15 times the control" in EarlyCollapse().scaled(1.5).rule
    assert ANY_RISE.rule == "change since the control's generation 0: fid_infinity up, or held_out_loss up"


def test_a_rise_is_decided_also_where_the_control_is_as_good_as_can_be(chain):
    """A FID at infinity is about 0 there, and nothing can be relative to it; a threshold of 0 needs no scale."""
    of_regime = {"real": [-0.008, -0.007, -0.009], "replace": [-0.008, 1.0, 2.0]}
    runs = [
        chain({"fid_infinity": [v * (1 + 0.01 * seed) for v in curve]}, seed=seed, regime=regime)
        for regime, curve in of_regime.items()
        for seed in range(3)
    ]
    verdicts = {verdict.definition: verdict for verdict in judge(runs)["replace"]}
    assert verdicts["any rise of risk"].decision == "yes"
    assert verdicts["any rise of risk"].effect.centre == pytest.approx(2.02, abs=0.02)
    assert verdicts["catastrophic rise of risk"].decision == "not decidable"
    assert "not above 0" in verdicts["catastrophic rise of risk"].reason
