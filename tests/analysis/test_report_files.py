"""What ``collapse-report`` leaves in its folder, of run folders, archives, and runs on several data sets."""

import json

import pandas as pd
import pytest

from collapse_bench.analysis.archive import ARCHIVE, write_archive
from collapse_bench.analysis.runs import find_runs
from collapse_bench.cli.report import main
from collapse_bench.cli.sections import compose_sections

METRICS = ["fid", "recall"]


@pytest.fixture
def small_sweep(make_run, tmp_path):
    """Two regimes of two seeds each, without images."""
    for regime, decay in (("replace", 0.1), ("real", 0.0)):
        for seed in (0, 1):
            options = {"seed": seed, "decay": decay, "grids": False, "metrics": METRICS, "num_generations": 2}
            make_run(f"runs/{regime}{seed}", choices={"regime": regime}, **options)
    return tmp_path / "runs"


def test_the_tables_are_there_in_every_format_with_seeds_and_intervals(small_sweep, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(small_sweep), "--out", str(out)]) == 0
    titles = (
        "Each arm at its last generation",
        "Difference to the control, seed by seed",
        "Ranking and cost",
        "Over the generations, recall",
        "Verdicts",
    )
    texts = {name: (out / f"table.{name}").read_text(encoding="utf-8") for name in ("txt", "md", "tex")}
    texts["printed"] = capsys.readouterr().out
    for name, text in texts.items():
        for title in titles:
            assert title in text, name
        assert ("$\\pm$" if name == "tex" else "±") in text, name
        assert "seeds" in text, name
        assert "pairs" in text, name
    assert texts["tex"].count(r"\begin{table}") == texts["tex"].count(r"\end{table}") == 5
    assert texts["tex"].count(r"\toprule") == 5
    csv, parquet = pd.read_csv(out / "summary.csv"), pd.read_parquet(out / "summary.parquet")
    assert list(csv.columns) == list(parquet.columns)
    assert {"low", "high", "num_seeds", "floor", "null"} <= set(csv.columns)
    assert len(csv) == len(parquet) > 0
    assert {"run", "seed"} <= set(pd.read_parquet(out / "scores.parquet").columns)
    assert not (out / "scores.csv").exists()


def test_versions_that_are_averaged_and_unfinished_runs_are_said_first_in_every_format(small_sweep, tmp_path, capsys):
    file = small_sweep / "replace1" / "run.json"
    info = json.loads(file.read_text())
    file.write_text(json.dumps(info | {"identity": info["identity"] | {"code": "another"}}))
    status = {"state": "failed", "generation": 2, "error": "no_space & 100 %"}
    (small_sweep / "real0" / "status.json").write_text(json.dumps(status))
    out = tmp_path / "out"
    assert main([str(small_sweep), "--out", str(out)]) == 0
    texts = {name: (out / f"table.{name}").read_text(encoding="utf-8") for name in ("txt", "md", "tex")}
    texts |= {"html": (out / "report.html").read_text(encoding="utf-8"), "printed": capsys.readouterr().out}
    for name, text in texts.items():
        before = " ".join(text.split("last generation")[0].split())
        assert "Before you read the numbers" in before, name
        assert "Runs of different versions of the code are averaged in replace." in before, name
        assert "differ in code (hash of the sources)" in before, name
        assert "is incomplete (failed, reached generation 2)" in before, name
    assert r"no\_space \& 100 \%" in texts["tex"]


def test_runs_without_a_caveat_have_no_such_section(small_sweep):
    assert [section.title for section in compose_sections(find_runs(small_sweep)) if section.table is None] == []


@pytest.mark.parametrize("baseline", [None, "budget.num_steps=300"])
def test_differences_say_what_they_are_to_or_why_there_are_none(make_run, tmp_path, capsys, baseline):
    for steps in (100, 300):
        make_run(f"runs/{steps}", config={"budget": {"num_steps": steps}}, grids=False, metrics=["fid"])
    out = tmp_path / "out"
    assert main([str(tmp_path / "runs"), "--out", str(out), *(["--baseline", baseline] if baseline else [])]) == 0
    for text in (capsys.readouterr().out, (out / "report.html").read_text(encoding="utf-8")):
        text = " ".join(text.split())  # lines are as long as the terminal
        assert ("no arm is a control of another; name one with --baseline" in text) == (baseline is None)
        assert ("Difference to budget.num_steps=300, seed by seed" in text) == (baseline is not None)
        assert "Difference to the control" not in text


@pytest.mark.slow
def test_an_archive_is_reported_as_its_runs_are(small_sweep, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "committed"
    folder.mkdir()
    write_archive([run.path for run in find_runs(small_sweep)], small_sweep, folder / ARCHIVE)
    monkeypatch.chdir(tmp_path)
    tables = []
    for given in ("runs", f"committed/{ARCHIVE}"):
        assert main([given]) == 0
        name = given.split("/")[0]
        assert f"reports/{name}/table" in capsys.readouterr().out
        frame = pd.read_parquet(f"reports/{name}/summary.parquet")
        tables.append(frame.sort_values(["arm", "generation", "metric", "of"], ignore_index=True))
    pd.testing.assert_frame_equal(*tables)


def test_runs_on_two_data_sets_have_a_report_each(make_run, tmp_path, capsys):
    for dataset, encoder in (("digits", "aaaa"), ("mnist", "bbbb")):
        options = {"encoder": encoder, "grids": False, "metrics": METRICS, "num_generations": 1}
        make_run(f"runs/{dataset}", choices={"dataset": dataset}, **options)
    out = tmp_path / "out"
    assert main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.index("=== digits ===") < printed.index("=== mnist ===")
    for dataset in ("digits", "mnist"):
        assert set(pd.read_parquet(out / dataset / "scores.parquet")["dataset"]) == {dataset}
        assert (out / dataset / "report.html").stat().st_size > 0
    assert not (out / "report.html").exists()


def test_an_error_in_one_data_set_comes_before_anything_is_written(make_run, tmp_path, capsys):
    for name, dataset, encoder in (("a", "digits", "aaaa"), ("b", "mnist", "bbbb"), ("c", "mnist", "cccc")):
        choices = {"dataset": dataset, "regime": name}
        make_run(f"runs/{name}", choices=choices, encoder=encoder, grids=False, metrics=METRICS)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "different encoders" in printed.err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line_before_the_work(small_sweep, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("collapse_bench.analysis.runs.find_runs", lambda *_: pytest.fail("this takes minutes"))
    assert main([str(small_sweep), "--out", str(tmp_path / "file" / "out")]) == 1
    error = capsys.readouterr().err
    assert f"cannot write to {tmp_path / 'file' / 'out'}: " in error
    assert "--out" in error
    assert error.count("\n") == 1
