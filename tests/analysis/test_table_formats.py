"""The same tables as LaTeX and as tidy frames."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from collapse_bench.analysis.formats import escape_latex, to_latex
from collapse_bench.analysis.runs import find_runs, group_by_dataset, load_run
from collapse_bench.analysis.statistics import summarize
from collapse_bench.analysis.tables import (
    arm_table,
    format_arm_table,
    summary_frame,
    verdict_matrix,
    verdict_table,
)


def test_the_summary_has_the_interval_of_the_seeds_with_floor_and_number(sweep, floors, model_value):
    frame = summary_frame(find_runs(sweep))
    assert not frame.duplicated(["arm", "generation", "of", "metric"]).any()
    assert set(frame["of"]) == {"model", "kept"}
    (row,) = frame.query("arm == 'accumulate' and generation == 2 and of == 'model' and metric == 'recall'").to_dict(
        "records"
    )
    expected = summarize([model_value("recall", 2, seed, 0.02) for seed in range(3)])
    assert (row["value"], row["low"], row["high"]) == pytest.approx((expected.centre, expected.low, expected.high))
    assert (row["num_seeds"], row["interval"], row["dataset"], row["better"]) == (3, "t", "digits", "higher")
    assert row["floor"] == floors["recall"]
    assert math.isnan(row["floor_sd"])
    assert math.isnan(row["null"])


def test_the_summary_says_how_many_seeds_reached_a_generation(make_run):
    runs = [
        load_run(make_run("long", num_generations=2)),
        load_run(make_run("short", seed=1, num_generations=2, reached=1)),
    ]
    frame = summary_frame(runs).query("metric == 'fid' and of == 'model'").set_index("generation")
    assert frame["num_seeds"].tolist() == [2, 2, 1]
    assert frame["interval"].tolist() == ["t", "t", "none"]
    assert np.isnan(frame.loc[2, "low"])


def test_the_summary_is_the_same_after_parquet(sweep, tmp_path):
    frame = summary_frame(find_runs(sweep))
    frame.to_parquet(tmp_path / "summary.parquet", index=False)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "summary.parquet"), frame)


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("a_b & 5 % $x$ #1 {y}", r"a\_b \& 5 \% \$x\$ \#1 \{y\}"),
        ("\\ ~ ^", r"\textbackslash{} \textasciitilde{} \textasciicircum{}"),
        ("-0.25 [-1.5, 2] held-out", r"$-$0.25 {[}$-$1.5, 2{]} held-out"),
        ("1.0 ± 0.2 ↓ → 1 ↑ p < 0.05", r"1.0 $\pm$ 0.2 $\downarrow$ $\rightarrow$ 1 $\uparrow$ p $<$ 0.05"),
    ],
)
def test_no_character_of_a_text_is_a_latex_command(text, latex):
    assert escape_latex(text) == latex


def test_a_latex_table_has_the_rules_of_booktabs_and_as_many_cells_in_every_row(sweep):
    table = format_arm_table(find_runs(sweep), arm_table(find_runs(sweep)))
    lines = to_latex(table).splitlines()
    assert lines[0] == rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}"
    assert [line for line in lines if re.fullmatch(r"\\\w+rule", line)] == [r"\toprule", r"\midrule", r"\bottomrule"]
    rows = [line for line in lines if line.endswith(r" \\")]
    assert len(rows) == len(table) + 1
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.columns)}
    text = "\n".join(lines)
    assert text.isascii()
    assert text.count("{") == text.count("}")
    assert r"\shortstack[r]{FID \\ $\downarrow$}" in text


def test_the_verdict_matrix_has_the_decisions(chain):
    curves = {"recall": [0.9, 0.5], "precision": [0.9, 0.8], "fid": [1.0, 9.0]}
    runs = [chain(curves, seed=seed, regime=regime) for seed in (0, 1) for regime in ("replace", "real")]
    matrix, table = verdict_matrix(runs), verdict_table(runs)
    assert list(matrix.columns) == ["replace"]
    assert list(matrix.index) == table["definition"].tolist()
    assert matrix["replace"].tolist() == table["decision"].tolist()
    assert "not decidable" in set(matrix["replace"])


def test_runs_are_grouped_by_their_data_set(make_run):
    runs = [load_run(make_run(name, choices={"dataset": data})) for name, data in (("a", "x"), ("b", "y"), ("c", "x"))]
    assert {name: [r.path.name for r in of] for name, of in group_by_dataset(runs).items()} == {
        "x": ["a", "c"],
        "y": ["b"],
    }
