import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from collapse_bench.analysis.ranking import budget_classes, budget_of, differing_entries, rank
from collapse_bench.analysis.report import write_report
from collapse_bench.analysis.runs import Run, find_runs, group_by_arm, load_run, refused_arms, total_spent
from collapse_bench.analysis.statistics import rank_intervals
from collapse_bench.analysis.tables import (
    arm_table,
    control_hint,
    format_arm_table,
    format_ranking_table,
    format_verdict_table,
    ranking_notes,
    refusals,
    resource_table,
    verdict_table,
)
from collapse_bench.cli.report import main
from collapse_bench.errors import RunDirError
from collapse_bench.records import pack_ids

REASON = "mitigation=optimal_mix weighs real against synthetic images, and this regime trains on no real ones"


def spending(run: Run, **changes) -> Run:
    """The run with another cost, the same in every generation."""
    return replace(run, records=tuple(replace(r, spent=replace(r.spent, **changes)) for r in run.records))


@pytest.fixture
def arms(chain):
    """Runs whose metric ends at these values, one per seed, by regime."""

    def build(metric: str, **of_regime: list[float]) -> list[Run]:
        return [
            chain({metric: [0.9, value]}, seed=seed, regime=regime)
            for regime, values in of_regime.items()
            for seed, value in enumerate(values)
        ]

    return build


@pytest.fixture
def make_refused(make_run):
    """A run directory as ``collapse-run -m`` leaves it where parts make no sense together."""

    def make(name: str, **options):
        path = make_run(name, reached=0, grids=False, **options)
        shutil.rmtree(path / "gen_000")
        (path / "status.json").write_text(json.dumps({"state": "refused", "generation": -1, "error": REASON}))
        return path

    return make


def placed(ranking) -> list[tuple]:
    return [(place.arm, place.rank, place.low, place.high) for place in ranking.places]


def test_a_budget_is_what_a_fair_comparison_holds_equal(chain):
    assert budget_of(chain({"fid": [1.0, 2.0]})) == {
        "generations": 2,
        "gradient steps": 600,
        "network evaluations per sample": 20,
        "candidates per kept image": 2.0,
        "other samples": 0,
        "judging evaluations": 0,
        "real images seen": 897,
    }


def test_time_memory_and_what_the_store_knew_belong_to_no_budget(chain):
    slow = spending(chain({"fid": [1.0]}), seconds={"fit": 99.0}, peak_memory_mb=9000, reused=(), networks_trained=7)
    assert budget_of(slow) == budget_of(chain({"fid": [1.0]}))


def test_arms_that_judge_with_networks_have_a_budget_of_their_own(chain):
    judging = spending(chain({"fid": [1.0, 1.0]}), judging_evaluations=70)
    assert budget_of(judging)["judging evaluations"] == 140
    assert budget_of(judging) != budget_of(chain({"fid": [1.0, 1.0]}))


def test_the_card_has_the_memory_of_a_gpu_where_there_was_one(chain):
    run = spending(chain({"fid": [1.0]}), peak_memory_mb=2000, peak_device_memory_mb=1500)
    assert resource_table([run]).iloc[0]["peak memory, MiB"] == "2,000\nGPU 1,500"


def test_a_real_image_counts_once_however_many_parts_and_generations_have_seen_it(chain):
    run = chain({"fid": [1.0, 2.0]})
    seen = [
        {"generator": [0, 1, 2, 3], "verifier": [3, 70]},  # the verifier is learnt once
        {"generator": [3, 4]},  # fresh data: an image that generation 0 did not have
    ]
    records = [
        replace(
            record,
            spent=replace(
                record.spent,
                real_images={part: pack_ids(ids) for part, ids in parts.items()},
                real_images_seen={part: len(ids) for part, ids in parts.items()},
            ),
        )
        for record, parts in zip(run.records, seen, strict=True)
    ]
    run = replace(run, records=tuple(records))
    assert total_spent(run).real_images_seen == {"generator": 5, "verifier": 2}
    assert budget_of(run)["real images seen"] == 6
    card = resource_table([run]).iloc[0]
    assert card["real images seen"] == "generator 5\nverifier 2\ntogether 6"


def test_the_card_has_every_item_and_says_what_seconds_leave_out(make_run):
    path = make_run("a", config={"keep": "all"}, grids=False)
    card = resource_table([load_run(path)]).iloc[0]
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert dict(card) == {
        "runs": "1",
        "generations": "4",
        "gradient steps": "1,200",
        "networks trained": "4",
        "network evaluations per sample": "20",
        "candidates per kept image": "2",
        "other samples": "0",
        "judging evaluations": "0",
        "real images seen": "generator 897",
        "seconds": "fit 12.0\nsample 4.0\nmeasure 2.0",
        "reused, not in seconds": "1 fit",
        "peak memory, MiB": "0",
        "disk, MiB": f"{size / 2**20:.2f}\nkeep=all",
    }


def test_ranks_and_their_intervals_are_those_computed_by_hand(arms):
    # Three seeds: a resample has the third one 0, 1, 2 or 3 times, with probability 8/27, 12/27, 6/27 and 1/27.
    # "augment" has the means 1, 3, 5 and 7 in them, "mix" always 2: augment is first in 8 of 27.
    (ranking,) = rank(arms("fid", replace=[10, 10, 10], augment=[1, 1, 7], mix=[2, 2, 2]), "fid")
    assert placed(ranking) == [("mix", 1, 1, 2), ("augment", 2, 1, 2), ("replace", 3, 3, 3)]
    assert [place.control for place in ranking.places] == ["replace", "replace", None]
    assert [place.value.centre for place in ranking.places] == [2, 3, 10]
    assert [place.improvement and place.improvement.centre for place in ranking.places] == [1.0, 1.0, None]


def test_two_seeds_give_ranks_without_intervals_and_no_chance_of_improvement(arms):
    (ranking,) = rank(arms("fid", replace=[10, 10], mix=[2, 2]), "fid")
    assert placed(ranking) == [("mix", 1, None, None), ("replace", 2, None, None)]
    assert [place.improvement for place in ranking.places] == [None, None]


def test_the_bootstrap_is_paired_so_what_a_seed_does_to_all_arms_moves_no_rank():
    seeds = np.array([0.0, 50.0, 100.0])
    assert rank_intervals(np.stack([seeds, seeds + 1]), np.random.default_rng(0)) == [(1, 1), (2, 2)]


def test_equal_arms_have_equal_ranks(arms):
    (ranking,) = rank(arms("recall", replace=[0.4, 0.5, 0.6], mix=[0.4, 0.5, 0.6], augment=[0.3] * 3), "recall")
    assert placed(ranking) == [("replace", 1, 1, 1), ("mix", 1, 1, 1), ("augment", 3, 3, 3)]


@pytest.mark.parametrize(
    ("metric", "of_regime", "best_first"),
    [
        ("recall", {"replace": [0.1, 0.2], "mix": [0.7, 0.8]}, ["mix", "replace"]),
        # Distances from 1 are 0.3 and 0.2; seed by seed, so that misses in two directions do not cancel.
        ("within_class_variance_ratio", {"replace": [1.3, 0.7], "mix": [0.8, 0.8]}, ["mix", "replace"]),
        # The floor is 0.05.
        ("tail_mass", {"replace": [0.01, 0.01], "mix": [0.06, 0.06]}, ["mix", "replace"]),
    ],
)
def test_the_best_is_where_the_metric_says(arms, metric, of_regime, best_first):
    (ranking,) = rank(arms(metric, **of_regime), metric)
    assert [place.arm for place in ranking.places] == best_first


def test_an_arm_of_one_seed_is_ranked_without_an_interval_and_the_others_keep_theirs(arms):
    runs = arms("fid", replace=[10, 10, 10], mix=[1, 2, 3], augment=[5])
    (ranking,) = rank(runs, "fid")
    assert placed(ranking) == [("mix", 1, 1, 1), ("augment", 2, None, None), ("replace", 3, 3, 3)]
    text = format_ranking_table(runs)
    assert text.loc["augment", "rank by FID ↓"].split("\n")[0] == "2 of 3, n = 1"
    assert text.loc["mix", "rank by FID ↓"].split("\n") == [
        "1 of 3 [1, 1], n = 3",
        "2.00 ± 2.48",
        "P = 1.00",
    ]


def test_arms_are_ranked_on_the_seeds_that_they_share(arms):
    (ranking,) = rank(arms("fid", replace=[2, 2, 2, 99], mix=[3, 3, 3]), "fid")
    assert placed(ranking) == [("replace", 1, 1, 1), ("mix", 2, 2, 2)]
    assert [place.value.n for place in ranking.places] == [3, 3]


@pytest.mark.parametrize("value", [math.nan, None])
def test_an_arm_with_a_run_without_a_number_is_not_ranked(chain, arms, value):
    runs = arms("fid", replace=[10, 10, 10], mix=[1, 2, 2])
    curves = {"fid": [1.0, value], "recall": [0.5, 0.5]} if value is not None else {"recall": [0.5, 0.5], "fid": [1.0]}
    runs += [chain({"fid": [1.0, 1.0]}, regime="augment"), chain(curves, regime="augment", seed=1)]
    (ranking,) = rank(runs, "fid")
    assert placed(ranking) == [("mix", 1, 1, 1), ("replace", 2, 2, 2), ("augment", None, None, None)]
    assert format_ranking_table(runs).loc["augment", "rank by FID ↓"] == "n/a"


def test_arms_of_unequal_budgets_are_not_ranked_against_each_other_unless_asked(arms):
    runs = arms("fid", replace=[10, 10], mix=[9, 9], augment=[1, 1])
    runs = [spending(run, gradient_steps=450, candidates=900) if "augment" in str(run.path) else run for run in runs]
    classes = budget_classes(runs)
    assert [list(of_class.arms) for of_class in classes] == [["replace", "mix"], ["augment"]]
    assert differing_entries(classes) == {"gradient steps": [600, 900], "candidates per kept image": [1.0, 2.0]}
    apart = rank(runs, "fid")
    assert [[place.arm for place in ranking.places] for ranking in apart] == [["mix", "replace"], ["augment"]]
    assert [[place.control for place in ranking.places] for ranking in apart] == [["replace", None], [None]]
    differences = "which differ in gradient steps (600 | 900), candidates per kept image (1 | 2)"
    assert ranking_notes(runs) == [
        f"Not ranked against each other: the 2 budgets, {differences}; --across-budgets ranks them anyway."
    ]
    (together,) = rank(runs, "fid", across_budgets=True)
    assert [place.arm for place in together.places] == ["augment", "mix", "replace"]
    assert ranking_notes(runs, across_budgets=True) == [f"Ranked across 2 unequal budgets, {differences}."]
    text = format_ranking_table(runs)
    assert list(text["budget"]) == ["1", "1", "2"]
    assert list(text["gradient steps"]) == ["600", "600", "900"]
    assert text.loc["augment", "rank by FID ↓"].split("\n")[0] == "1 of 1, n = 2"


def test_longer_chains_are_another_budget_and_seeds_that_did_not_arrive_do_not_count(chain):
    runs = [chain({"fid": [1.0] * length}, regime="mix", seed=seed) for seed, length in enumerate((3, 3, 2))]
    runs += [chain({"fid": [2.0] * 2}, seed=seed) for seed in range(3)]
    mix, other = sorted(budget_classes(runs), key=lambda of_class: list(of_class.arms) != ["mix"])
    assert ([run.seed for run in mix.arms["mix"]], mix.budget["gradient steps"]) == ([0, 1], 900)
    assert (list(other.arms), other.budget["generations"]) == (["replace"], 2)


def test_mitigations_are_ranked_within_their_regime_on_all_of_its_seeds_and_regimes_once(chain):
    cells = {("replace", "control"): 5, ("replace", "neon"): 5, ("augment", "control"): 3, ("augment", "neon"): 3}
    runs = [
        chain(
            {"fid": [1.0, 9.0 + seed - (regime == "augment") - 2 * (mitigation == "neon")]},
            seed=seed,
            regime=regime,
            mitigation=mitigation,
        )
        for (regime, mitigation), num_seeds in cells.items()
        for seed in range(num_seeds)
    ]
    rankings = {ranking.among: ranking for ranking in rank(runs, "fid")}
    assert {among: [(p.arm, p.value.n) for p in ranking.places] for among, ranking in rankings.items()} == {
        "no mitigation": [("augment, control", 3), ("replace, control", 3)],
        "replace": [("replace, neon", 5), ("replace, control", 5)],
        "augment": [("augment, neon", 3), ("augment, control", 3)],
    }
    text = format_ranking_table(runs)
    assert list(zip(text["ranked among"], text.index, strict=True)) == [
        (among, place.arm) for among, ranking in rankings.items() for place in ranking.places
    ]
    (neon,) = [place for place in rankings["replace"].places if place.control]
    assert neon.gain is not None
    assert (neon.control, neon.gain.centre, neon.gain.n) == ("replace, control", 2.0, 5)


def test_the_only_arm_without_a_mitigation_is_ranked_in_its_regime_alone(chain):
    runs = [chain({"fid": [1.0, 2.0]}, mitigation=mitigation) for mitigation in ("control", "neon")]
    assert [(ranking.among, ranking.num_ranked) for ranking in rank(runs, "fid")] == [("replace", 2)]


def test_equal_budgets_need_no_note(arms):
    assert ranking_notes(arms("fid", replace=[1, 2], mix=[3, 4])) == []


def test_undertrained_arms_are_marked(chain):
    runs = [chain({"recall": [start, 0.1]}, regime=regime) for regime, start in (("replace", 0.8), ("mix", 0.2))]
    assert list(format_ranking_table(runs).index) == ["replace", "mix (undertrained)"]


def test_ranks_do_not_depend_on_the_order_of_the_runs_or_on_global_random_state(arms):
    runs = arms("fid", replace=[5, 1, 4], mix=[3, 2, 4], augment=[9, 1, 2])
    np.random.seed(1)  # noqa: NPY002 (global state is what is disturbed)
    assert rank(runs, "fid") == rank(runs[::-1], "fid")


def test_a_refused_arm_is_a_row_of_the_table_and_nothing_else(make_run, make_refused):
    runs = [load_run(make_run(f"r{seed}", seed=seed, grids=False)) for seed in range(2)]
    runs += [load_run(make_refused(f"m{seed}", seed=seed, choices={"mitigation": "optimal_mix"})) for seed in range(2)]
    assert list(group_by_arm(runs)) == ["control"]
    assert refused_arms(runs) == {"optimal_mix": REASON}
    text = format_arm_table(runs, arm_table(runs))
    assert list(text.index)[-2:] == ["control", "optimal_mix"]
    assert set(text.loc["optimal_mix"]) == {"n/a"}
    assert refusals(runs) == [f"n/a: optimal_mix: {REASON}"]
    assert set(arm_table(runs)["arm"]) == set(format_ranking_table(runs).index) == {"control"}
    assert "optimal_mix" not in (control_hint(verdict_table(runs)) or "")
    assert len(format_verdict_table(verdict_table(runs))) == 0


def test_a_refused_seed_of_an_arm_that_ran_is_not_shown(make_run, make_refused):
    runs = [load_run(make_run("done", grids=False)), load_run(make_refused("trace", seed=1))]
    assert refused_arms(runs) == {}


def test_only_refused_runs_are_an_error_that_says_why(make_refused):
    with pytest.raises(RunDirError, match=r"no generation is committed yet; n/a: .*optimal_mix weighs"):
        arm_table([load_run(make_refused("trace"))])


def test_a_refused_run_does_not_count_as_incomplete(make_run, make_refused, tmp_path):
    make_run("runs/a", metrics=["fid", "recall"], grids=False)
    make_refused("runs/b", choices={"mitigation": "optimal_mix"})
    page = write_report(find_runs(tmp_path / "runs"), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "incomplete" not in page.split("<h2>")[0]
    assert f"n/a: optimal_mix: {REASON}." in page


@pytest.mark.parametrize("across", [False, True])
def test_the_command_ranks_within_budgets_and_says_what_it_refuses(make_run, make_refused, tmp_path, capsys, across):
    for regime in ("replace", "mix"):
        for seed in range(3):
            path = make_run(f"runs/{regime}{seed}", seed=seed, choices={"regime": regime}, grids=False, metrics=["fid"])
            for file in path.glob("gen_*/record.json") if regime == "mix" else ():
                record = json.loads(file.read_text())
                record["spent"]["gradient_steps"] = 400
                file.write_text(json.dumps(record))
    make_refused("runs/refused", choices={"mitigation": "optimal_mix"})
    out = tmp_path / "out"
    assert main([str(tmp_path / "runs"), "--out", str(out), *(["--across-budgets"] if across else [])]) == 0
    differences = "which differ in gradient steps (1,200 | 1,600)"
    sentence = "Ranked across 2 unequal" if across else "Not ranked against each other"
    for text in (
        " ".join(capsys.readouterr().out.split()),
        (out / "table.md").read_text(),
        (out / "report.html").read_text(),
    ):
        assert sentence in text
        assert differences in text
        assert ("--across-budgets" in text) != across
        assert "n/a: replace, optimal_mix: mitigation=optimal_mix weighs" in text
        assert ("1 of 2 [" in text) == across
        assert "peak memory, MiB" in text or "peak memory," in text
