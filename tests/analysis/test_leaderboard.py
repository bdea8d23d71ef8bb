"""The standing of mitigations, and the entries that it is made of."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest

from collapse_bench.analysis.archive import ARCHIVE
from collapse_bench.analysis.entries import (
    ENTRY,
    Entry,
    compare_records,
    draw_runs,
    find_entries,
    load_entry_runs,
    make_entry,
)
from collapse_bench.analysis.leaderboard import as_html, as_markdown, as_text, boards, format_standing, standings
from collapse_bench.analysis.runs import find_runs, load_run
from collapse_bench.errors import RunDirError

RESULTS = Path(__file__).parents[2] / "results"
SCHEMA = json.loads((RESULTS / "entry.schema.json").read_text())
METRICS = ["fid", "recall", "within_class_variance_ratio"]
DECAYS = {"control": 0.10, "better": 0.02, "worse": 0.20}


@pytest.fixture
def write_arm(make_run):
    """Runs of one mitigation under one regime, which loses as much per generation as it says."""

    def write(mitigation: str, decay: float, regime: str = "replace", seeds: int = 3, num_generations: int = 2) -> None:
        for seed in range(seeds):
            path = make_run(
                f"runs/{regime}-{mitigation}-{seed}",
                seed=seed,
                decay=decay,
                num_generations=num_generations,
                metrics=METRICS,
                grids=False,
                choices={"regime": regime, "mitigation": mitigation},
                config={
                    "mitigation": {} if mitigation == "control" else {"curator._target_": mitigation},
                    "regime": {"_target_": regime},
                },
            )
            info = json.loads((path / "run.json").read_text())
            info["identity"]["code"] = "0" * 32
            info["versions"]["python"] = "3.11.7"
            info["versions"]["collapse-bench"] = "0.1.0"
            (path / "run.json").write_text(json.dumps(info))

    return write


@pytest.fixture
def suite(write_arm, tmp_path):
    """Three mitigations under ``replace``, control included; one regime without a mitigation."""
    for mitigation, decay in DECAYS.items():
        write_arm(mitigation, decay)
    write_arm("control", 0.01, regime="accumulate")
    return tmp_path / "runs"


@pytest.fixture
def results(suite, tmp_path):
    """The same as an entry."""
    folder = tmp_path / "results" / "2026-11-21_f58031a" / "suite_small"
    make_entry(suite, folder, "a tester")
    return folder.parents[1]


def test_the_gain_is_the_paired_difference_and_positive_is_better(suite, model_value):
    (standing,) = standings(find_runs(suite))
    assert standing.family == "replace"
    gains = standing.gains
    better = [model_value("fid", 2, s, 0.10) - model_value("fid", 2, s, 0.02) for s in range(3)]
    assert gains["fid"]["better"].centre == pytest.approx(sum(better) / 3)
    assert gains["fid"]["better"].n == 3
    for metric in METRICS:
        assert gains[metric]["better"].centre > 0 > gains[metric]["worse"].centre
        assert set(gains[metric]) == {"better", "worse"}


def test_rows_go_from_the_largest_gain_past_the_control_to_the_worst(suite):
    (standing,) = standings(find_runs(suite))
    table = format_standing(standing)
    assert list(table.index) == ["better", "control", "worse"]
    assert [cell.split("\n")[0] for cell in table["gain in FID"]][1] == "control"
    assert [cell.split("\n")[1].split(" [")[0] for cell in table["gain in recall"]] == ["1 of 3", "2 of 3", "3 of 3"]
    assert set(table["seeds"]) == {"3"}


def test_two_regimes_are_two_families_named_by_what_differs(suite, write_arm):
    write_arm("better", 0.0, regime="accumulate")
    assert [standing.family for standing in standings(find_runs(suite))] == ["replace", "accumulate"]


def test_unequal_budgets_are_numbered_named_and_not_ranked_against_each_other(suite):
    for file in suite.glob("replace-better-*/gen_001/record.json"):
        record = json.loads(file.read_text())
        record["spent"]["candidates"] *= 10
        file.write_text(json.dumps(record))
    (standing,) = standings(find_runs(suite))
    assert standing.budgets == {"control": 1, "worse": 1, "better": 2}
    assert [ranking.num_ranked for ranking in standing.rankings["fid"]] == [2, 1]
    assert standing.notes == (
        "Budget 1: candidates per kept image 2.",
        "Budget 2, where it differs from 1: candidates per kept image 8.",
    )


def test_one_seed_has_a_gain_without_an_interval(write_arm, tmp_path):
    for mitigation in ("control", "better"):
        write_arm(mitigation, DECAYS[mitigation], seeds=1)
    (standing,) = standings(find_runs(tmp_path / "runs"))
    gain = standing.gains["fid"]["better"]
    assert (gain.n, gain.low) == (1, None)
    assert "±" not in format_standing(standing).loc["better", "gain in FID"]


def test_an_entry_is_written_read_and_described_by_the_schema(results):
    (folder,) = find_entries(results)
    entry = Entry.load(folder)
    assert (entry.name, entry.date, entry.commit) == ("suite_small", "2026-11-21", "f58031a")
    assert (entry.num_runs, entry.dataset, entry.suite) == (12, "digits", None)
    assert len(load_entry_runs(folder, entry)) == 12
    jsonschema.validate(json.loads((folder / ENTRY).read_text()), SCHEMA)


def test_the_schema_has_the_fields_of_an_entry():
    names = {field.name for field in fields(Entry)}
    assert set(SCHEMA["required"]) == names
    assert set(SCHEMA["properties"]) == names | {"$schema"}


@pytest.mark.parametrize(
    ("key", "value"), [("num_runs", 11), ("dataset", "mnist"), ("commit", "0000000"), ("code", "1" * 32)]
)
def test_an_entry_that_does_not_describe_its_archive_is_refused(results, key, value):
    file = next(results.rglob(ENTRY))
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(RunDirError, match=rf"does not describe runs\.tar\.xz \({key}: {value} in it"):
        boards(results)


def test_an_entry_with_other_keys_is_refused(results):
    file = next(results.rglob(ENTRY))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rank": 1}))
    with pytest.raises(RunDirError, match="not an entry of this version"):
        find_entries(results)


@pytest.mark.parametrize("case", ["incomplete", "two data sets", "two versions of the code", "folder", "an archive"])
def test_runs_that_make_no_entry_are_refused(suite, tmp_path, case):
    folder = tmp_path / "results" / "2026-11-21_f58031a" / "mine"
    file = suite / "replace-control-0" / "run.json"
    info = json.loads(file.read_text())
    words = {
        "incomplete": "are not complete",
        "two data sets": "different data sets",
        "two versions of the code": "different versions of the code",
        "folder": "results/DATE_COMMIT/NAME",
        "an archive": "holds an archive",
    }[case]
    if case == "incomplete":
        (file.parent / "status.json").write_text('{"state": "failed", "error": "x"}')
    elif case == "two data sets":
        file.write_text(json.dumps(info | {"choices": info["choices"] | {"dataset": "mnist"}}))
    elif case == "two versions of the code":
        file.write_text(json.dumps(info | {"identity": info["identity"] | {"code": "1" * 32}}))
    elif case == "folder":
        folder = tmp_path / "results" / "mine"
    else:
        make_entry(suite, folder, "a tester")
        suite = folder
    with pytest.raises(RunDirError, match=words):
        make_entry(suite, folder, "a tester")


def test_the_leaderboard_says_where_its_numbers_come_from_in_every_format(results):
    found = boards(results)
    for text in (as_text(found), as_markdown(found), as_html(found)):
        for words in ("suite_small on digits", "2026-11-21, commit f58031a, by a tester: 12 runs", "better", "gain in"):
            assert words in " ".join(text.split())
    assert as_html(found).count("<table>") == 1


def test_an_entry_of_one_seed_comes_after_those_with_intervals(results, write_arm, tmp_path):
    shutil.rmtree(tmp_path / "runs")
    for mitigation in ("control", "neon"):
        write_arm(mitigation, 0.1)
    for run in (tmp_path / "runs").iterdir():
        if not run.name.endswith("-0"):
            shutil.rmtree(run)
    make_entry(tmp_path / "runs", results / "2026-11-22_aaaaaaa" / "one_seed", "a tester")
    assert [board.entry.name for board in boards(results)] == ["suite_small", "one_seed"]


def test_entries_without_a_mitigation_are_named_in_one_line_at_the_end(results, write_arm, tmp_path):
    shutil.rmtree(tmp_path / "runs")
    for regime in ("replace", "accumulate"):
        write_arm("control", 0.1, regime=regime)
    make_entry(tmp_path / "runs", results / "2026-11-22_aaaaaaa" / "regimes_only", "a tester")
    found = boards(results)
    assert [board.entry.name for board in found] == ["suite_small", "regimes_only"]
    for text in (as_text(found), as_markdown(found), as_html(found)):
        line = " ".join(text.split()).split("Other results, which have no mitigation beside its control: ")[1]
        assert line.startswith("regimes_only on digits")
        assert " ".join(text.split()).count("regimes_only on digits") == 1


def test_results_without_entries_are_an_error(tmp_path):
    with pytest.raises(RunDirError, match=r"no entries found: looked for files entry\.json"):
        boards(tmp_path)


def test_records_agree_within_the_tolerance_and_no_further(make_run):
    def again(decay: float, **options):
        return load_run(make_run(f"again{decay}", decay=decay, metrics=["fid", "recall"], **options))

    committed = load_run(make_run("committed", decay=0.1, metrics=["fid", "recall"]))
    assert compare_records(committed, again(0.1))["agrees"].all()
    # FID at generation t is 10 + 100 t decay: off by at most 1.5 of 40, and by 2 of 20 or more.
    assert compare_records(committed, again(0.105))["agrees"].all()
    table = compare_records(committed, again(0.12)).set_index(["metric", "generation"])
    assert table["agrees"]["fid"].tolist() == [True, False, False, False]
    assert compare_records(committed, again(0.120001), 0.2)["agrees"].all()
    short = compare_records(committed, again(0.10001, reached=1)).set_index(["metric", "generation"])
    assert short["agrees"]["fid"].tolist() == [True, True, False, False]


def test_runs_are_drawn_from_the_cheaper_half_whatever_came_from_the_cache(make_run):
    runs = [load_run(make_run(f"r{n}", num_generations=n)) for n in (5, 2, 8, 6)]
    half = load_run(make_run("half", num_generations=5, reached=0))
    names = lambda *args: {run.path.name for run in draw_runs([*runs, half], *args)}  # noqa: E731
    assert {name for seed in range(20) for name in names(1, seed)} == {"r2", "r5"}
    assert names(1, 3) == names(1, 3)
    assert names(3, 0) == {"r2", "r5", "r6"}
    assert names(9, 0) == {"r2", "r5", "r6", "r8"}
    # The longest run, all of whose fits another run had done before, took no time; anew it would.
    for record in (runs[2].path / f"gen_{t:03d}" / "record.json" for t in range(9)):
        content = json.loads(record.read_text())
        spent = content["spent"] | {"reused": ["fit"], "seconds": {"fit": 0.0}}
        record.write_text(json.dumps(content | {"spent": spent}))
    runs[2] = load_run(runs[2].path)
    assert {name for seed in range(20) for name in names(1, seed)} == {"r2", "r5"}


@pytest.mark.parametrize(
    ("key", "value"), [("commands", None), ("date", None), ("versions", []), ("num_runs", "1"), ("machines", "one")]
)
def test_an_entry_with_a_damaged_value_is_one_line(suite, results, key, value):
    file = next(results.rglob(ENTRY))
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(RunDirError, match=f"damaged, {key} is"):
        Entry.load(file.parent)


@pytest.mark.parametrize("key", ["command", "versions", "code"])
def test_runs_that_do_not_say_what_made_them_are_no_entry(suite, tmp_path, key):
    file = next(suite.rglob("run.json"))
    info = json.loads(file.read_text())
    info.pop(key, None)
    info["identity"].pop(key, None)
    file.write_text(json.dumps(info))
    with pytest.raises(RunDirError, match=f"says no {key}"):
        make_entry(suite, tmp_path / "results" / "2026-11-21_f58031a" / "mine", "a tester")


@pytest.mark.parametrize("folder", sorted(file.parent for file in RESULTS.rglob(ENTRY)), ids=lambda path: path.name)
def test_committed_archives_are_entries_that_hold_what_they_say(folder):
    jsonschema.validate(json.loads((folder / ENTRY).read_text()), SCHEMA)
    entry = Entry.load(folder)
    assert len(load_entry_runs(folder, entry)) == entry.num_runs
    for name in ("README.md", "table.md"):
        assert (folder / name).stat().st_size > 0


def test_every_committed_entry_has_its_archive():
    folders = [file.parent for file in RESULTS.rglob(ENTRY)]
    assert folders
    assert all((folder / ARCHIVE).is_file() for folder in folders)


def test_without_any_ranked_metric_the_first_headline_metric_is_ranked(make_run, tmp_path):
    for mitigation, decay in (("control", 0.2), ("better", 0.1)):
        for seed in range(2):
            make_run(
                f"runs/{mitigation}-{seed}",
                seed=seed,
                decay=decay,
                metrics=["precision", "tail_mass"],
                choices={"mitigation": mitigation},
                config={"mitigation": {} if mitigation == "control" else {"curator._target_": mitigation}},
            )
    (standing,) = standings(find_runs(tmp_path / "runs"))
    assert list(format_standing(standing).columns) == ["budget", "seeds", "gain in precision"]
