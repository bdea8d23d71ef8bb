"""The score at the last generation against one swept setting: lines, points, table, figure and command."""

import json

import numpy as np
import pytest

from collapse_bench.analysis.figures import plot_against, write_figures
from collapse_bench.analysis.runs import find_runs, group_by_setting, load_run
from collapse_bench.analysis.statistics import summarize
from collapse_bench.analysis.tables import FLOOR, against_table, format_against_table
from collapse_bench.cli.report import main
from collapse_bench.cli.sections import compose_sections
from collapse_bench.errors import ConfigError, RunDirError

FRAC = "regime.frac_synthetic"


def recall(frac, generation, seed, num_real=897):
    return 0.9 - frac * generation / 10 - 0.01 * seed**2 - 1 / num_real


@pytest.fixture
def arm(chain):
    """Three seeds of a chain over generations 0 to 3, with known recall and these settings."""

    def make(regime="contaminate", frac=0.0, num_real=897, num_seeds=3, **settings):
        return [
            chain(
                {"recall": [recall(frac, t, seed, num_real) for t in range(4)], "fid": [2.0 + t for t in range(4)]},
                seed=seed,
                regime=regime,
                num_real=num_real,
                settings=settings,
            )
            for seed in range(num_seeds)
        ]

    return make


@pytest.fixture
def doses(arm):
    """Contamination at five fractions, in no order, and one arm that has none."""
    return [run for f in (0.5, 0.0, 0.2, 0.01, 0.05) for run in arm(frac=f, **{FRAC: f})] + arm("real", frac=0.1)


def lines_of(axes):
    """The lines through points: x and y of each, as drawn."""
    thick = [line for line in axes.lines if line.get_linewidth() == 1.8]
    return [(np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)) for line in thick]


def intervals_of(axes):
    """Both ends of every error bar, sorted."""
    paths = [path.vertices for bars in axes.collections for path in bars.get_paths() if len(path.vertices) == 2]
    return sorted((float(ends[0, 1]), float(ends[1, 1])) for ends in paths if np.isfinite(ends).all())


def test_points_are_the_summary_over_seeds_at_the_last_generation(doses):
    axes = plot_against(doses, FRAC, ["recall"]).axes[0]
    ((x, y),) = lines_of(axes)
    expected = [summarize([recall(f, 3, seed) for seed in range(3)]) for f in (0.0, 0.01, 0.05, 0.2, 0.5)]
    np.testing.assert_array_equal(x, [0.0, 0.01, 0.05, 0.2, 0.5])
    np.testing.assert_allclose(y, [interval.centre for interval in expected])
    of_real = summarize([recall(0.1, 3, seed) for seed in range(3)])
    np.testing.assert_allclose(intervals_of(axes), sorted((i.low, i.high) for i in [*expected, of_real]))
    assert axes.get_xlabel() == FRAC
    assert axes.get_ylabel() == "at generation 3"


def test_points_of_several_lines_are_shifted_on_paper_and_never_in_the_data(arm):
    runs = [r for n in (100, 297) for f in (0, 25) for r in arm("fresh", **{"regime.n0": n, "regime.num_fresh": f})]
    axes = plot_against(runs, "regime.num_fresh", ["recall"]).axes[0]
    for x, _ in lines_of(axes):
        np.testing.assert_array_equal(x, [0, 25])
    places = [line.get_transform() - axes.transData for line in axes.lines if line.get_linewidth() == 1.8]
    assert len({tuple(np.round(place.transform((0.0, 0.0)), 6)) for place in places}) == 2


def test_each_seed_is_a_dot_at_its_value(doses):
    axes = plot_against(doses, FRAC, ["recall"]).axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "."]
    found = sorted(point for line in dots for point in zip(line.get_xdata(), line.get_ydata(), strict=True))
    expected = sorted((f, recall(f, 3, seed)) for f in (0.0, 0.01, 0.05, 0.2, 0.5) for seed in range(3))
    np.testing.assert_allclose(found, expected)


def test_runs_without_the_setting_are_horizontal_lines_with_their_names_beside(doses, floors):
    axes = plot_against(doses, FRAC, ["recall"]).axes[0]
    level = summarize([recall(0.1, 3, seed) for seed in range(3)]).centre
    flat = [line for line in axes.lines if line.get_linewidth() == 1.4]
    assert [set(line.get_ydata()) for line in flat] == [{level}]
    assert sorted(text.get_text() for text in axes.texts) == ["floor", "real, n = 3"]
    dashed = [line for line in axes.lines if line.get_label() == FLOOR]
    assert [set(line.get_ydata()) for line in dashed] == [{floors["recall"]}]


def test_names_beside_a_panel_are_kept_apart_and_inside(arm):
    runs = [run for f in (0.1, 0.2) for run in arm(frac=f, **{FRAC: f})]
    runs += [run for n in range(25) for run in arm(f"regime_{n}", frac=0.1 + n / 1e4)]
    axes = plot_against(runs, FRAC, ["recall"]).axes[0]
    heights = sorted(text.xyann[1] for text in axes.texts)
    assert len(heights) == 26
    assert heights[0] >= 0
    assert heights[-1] <= 1
    height_in_points = axes.figure.get_figheight() * 72 * 0.7
    assert min(np.diff(heights)) * height_in_points > 7


def test_a_line_is_named_by_what_else_differs(arm):
    runs = [run for f in (0.1, 0.2) for n in (100, 897) for run in arm(frac=f, num_real=n, **{FRAC: f})]
    runs += arm("real", num_real=897)
    lines = group_by_setting(runs, FRAC)
    assert {name: list(points) for name, points in lines.items()} == {
        "contaminate, dataset.num_real=100": [0.1, 0.2],
        "contaminate, dataset.num_real=897": [0.1, 0.2],
        "real, dataset.num_real=897": [None],
    }
    assert [run.seed for run in lines["contaminate, dataset.num_real=100"][0.1]] == [0, 1, 2]
    legend = plot_against(runs, FRAC).legends[0].get_texts()
    assert [text.get_text() for text in legend][:2] == [f"{name} (n = 3)" for name in list(lines)[:2]]


def test_a_setting_that_repeats_the_swept_one_makes_no_line_of_its_own(arm):
    runs = [run for k in (1, 2) for run in arm(**{"mitigation.curator.mark": k, "mitigation.weigher.mark": k})]
    assert list(group_by_setting(runs, "mitigation.curator.mark")) == ["contaminate, control"]


def test_null_is_no_number_and_stays_a_horizontal_line(arm):
    runs = [run for n in (100, 400) for run in arm("real", num_real=n)]
    runs += [r for f in (0.2, 0.5) for r in arm(frac=f, **{FRAC: f, "dataset.num_real": None})]
    lines = group_by_setting(runs, "dataset.num_real")
    assert {name: list(points) for name, points in lines.items()} == {
        "real": [100.0, 400.0],
        f"contaminate, {FRAC}=0.2": [None],
        f"contaminate, {FRAC}=0.5": [None],
    }
    axes = plot_against(runs, "dataset.num_real", ["recall"]).axes[0]
    assert {text.get_text() for text in axes.texts} == {
        "floor",
        "contaminate, frac_synthetic=0.2, n = 3",
        "contaminate, frac_synthetic=0.5, n = 3",
    }


@pytest.mark.parametrize(
    ("values", "scale"),
    [((0.01, 0.1, 0.5), "log"), ((0.1, 0.5, 2.0), "linear"), ((0.0, 0.01, 0.5), "linear"), ((-1, 1, 50), "linear")],
)
def test_the_axis_is_logarithmic_for_positive_values_that_span_more_than_a_factor_of_20(arm, values, scale):
    axes = plot_against([run for value in values for run in arm(**{FRAC: value})], FRAC, ["fid"]).axes[0]
    assert axes.get_xscale() == scale
    left, right = axes.get_xlim()
    assert left < min(values)
    assert max(values) < right
    assert {*axes.get_xticks(), *axes.get_xticks(minor=True)} == set(values)


def test_ticks_that_have_no_room_are_not_labelled(doses):
    axes = plot_against(doses, FRAC, ["fid"]).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "0.05", "0.2", "0.5"]


def test_one_seed_has_a_point_and_no_interval(arm):
    runs = [run for f in (0.1, 0.2) for run in arm(frac=f, num_seeds=1, **{FRAC: f})]
    axes = plot_against(runs, FRAC, ["recall"]).axes[0]
    np.testing.assert_allclose(lines_of(axes)[0][1], [recall(0.1, 3, 0), recall(0.2, 3, 0)])
    assert intervals_of(axes) == []


def test_a_seed_that_is_behind_does_not_count_and_its_arm_has_a_cross(make_run, model_value):
    for frac in (0.1, 0.4):
        for seed in range(3):
            reached = 1 if (frac, seed) == (0.4, 2) else None
            regime = {"regime": {"frac_synthetic": frac}}
            make_run(f"runs/{frac}_{seed}", seed=seed, decay=frac, reached=reached, config=regime, grids=False)
    runs = find_runs(make_run("runs/alone", decay=0.3, choices={"regime": "real"}, grids=False).parent)
    figure = plot_against(runs, FRAC, ["recall"])
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [float(line.get_xdata()[0]) for line in crosses] == [0.4]
    expected = summarize([model_value("recall", 3, seed, 0.4) for seed in range(2)])
    assert float(crosses[0].get_ydata()[0]) == pytest.approx(expected.centre)
    assert "with an incomplete run" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert format_against_table(runs, FRAC).loc[f"replace, {FRAC}=0.4", "seeds"] == "2 of 3"


def test_the_table_has_what_the_figure_shows(doses, floors):
    table = against_table(doses, FRAC)
    assert list(dict.fromkeys(table["metric"])) == ["fid", "recall"]
    rows = table[table["metric"] == "recall"]
    np.testing.assert_array_equal(rows["setting"], [0.0, 0.01, 0.05, 0.2, 0.5, np.nan])
    assert list(rows["line"]) == ["contaminate"] * 5 + ["real"]
    fracs = (0.0, 0.01, 0.05, 0.2, 0.5, 0.1)
    assert list(rows["score"]) == [summarize([recall(f, 3, seed) for seed in range(3)]) for f in fracs]
    assert set(rows["generation"]) == {3}
    assert set(rows["floor"]) == {floors["recall"]}
    text = format_against_table(doses, FRAC)
    assert list(text.index) == [FLOOR, *(f"contaminate, {FRAC}={f:g}" for f in fracs[:5]), "real"]
    assert text.loc[FLOOR, "recall ↑"] == "0.910"
    assert text.loc["real", "recall ↑"].startswith(f"{summarize([recall(0.1, 3, s) for s in range(3)]).centre:.3f} ±")
    assert text.loc["real", "last"] == "3"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("regime.frac_sythetic", r"no run has such a setting \(did you mean regime\.frac_synthetic\?\)"),
        ("frac_synthetic", r"did you mean regime\.frac_synthetic\?"),
        ("zzz", "zzz: no run has such a setting; config.yaml"),
        ("budget.num_steps", r"one value only \(300\)"),
        ("generator.start", "generator.start is not a number: it is warm in"),
        ("regime.redraw", "regime.redraw is not a number: it is true in"),
        ("regime.nothing", r"one value only \(null\)"),
    ],
)
def test_settings_that_cannot_be_an_axis_are_refused(arm, setting, message):
    more = {"regime.redraw": True, "regime.nothing": None}
    runs = [run for f in (0.1, 0.5) for run in arm(frac=f, **{FRAC: f}, **more)]
    with pytest.raises(ConfigError, match=message):
        plot_against(runs, setting)


def test_one_seed_twice_at_one_value_is_refused_however_the_value_is_written(arm):
    runs = [run for f in (0, 0.0, 1) for run in arm(**{FRAC: f}, num_seeds=1)]
    with pytest.raises(RunDirError, match="would count this seed twice"):
        group_by_setting(runs, FRAC)


def test_a_metric_that_was_not_measured_is_an_error(doses):
    with pytest.raises(RunDirError, match="not measured: vendi"):
        plot_against(doses, FRAC, ["vendi"])


@pytest.fixture
def sweep_of_doses(make_run, tmp_path):
    def options(seed):
        return {"seed": seed, "grids": False, "metrics": ["fid", "recall"]}

    for frac in (0.05, 0.2, 0.5):
        for seed in range(2):
            choices, config = {"regime": "contaminate"}, {"regime": {"frac_synthetic": frac}}
            make_run(f"runs/{frac}_{seed}", decay=frac / 3, choices=choices, config=config, **options(seed))
    for seed in range(2):
        make_run(f"runs/real_{seed}", decay=0.001, choices={"regime": "real"}, **options(seed))
    return tmp_path / "runs"


@pytest.mark.slow
def test_the_command_adds_figure_and_table(sweep_of_doses, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(sweep_of_doses), "--out", str(out), "--against", FRAC]) == 0
    assert f"Against {FRAC}, each arm at its last generation:" in capsys.readouterr().out
    assert (out / "figures" / f"against_{FRAC}.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"<h2>Against {FRAC}</h2>" in page
    markdown = (out / "table.md").read_text(encoding="utf-8").split(f"Against {FRAC}")[1]
    assert f"| contaminate, {FRAC}=0.05 | 3 | 2 |" in markdown
    assert "| real | 3 | 2 |" in markdown


def test_without_the_option_nothing_is_added_and_the_earlier_figure_goes(sweep_of_doses, tmp_path):
    runs = find_runs(sweep_of_doses)
    for setting in (FRAC, None):
        write_figures(runs, tmp_path, setting=setting)
        assert [file.name for file in tmp_path.glob("against_*")] == ([f"against_{FRAC}.png"] if setting else [])
        titles = [section.title for section in compose_sections(runs, setting=setting)]
        assert any(title.startswith("Against") for title in titles) == (setting is not None)


@pytest.mark.parametrize("setting", ["regime.frac", "budget.num_steps", "regime._target_"])
def test_errors_are_one_line_before_anything_is_written(sweep_of_doses, tmp_path, capsys, setting):
    assert main([str(sweep_of_doses), "--out", str(tmp_path / "out"), "--against", setting]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"collapse-report: {setting}")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_refused_runs_are_left_out(sweep_of_doses, make_run):
    path = make_run("runs/refused", choices={"regime": "contaminate"}, config={"regime": {"frac_synthetic": 0.9}})
    (path / "status.json").write_text(json.dumps({"state": "refused", "error": "makes no sense"}))
    runs = [*find_runs(sweep_of_doses), load_run(path)]
    assert 0.9 not in set(against_table(runs, FRAC)["setting"])
