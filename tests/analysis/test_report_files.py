"""What ``collapse-report`` leaves in its folder, of run folders, archives, and runs on several data sets."""

import pandas as pd
import pytest

from collapse_bench.analysis.archive import ARCHIVE, write_archive
from collapse_bench.analysis.runs import find_runs
from collapse_bench.cli.report import main

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
    for name, columns in (("summary", {"low", "high", "num_seeds", "floor", "null"}), ("scores", {"run", "seed"})):
        csv, parquet = pd.read_csv(out / f"{name}.csv"), pd.read_parquet(out / f"{name}.parquet")
        assert list(csv.columns) == list(parquet.columns)
        assert columns <= set(csv.columns)
        assert len(csv) == len(parquet) > 0


def test_an_archive_is_reported_as_its_runs_are(small_sweep, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "committed"
    folder.mkdir()
    write_archive([run.path for run in find_runs(small_sweep)], small_sweep, folder / ARCHIVE)
    monkeypatch.chdir(tmp_path)
    tables = []
    for given in ("runs", "committed", f"committed/{ARCHIVE}"):
        assert main([given]) == 0
        name = given.split("/")[0]
        assert f"reports/{name}/table" in capsys.readouterr().out
        frame = pd.read_parquet(f"reports/{name}/summary.parquet")
        tables.append(frame.sort_values(["arm", "generation", "metric", "of"], ignore_index=True))
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


def test_runs_on_two_data_sets_have_a_report_each(make_run, tmp_path, capsys):
    for dataset, encoder in (("digits", "aaaa"), ("mnist", "bbbb")):
        options = {"encoder": encoder, "grids": False, "metrics": METRICS, "num_generations": 1}
        make_run(f"runs/{dataset}", choices={"dataset": dataset}, **options)
    out = tmp_path / "out"
    assert main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.index("=== digits ===") < printed.index("=== mnist ===")
    for dataset in ("digits", "mnist"):
        assert set(pd.read_csv(out / dataset / "scores.csv")["dataset"]) == {dataset}
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
