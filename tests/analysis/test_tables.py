import math
from dataclasses import replace

import numpy as np
import pytest

from collapse_bench.analysis.formats import to_html, to_markdown, to_text
from collapse_bench.analysis.ranking import rank
from collapse_bench.analysis.runs import HEADLINE, find_runs, load_run, to_frame
from collapse_bench.analysis.statistics import SeedInterval
from collapse_bench.analysis.tables import (
    FLOOR,
    arm_table,
    control_hint,
    curve_table,
    format_arm_table,
    format_curve_table,
    format_detection_table,
    format_generation_table,
    format_interval,
    format_paired_table,
    format_value,
    format_verdict_reasons,
    format_verdict_table,
    generation_table,
    paired_table,
    resource_table,
    sensitivity_table,
    summary_frame,
    verdict_gaps,
    verdict_rules,
    verdict_table,
    zero_note,
)
from collapse_bench.errors import RunDirError
from collapse_bench.records import Score


def test_the_table_of_a_run_starts_with_the_floor(make_run, floors, model_value):
    table = generation_table(load_run(make_run("a", seed=1, num_generations=2)))
    assert list(table.index) == [FLOOR, 0, 1, 2]
    assert list(table.columns) == list(HEADLINE)
    assert table.loc[FLOOR].to_dict() == {metric: floors[metric] for metric in HEADLINE}
    for generation in range(3):
        expected = [model_value(metric, generation, 1, 0.1) for metric in HEADLINE]
        np.testing.assert_allclose(table.loc[generation].to_numpy(), expected)


def test_the_table_of_kept_images_is_another_one(make_run):
    run = load_run(make_run("a"))
    difference = generation_table(run, "kept") - generation_table(run)
    np.testing.assert_allclose(difference.drop(FLOOR).to_numpy(), 0.001)
    assert (difference.loc[FLOOR] == 0).all()


def test_the_table_over_arms_has_the_last_value_and_the_change_since_generation_0(sweep, model_value):
    table = arm_table(find_runs(sweep))
    row = table[(table["arm"] == "replace") & (table["metric"] == "recall")].iloc[0]
    last = [model_value("recall", 3, seed, 0.1) for seed in range(3)]
    first = [model_value("recall", 0, seed, 0.1) for seed in range(3)]
    assert (row["generation"], row["num_seeds"], row["value"].n, row["value"].kind) == (3, 3, 3, "t")
    assert row["value"].centre == pytest.approx(np.mean(last))
    assert row["value"].high - row["value"].centre == pytest.approx(4.302652730 * np.std(last, ddof=1) / math.sqrt(3))
    assert row["change"].centre == pytest.approx(np.mean(last) - np.mean(first))
    # The seeds shift first and last alike, so the change has no spread.
    assert row["change"].high - row["change"].low == pytest.approx(0.0, abs=1e-12)


def test_only_seeds_that_reached_the_last_generation_count_and_n_says_so(make_run, model_value):
    runs = [load_run(make_run(f"r{s}", seed=s, reached=1 if s == 2 else None)) for s in range(3)]
    row = arm_table(runs).set_index("metric").loc["fid"]
    assert (row["generation"], row["value"].n, row["num_seeds"]) == (3, 2, 3)
    assert row["value"].centre == pytest.approx((model_value("fid", 3, 0, 0.1) + model_value("fid", 3, 1, 0.1)) / 2)
    assert format_arm_table(runs, arm_table(runs)).loc["replace, control", "seeds"] == "2 of 3"


def test_one_seed_is_shown_without_an_interval(make_run):
    runs = [load_run(make_run("a"))]
    text = format_arm_table(runs, arm_table(runs))
    assert text.loc["replace, control", "seeds"] == "1"
    assert text.loc["replace, control", "FID ↓"] == "40.0\n+30.0"
    assert "±" not in to_text(text)


def test_a_column_that_is_zero_throughout_is_a_sentence_instead(chain):
    of_arm = {"replace": [0.0, 0.0], "mix": [0.0, 0.0]}
    runs = [chain({"recall": [0.9, 0.5], "duplicates": d}, regime=regime) for regime, d in of_arm.items()]
    text = format_arm_table(runs, arm_table(runs))
    assert list(text.columns) == ["last", "seeds", "recall ↑"]
    assert "duplicates" not in to_text(format_paired_table(runs))
    assert zero_note(runs) == ["0 in every run and generation and at the floor, so not shown: duplicates"]


def test_a_column_with_one_number_above_zero_is_shown(chain):
    of_arm = {"replace": [0.0, 0.01, 0.0], "mix": [0.0, 0.0, 0.0]}
    runs = [chain({"recall": [0.9] * 3, "duplicates": d}, regime=regime) for regime, d in of_arm.items()]
    assert "duplicates ↓" in format_arm_table(runs, arm_table(runs)).columns
    assert zero_note(runs) == []


def test_a_table_of_zeros_alone_is_shown(chain):
    runs = [chain({"duplicates": [0.0, 0.0]}, regime=regime) for regime in ("replace", "mix")]
    assert "duplicates ↓" in format_arm_table(runs, arm_table(runs)).columns


def test_a_floor_of_another_number_of_images_is_not_shown_beside_what_is_kept(chain):
    run = chain({"fid": [1.0, 2.0]})
    kept = tuple(
        replace(record, scores=(*record.scores, Score("fid", "kept", 3.0, 100, 450, "lower"))) for record in run.records
    )
    runs = [replace(run, records=kept)]
    assert arm_table(runs).iloc[0]["floor"] == run.floor("fid")
    assert math.isnan(arm_table(runs, "kept").iloc[0]["floor"])
    assert format_arm_table(runs, arm_table(runs, "kept")).loc[FLOOR, "FID ↓"] == "n/a"
    summary = summary_frame(runs).set_index(["of", "generation"])
    assert summary.loc[("model", 1), "floor"] == run.floor("fid")
    assert math.isnan(summary.loc[("kept", 1), "floor"])


def test_what_is_flagged_and_what_a_change_costs_is_a_row_per_arm_that_has_it(chain):
    def with_scores(run, *scores):
        last = run.records[-1]
        more = tuple(Score(metric, of, value, 10, 10, "floor") for metric, of, value in scores)
        return replace(run, records=(*run.records[:-1], replace(last, scores=(*last.scores, *more))))

    plain = chain({"fid": [1.0, 2.0]})
    flags = (("flagged", "kept", 0.99), ("flagged", "model", 0.02), ("flagged", "control", 0.01))
    costs = (("fid", "kept", 2.5), ("fid", "unchanged", 2.25))
    marking = with_scores(chain({"fid": [1.0, 2.0]}, mitigation="watermark"), *flags, *costs)
    moving = with_scores(chain({"fid": [1.0, 2.0]}, mitigation="anchoring"), *costs)
    table = format_detection_table([plain, marking, moving])
    assert {arm: list(row) for arm, row in zip(table.index, table.to_numpy(), strict=True)} == {
        "watermark": ["1", "1", "0.990", "0.020", "0.010", "2.50", "2.25"],
        "anchoring": ["1", "1", "n/a", "n/a", "n/a", "2.50", "2.25"],
    }
    assert len(format_detection_table([plain])) == 0


def test_the_paired_table_takes_out_what_a_seed_does_to_both_arms(sweep, model_value):
    table = paired_table(find_runs(sweep), "replace")
    assert set(table["arm"]) == {"accumulate"}
    difference = table.set_index("metric").loc["fid", "difference"]
    expected = model_value("fid", 3, 0, 0.02) - model_value("fid", 3, 0, 0.1)
    assert (difference.centre, difference.low, difference.high) == pytest.approx((expected,) * 3)
    assert difference.n == 3


def test_the_paired_table_compares_at_a_generation_that_both_arms_have(make_run):
    runs = [load_run(make_run("long", num_generations=5))]
    runs += [load_run(make_run("short", choices={"regime": "accumulate"}, num_generations=2))]
    runs_table = paired_table(runs, next(iter(dict.fromkeys(arm_table(runs)["arm"]))))
    assert set(runs_table["generation"]) == {2}


def test_an_unknown_baseline_is_an_error_that_lists_the_arms(sweep):
    with pytest.raises(RunDirError, match="no arm 'nothing'; the arms are: replace; accumulate"):
        paired_table(find_runs(sweep), "nothing")


def test_each_arm_is_compared_with_its_own_control_unless_one_is_named(chain):
    cells = [("replace", "control"), ("replace", "neon"), ("augment", "control"), ("augment", "neon")]
    values = dict(zip(cells, (8.0, 7.0, 4.0, 1.0), strict=True))
    runs = [
        chain({"fid": [1.0, value + seed]}, regime=regime, mitigation=mitigation, seed=seed)
        for (regime, mitigation), value in values.items()
        for seed in range(2)
    ]
    table = paired_table(runs).set_index("arm")
    assert dict(table["minus"]) == {
        "augment, control": "replace, control",
        "replace, neon": "replace, control",
        "augment, neon": "augment, control",
    }
    differences = {arm: difference.centre for arm, difference in table["difference"].items()}
    assert differences == {"augment, control": -4.0, "replace, neon": -1.0, "augment, neon": -3.0}
    assert set(paired_table(runs, "replace, neon")["minus"]) == {"replace, neon"}
    ranked = [(place.arm, place.control) for ranking in rank(runs, "fid") for place in ranking.places]
    assert {arm: control for arm, control in ranked if control is not None} == dict(table["minus"])


def test_a_sweep_over_one_setting_has_no_control_and_nothing_is_subtracted(chain):
    runs = [chain({"fid": [1.0, 2.0]}, num_real=n, settings={"dataset.num_real": n}) for n in (100, 200)]
    assert len(paired_table(runs)) == 0
    (ranking,) = rank(runs, "fid")
    assert [(place.control, place.improvement) for place in ranking.places] == [(None, None)] * 2


def test_a_single_arm_has_an_empty_paired_table(make_run):
    assert len(format_paired_table([load_run(make_run("a"))], "replace, control")) == 0


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("fid", 41.234, "41.2"),
        ("fid", 2.0, "2.00"),
        ("fid", 1234.5, "1,234"),
        ("kid", 0.00012345, "0.00012"),
        ("recall", 0.81234, "0.812"),
        ("recall", -0.00001, "0.000"),
        ("num_classes_covered", 10.0, "10"),
        ("num_classes_covered", 9.4, "9.4"),
        ("recall", math.nan, "n/a"),
    ],
)
def test_values_are_shown_with_as_many_digits_as_they_carry(metric, value, text):
    assert format_value(metric, value) == text


def test_a_half_width_is_not_rounded_to_nothing():
    assert format_interval("class_kl", SeedInterval(1.361, 1.3595, 1.3625, 3, "t")) == "1.361 ± 0.002"
    assert format_interval("recall", SeedInterval(0.5, 0.5, 0.5, 3, "t")) == "0.500 ± 0.000"


@pytest.mark.parametrize(("p", "shown"), [(0.0496, "0.0496"), (0.05, "0.050"), (0.0504, "0.0504"), (0.2, "0.200")])
def test_a_p_value_shows_on_which_side_of_the_level_it_lies(judged, p, shown):
    verdicts = verdict_table(judged).assign(p_holm=p)
    assert f"p = {shown}, n = 3" in format_verdict_table(verdicts).loc["hallucinated data", "replace"]


def test_intervals_show_their_kind():
    assert format_interval("fid", SeedInterval(41.23, 38.13, 44.33, 3, "t")) == "41.2 ± 3.1"
    assert format_interval("fid", SeedInterval(41.23, 38.0, 45.0, 12, "bootstrap")) == "41.2 [38.0, 45.0]"
    assert format_interval("fid", SeedInterval(41.23, None, None, 1, "none"), signed=True) == "+41.2"


def test_text_fits_the_width_and_keeps_every_number(sweep):
    table = format_arm_table(find_runs(sweep), arm_table(find_runs(sweep)))
    text = to_text(table, width=80)
    assert max(map(len, text.splitlines())) <= 80
    for column in table.columns:
        for cell in table[column]:
            assert all(line in text for line in cell.split("\n"))


def test_markdown_and_html_hold_one_row_per_arm(sweep):
    table = format_arm_table(find_runs(sweep), arm_table(find_runs(sweep)))
    markdown = to_markdown(table).splitlines()
    assert len(markdown) == 2 + 1 + 2
    assert len({line.count("|") for line in markdown}) == 1
    assert to_html(table).count("<tr>") == 1 + 1 + 2


def test_html_escapes_names(make_run):
    runs = [load_run(make_run(f"r{i}", choices={"regime": name})) for i, name in enumerate(("<b>", "replace"))]
    page = to_html(format_arm_table(runs, arm_table(runs)))
    assert "&lt;b&gt;</th>" in page
    assert '<th scope="row"><b>' not in page


def test_the_generation_table_as_text_has_the_same_rows(make_run):
    text = format_generation_table(load_run(make_run("a")))
    assert list(text.index) == [FLOOR, "0", "1", "2", "3"]
    assert text.loc["2", "FID ↓"] == "30.0"


def test_resources_are_means_over_the_runs_of_an_arm(sweep):
    table = resource_table(find_runs(sweep))
    row = table.loc["replace"]
    assert (row["runs"], row["gradient steps"], row["candidates per kept image"]) == ("3", "1,200", "2")
    assert row["seconds"] == "fit 12.0\nsample 4.0\nmeasure 2.0"


@pytest.fixture
def judged(chain):
    """An arm whose precision falls, one that starts undertrained, and their control, three seeds each."""
    arms = {"replace": ([0.9, 0.5, 0.4], 0.8), "augment": ([0.9, 0.9, 0.89], 0.2), "real": ([0.9, 0.9, 0.9], 0.8)}
    return [
        chain(
            {
                "precision": [p + 0.003 * seed * t * (regime != "real") for t, p in enumerate(curve)],
                "recall": [start] * 3,
            },
            **keys,
        )
        for regime, (curve, start) in arms.items()
        for seed in range(3)
        for keys in [{"seed": seed, "regime": regime}]
    ]


def test_the_verdicts_are_a_row_per_arm_and_definition_without_the_control(judged):
    table = verdict_table(judged)
    assert set(table["arm"]) == {"replace", "augment"}
    assert len(table) == 2 * 10
    row = table[(table["arm"] == "replace") & (table["definition"] == "hallucinated data")].iloc[0]
    assert (row["decision"], row["n"], row["undertrained"]) == ("yes", 3, False)
    assert row["effect"].centre == pytest.approx(0.5 - 0.006)
    assert "precision down by" in row["reason"]


def test_the_matrix_of_verdicts_shows_effect_interval_and_n_and_marks_undertrained_arms(judged):
    text = format_verdict_table(verdict_table(judged))
    assert list(text.columns) == ["replace", "augment (undertrained)"]
    assert list(text.index) == list(verdict_rules())
    assert text.loc["hallucinated data", "replace"] == "yes\nprecision\n+0.494 ± 0.015\np < 0.001, n = 3"
    assert text.loc["hallucinated data", "augment (undertrained)"].startswith("no\n")
    assert text.loc["entangled modes", "replace"] == "not decidable"
    assert (
        "entanglement was not measured"
        in format_verdict_reasons(verdict_table(judged)).loc["entangled modes", "replace"]
    )


def test_an_arm_without_a_generation_has_no_verdicts(judged, chain):
    empty = replace(chain({"precision": [0.9]}, regime="window"), records=())
    assert set(verdict_table([*judged, empty])["arm"]) == {"replace", "augment"}


def test_what_is_not_decidable_says_why_once(judged):
    gaps = verdict_gaps(verdict_table(judged))
    assert gaps["fid_infinity was not measured in both the arm and the control"] == [
        "catastrophic rise of risk",
        "any rise of risk",
        "diverging risk",
    ]
    assert not any("precision" in gap for gap in gaps)


def test_the_sensitivity_table_has_a_column_per_factor(judged):
    table = sensitivity_table(judged)
    assert list(table.columns) == ["thresholds x 0.5", "thresholds x 1", "thresholds x 1.5"]
    assert set(table.loc["replace: hallucinated data"]) == {"yes"}


def test_without_a_control_there_is_no_matrix_and_one_line_says_how_to_get_it(judged):
    alone = [run for run in judged if run.choices["regime"] == "replace"]
    assert len(format_verdict_table(verdict_table(alone))) == 0
    hint = control_hint(verdict_table(alone))
    assert hint is not None
    assert "regime=real mitigation=control" in hint
    assert "\n" not in hint
    assert control_hint(verdict_table(judged)) is None


def test_the_curves_as_numbers_are_a_row_per_arm_and_metric(judged):
    table = curve_table(judged)
    assert list(zip(table["arm"], table["metric"], strict=True)) == [
        (arm, metric) for arm in ("replace", "augment", "real") for metric in ("precision", "recall")
    ]
    text = format_curve_table(judged, "precision")
    assert text.loc["replace", "final value"] == "0.406 ± 0.015"
    assert text.loc["real", "half-life"] == "never (n = 3)"


def test_a_half_life_says_how_many_seeds_never_lost_half(chain):
    runs = [chain({"recall": curve}, seed=seed) for seed, curve in enumerate(([0.8, 0.4, 0.2], [0.8, 0.7, 0.6]))]
    text = format_curve_table(runs, "recall")
    first, second = text.loc["replace, control", "half-life"].split("\n")
    assert (first.split(" ")[0], second) == ("1.500", "1 of 2 never")
    assert text.loc["replace, control", "area of relative degradation"] == "n/a"


def test_the_floor_of_a_number_of_the_training_pool_is_that_of_its_generation(chain):
    run = chain({"copies_of_training": [0.3, 0.2]})
    records = [
        replace(record, scores=tuple(replace(s, value=0.1 * t) if s.of == "control" else s for s in record.scores))
        for t, record in enumerate(run.records)
    ]
    run = replace(run, records=tuple(records))
    assert summary_frame([run])["floor"].tolist() == [0.0, 0.1]
    assert arm_table([run])["floor"].tolist() == [0.1]
    assert to_frame([run]).query("of == 'model'")["floor"].tolist() == [0.0, 0.1]
