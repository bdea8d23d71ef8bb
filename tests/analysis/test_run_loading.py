import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from collapse_bench.analysis.caveats import caveats
from collapse_bench.analysis.runs import (
    HEADLINE,
    config_differences,
    find_runs,
    group_by_arm,
    group_by_family,
    headline,
    load_run,
    seed_curves,
    to_frame,
    total_spent,
    usual_settings,
)
from collapse_bench.errors import RunDirError


def test_a_run_directory_is_read_as_it_was_written(make_run, floors, model_value):
    run = load_run(make_run("a", seed=2, num_generations=3))
    assert (run.seed, run.complete, len(run.records)) == (2, True, 4)
    assert run.choices["regime"] == "replace"
    assert run.config["budget"]["num_steps"] == 300
    assert run.value(3, "recall") == pytest.approx(model_value("recall", 3, 2, 0.1))
    assert run.floor("recall") == floors["recall"]
    assert run.grid(1).shape == (12, 16, 16, 1)
    assert run.real_grid.dtype == np.uint8


def test_a_value_that_is_not_there_is_nan(make_run):
    run = load_run(make_run("a", num_generations=2, metrics=["fid"]))
    assert math.isnan(run.value(3, "fid"))
    assert math.isnan(run.value(0, "recall"))
    assert math.isnan(run.value(-1, "fid")), "no generation is not the last one"
    assert math.isnan(run.floor("recall"))


def test_uncommitted_generations_are_ignored(make_run):
    path = make_run("a", num_generations=2)
    shutil.copytree(path / "gen_002", path / "gen_003.tmp")
    assert len(load_run(path).records) == 3


def test_runs_are_found_at_any_depth_and_only_once(sweep):
    runs = find_runs(sweep, sweep / "replace" / "0", sweep / "replace")
    assert len(runs) == 6
    assert find_runs(sweep / "replace" / "1")[0].seed == 1


def test_a_folder_of_runs_is_no_run_and_says_which_it_holds(sweep):
    with pytest.raises(RunDirError, match=r"no run directory and holds 3; give one, such as .*replace/0"):
        load_run(sweep / "replace")
    with pytest.raises(RunDirError, match="nowhere: no such folder"):
        load_run(sweep / "nowhere")


def test_no_runs_is_one_error_that_says_what_was_looked_for(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunDirError, match=r"looked for a file run\.json in .*empty"):
        find_runs(tmp_path / "empty")
    with pytest.raises(RunDirError, match="no such folder"):
        find_runs(tmp_path / "nowhere")


def test_a_run_that_was_killed_before_its_first_status_was_interrupted(make_run):
    path = make_run("a")
    (path / "status.json").unlink()
    assert load_run(path).status == {"state": "interrupted"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (name, content)
        for name in ("run.json", "status.json", "config.yaml", "gen_001/record.json")
        for content in ("{", "[1, 2]", "", None)
        if (name, content) != ("status.json", None)
    ],
)
def test_a_damaged_or_missing_file_is_named(make_run, name, content):
    file = make_run("a") / name
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(RunDirError, match=name):
        load_run(file.parent if "/" not in name else file.parents[1])


def test_a_file_of_another_program_is_named(make_run):
    path = make_run("a")
    (path / "run.json").write_text(json.dumps({"schema": 1, "model": "something else"}))
    with pytest.raises(RunDirError, match=r"run\.json: not a file of collapse-bench"):
        find_runs(path)


@pytest.mark.parametrize("name", ["run.json", "gen_000/record.json"])
def test_another_schema_is_refused(make_run, name):
    path = make_run("a")
    content = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps(content | {"schema": 99}))
    with pytest.raises(RunDirError, match=rf"{name}.*99"):
        load_run(path)


def test_a_gap_between_generations_is_refused(make_run):
    path = make_run("a")
    shutil.rmtree(path / "gen_001")
    with pytest.raises(RunDirError, match=r"gen_002.*expected generation 1"):
        load_run(path)


def test_a_missing_grid_is_named_when_it_is_asked_for(make_run):
    path = make_run("a")
    (path / "gen_002" / "grid.npy").unlink()
    (path / "gen_001" / "grid.npy").write_bytes(b"not numpy")
    run = load_run(path)
    with pytest.raises(RunDirError, match=r"gen_002/grid\.npy"):
        run.grid(2)
    with pytest.raises(RunDirError, match=r"gen_001/grid\.npy.*damaged"):
        run.grid(1)


def test_runs_scored_with_different_encoders_are_never_put_together(make_run):
    one, other = make_run("one", encoder="aaaa"), make_run("other", seed=1, encoder="bbbb")
    with pytest.raises(RunDirError, match=rf"{one} and {other} were scored with different encoders"):
        to_frame([load_run(one), load_run(other)])


def test_an_encoder_that_changes_within_a_run_is_refused(make_run):
    path = make_run("a")
    content = json.loads((path / "gen_002" / "record.json").read_text())
    (path / "gen_002" / "record.json").write_text(json.dumps(content | {"encoder": "other"}))
    with pytest.raises(RunDirError, match=r"gen_002/record\.json"):
        load_run(path)


def test_a_seed_never_counts_twice(make_run):
    runs = [load_run(make_run("one", seed=3)), load_run(make_run("copy", seed=3))]
    with pytest.raises(RunDirError, match=r"one.*copy.*same arm .*seed \(3\)"):
        group_by_arm(runs)


def load_all(paths: list[Path]) -> list:
    return [load_run(path) for path in paths]


def test_arms_are_named_by_what_differs_and_nothing_else(make_run):
    runs = load_all(
        [
            make_run(f"{regime}{seed}", seed=seed, choices={"regime": regime, "experiment": f"my_{regime}"})
            for regime in ("accumulate", "replace")
            for seed in (1, 0)
        ]
    )
    arms = group_by_arm(runs)
    assert list(arms) == ["replace", "accumulate"]
    assert [run.seed for run in arms["replace"]] == [0, 1]


def test_arms_that_differ_in_a_nested_key_show_the_key(make_run):
    runs = load_all([make_run(f"b{n}", config={"budget": {"num_steps": n}}) for n in (100, 300)])
    assert list(group_by_arm(runs)) == ["budget.num_steps=100", "budget.num_steps=300"]


def test_of_keys_that_always_change_together_one_is_named(make_run):
    budgets = [{"num_steps": 100, "num_generations": 6}, {"num_steps": 300, "num_generations": 3}]
    runs = load_all([make_run(f"b{k}", config={"budget": budget}) for k, budget in enumerate(budgets)])
    assert list(group_by_arm(runs)) == ["budget.num_steps=100", "budget.num_steps=300"]
    other = load_all([make_run("other", config={"budget": {**budgets[0], "num_steps": 50}})])
    assert all(name.count("=") == 2 for name in group_by_arm([*runs, *other]))


def test_a_run_is_shown_in_a_line(make_run):
    run = load_run(make_run("a", num_generations=2))
    assert repr(run) == f"<Run digits/flow/euler_20/replace/control seed 0: 3 generations, complete, {run.path}>"


def test_keys_below_a_choice_are_named_only_where_the_choice_does_not_tell_them(make_run):
    paths = [make_run("plain", choices={"regime": "replace"})]
    for frac in (0.2, 0.5):
        config = {"regime": {"_target_": "collapse_bench.regimes.Mix", "frac_real": frac}}
        paths.append(make_run(f"mix{frac}", choices={"regime": "mix"}, config=config))
    assert list(group_by_arm(load_all(paths))) == [
        "replace",
        "mix, regime.frac_real=0.2",
        "mix, regime.frac_real=0.5",
    ]


def test_a_choice_within_a_choice_is_named_only_where_the_outer_one_does_not_tell_it(make_run):
    def run(name: str, generator: str, network: str | None, channels: int):
        nested = {} if network is None else {"generator/network": network}
        config = {"generator": {"network.channels": channels}}
        return make_run(name, choices={"generator": generator, **nested}, config=config)

    two = [run("a", "flow", "mlp", 1), run("b", "vae", None, 2)]
    assert list(group_by_arm(load_all(two))) == ["flow", "vae"]
    three = [*two, run("c", "flow", "unet", 3)]
    assert set(group_by_arm(load_all(three))) == {
        "flow, generator/network=mlp",
        "vae",
        "flow, generator/network=unet",
    }


def test_arm_names_do_not_depend_on_the_order_of_the_choices(make_run):
    paths = [make_run(f"r{i}", choices={"regime": r, "mitigation": f"no_{r}"}) for i, r in enumerate(("x", "y"))]
    info = json.loads((paths[0] / "run.json").read_text())
    info["choices"] = dict(reversed(info["choices"].items()))
    (paths[0] / "run.json").write_text(json.dumps(info))
    assert list(group_by_arm(load_all(paths))) == ["x, no_x", "y, no_y"]
    assert list(load_run(paths[0]).choices)[:5] == ["dataset", "generator", "sampler", "regime", "mitigation"]


def test_choices_outside_the_cell_are_named_with_their_group(make_run):
    runs = load_all([make_run(name, choices={"budget": name}) for name in ("quick", "long")])
    assert list(group_by_arm(runs)) == ["budget=long", "budget=quick"]


def test_one_arm_alone_is_named_by_its_regime_and_mitigation(make_run):
    runs = load_all([make_run(f"r{seed}", seed=seed) for seed in range(2)])
    assert list(group_by_arm(runs)) == ["replace, control"]
    assert runs[0].arm_name == "replace, control"


def test_arms_of_a_sweep_over_numbers_stand_in_their_order(make_run):
    fractions = (0.05, 0.5, 0.01, 0.0)
    runs = load_all([make_run(f"r{k}", config={"regime": {"frac_synthetic": f}}) for k, f in enumerate(fractions)])
    assert [name.partition("=")[2] for name in group_by_arm(runs)] == ["0.0", "0.01", "0.05", "0.5"]


def test_what_nearly_all_of_many_arms_have_goes_without_saying_and_is_said_once(chain):
    odd = {"sampler.guidance": 1.0}
    arms = [({"sampler.guidance": 0.0}, f"m{k}") for k in range(7)] + [(odd, "control")]
    runs = [chain({"fid": [1.0]}, mitigation=mitigation, settings=settings) for settings, mitigation in arms]
    assert list(group_by_arm(runs)) == ["control, sampler.guidance=1.0", *(f"m{k}" for k in range(7))]
    assert usual_settings(runs) == {"sampler.guidance": "0.0"}
    assert "Where the name of an arm does not say otherwise: sampler.guidance=0.0." in caveats(runs)
    assert set(group_by_family(runs)) == {"replace", "sampler.guidance=1.0"}
    few = runs[1:]
    assert set(group_by_arm(few)) == {
        "control, sampler.guidance=1.0",
        *(f"m{k}, sampler.guidance=0.0" for k in range(1, 7)),
    }
    assert usual_settings(few) == {}


def test_null_goes_without_saying_and_the_plain_arm_is_first(make_run):
    runs = load_all([make_run(f"b{n}", config={"budget": {"num_synthetic": n}}) for n in (20, None)])
    assert list(group_by_arm(runs)) == ["replace, control", "budget.num_synthetic=20"]


def test_another_version_of_the_code_is_no_other_arm(make_run):
    paths = [make_run(f"r{seed}", seed=seed) for seed in (0, 1)]
    for seed, path in enumerate(paths):
        info = json.loads((path / "run.json").read_text())
        info["identity"]["code"] = f"code {seed}"
        (path / "run.json").write_text(json.dumps(info))
    assert {arm: len(runs) for arm, runs in group_by_arm(load_all(paths)).items()} == {"replace, control": 2}


def test_keys_that_decide_no_number_make_no_arm(make_run):
    runs = load_all([make_run("here", seed=0), make_run("there", seed=1)])
    assert runs[0].config["run_dir"] != runs[1].config["run_dir"]
    assert len(group_by_arm(runs)) == 1


def test_config_differences_hold_choices_and_keys_that_differ(sweep):
    table = config_differences(group_by_arm(find_runs(sweep)))
    assert list(table.index) == ["regime", "regime._target_"]
    assert list(table.loc["regime"]) == ["replace", "accumulate"]


def test_the_frame_has_one_row_per_run_generation_of_and_metric(sweep, model_value):
    frame = to_frame(find_runs(sweep))
    assert not frame.duplicated(["run", "generation", "of", "metric"]).any()
    assert set(frame["of"]) == {"model", "kept", "control"}
    row = frame.query("arm == 'accumulate' and seed == 2 and generation == 1 and of == 'model' and metric == 'fid'")
    assert row["value"].item() == pytest.approx(model_value("fid", 1, 2, 0.02))
    assert row["low"].item() == pytest.approx(model_value("fid", 1, 2, 0.02) - 0.1)
    assert (row["num_samples"].item(), row["better"].item()) == (450, "lower")
    assert row["dataset"].item() == "digits"


def test_the_frame_of_runs_without_a_generation_is_an_error(make_run):
    path = make_run("a", reached=-1)
    with pytest.raises(RunDirError, match="no generation is committed yet"):
        to_frame([load_run(path)])


def test_seed_curves_have_nan_where_a_seed_has_not_arrived(make_run):
    runs = load_all([make_run("full", seed=0), make_run("short", seed=1, reached=1)])
    curves = seed_curves(runs, "fid")
    assert list(curves.index) == [0, 1, 2, 3]
    assert curves[0].notna().all()
    assert curves[1].isna().tolist() == [False, False, True, True]


def test_headline_metrics_keep_their_order_and_others_stand_in_for_none(make_run):
    full, sparse = load_run(make_run("full")), load_run(make_run("sparse", metrics=["kid"]))
    assert headline([full]) == list(HEADLINE)
    assert headline([sparse]) == ["kid"]


def test_class_shares_are_by_name_and_sum_to_one(make_run):
    run = load_run(make_run("a"))
    shares = run.class_shares()
    assert list(shares.index) == ["digit 0", "digit 1", "digit 2", "digit 3"]
    assert list(shares.columns) == [0, 1, 2, 3]
    np.testing.assert_allclose(shares.sum(), 1.0)
    with pytest.raises(RunDirError, match="no class shares"):
        load_run(make_run("b", metrics=["fid"])).class_shares()


def test_what_a_run_spent_is_summed_over_its_generations(make_run):
    spent = total_spent(load_run(make_run("a", num_generations=3)))
    assert spent.gradient_steps == 4 * 300
    assert spent.seconds == {"fit": 12.0, "sample": 4.0, "measure": 2.0}
    assert spent.real_images_seen == {"generator": 897}
    assert spent.reused == ("fit",)
