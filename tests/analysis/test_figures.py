import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from collapse_bench.analysis.figures import (
    OKABE_ITO,
    plot_class_shares,
    plot_curves,
    plot_legend,
    plot_samples,
    write_figures,
)
from collapse_bench.analysis.runs import HEADLINE, find_runs, load_run
from collapse_bench.analysis.statistics import summarize
from collapse_bench.analysis.tables import FLOOR
from collapse_bench.errors import RunDirError


def test_every_panel_has_the_floor_as_a_labelled_dashed_line(sweep, floors):
    figure = plot_curves(find_runs(sweep))
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == len(HEADLINE)
    for axes, metric in zip(panels, HEADLINE, strict=True):
        lines = [line for line in axes.lines if line.get_label() == FLOOR]
        assert len(lines) == 1
        assert set(np.asarray(lines[0].get_ydata(), dtype=float)) == {floors[metric]}
        assert lines[0].is_dashed()
        assert "floor" in [text.get_text() for text in axes.texts]


def test_curves_are_the_summary_over_seeds(sweep, model_value):
    axes = plot_curves(find_runs(sweep), ["recall"]).axes[0]
    thick = [line for line in axes.lines if line.get_linewidth() == 1.8]
    assert len(thick) == 2
    expected = [summarize([model_value("recall", t, seed, 0.1) for seed in range(3)]) for t in range(4)]
    np.testing.assert_allclose(np.asarray(thick[0].get_ydata(), dtype=float), [i.centre for i in expected])
    band = axes.collections[0].get_paths()[0].vertices
    assert np.isclose(band[:, 1], expected[3].low).any()
    assert np.isclose(band[:, 1], expected[3].high).any()


def test_each_seed_is_a_thin_line(sweep):
    axes = plot_curves(find_runs(sweep), ["recall"]).axes[0]
    assert len([line for line in axes.lines if line.get_linewidth() == 0.6]) == 6


def test_arms_differ_in_colour_dash_and_marker(make_run):
    runs = [load_run(make_run(f"r{i}", choices={"regime": f"regime_{i}"})) for i in range(4)]
    lines = [line for line in plot_curves(runs, ["fid"]).axes[0].lines if line.get_linewidth() == 1.8]
    assert {to_rgb(line.get_color()) for line in lines} == {to_rgb(colour) for colour in OKABE_ITO[:4]}
    assert len({line.get_marker() for line in lines}) == 4
    assert len({str(line._dash_pattern) for line in lines}) == 4


def test_twenty_arms_all_look_different(make_run):
    runs = [
        load_run(make_run(f"r{i}", choices={"regime": f"regime_{i}"}, num_generations=0, grids=False, metrics=["fid"]))
        for i in range(20)
    ]
    handles = plot_legend(runs).legends[0].legend_handles
    looks = {(h.get_color(), h.get_marker(), str(h._dash_pattern)) for h in handles[:20]}
    assert len(looks) == 20


def test_the_legend_says_n_and_marks_incomplete_runs(make_run):
    runs = [load_run(make_run(f"r{s}", seed=s, reached=1 if s else None)) for s in range(2)]
    labels = [text.get_text() for text in plot_curves(runs).legends[0].get_texts()]
    assert labels == ["replace, control (n = 2)", f"{FLOOR} (band: 2 sd)", "an incomplete run ends here"]


def test_one_seed_has_a_curve_and_no_band(make_run):
    axes = plot_curves([load_run(make_run("a"))], ["fid"]).axes[0]
    assert len([line for line in axes.lines if line.get_linewidth() == 1.8]) == 1
    assert not np.isfinite(np.concatenate([p.vertices for c in axes.collections for p in c.get_paths()] or [[]])).any()


def test_a_metric_that_was_not_measured_is_an_error(make_run):
    with pytest.raises(RunDirError, match="not measured: vendi"):
        plot_curves([load_run(make_run("a"))], ["fid", "vendi"])


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_have_the_real_row_on_top_and_a_row_per_generation(make_run, channels):
    run = load_run(make_run("a", num_generations=2, channels=channels))
    axes = plot_samples(run).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "real",
        "generation 0",
        "generation 1",
        "generation 2",
    ]
    picture = axes.images[0].get_array()
    assert picture is not None
    np.testing.assert_array_equal(picture[1:17, 1:17, 0], run.real_grid[0, ..., 0])
    np.testing.assert_array_equal(picture[-17:-1, -17:-1, 0], run.grid(2)[-1, ..., 0])
    centres = axes.get_yticks()
    for centre, images in zip(centres, [run.real_grid, *map(run.grid, range(3))], strict=True):
        top = round(centre - 7.5)
        np.testing.assert_array_equal(picture[top : top + 16, 1:17, 0], images[0, ..., 0])


def test_long_chains_show_some_generations_with_the_first_and_the_last(make_run):
    labels = plot_samples(load_run(make_run("a", num_generations=40))).axes[0].get_yticklabels()
    texts = [text.get_text() for text in labels]
    assert len(texts) == 14
    assert (texts[1], texts[-1]) == ("generation 0", "generation 40")


def test_a_missing_grid_is_named(make_run):
    path = make_run("a")
    (path / "gen_001" / "grid.npy").unlink()
    with pytest.raises(RunDirError, match=r"gen_001/grid\.npy"):
        plot_samples(load_run(path))


def test_class_shares_show_reals_then_generations(make_run):
    run = load_run(make_run("a"))
    axes = plot_class_shares(run).axes[0]
    values = np.asarray(axes.collections[0].get_array()).reshape(4, 5)
    np.testing.assert_allclose(values[:, 0], 0.25)
    np.testing.assert_allclose(values[:, 1:], run.class_shares().to_numpy())
    assert [text.get_text() for text in axes.get_xticklabels()] == ["real", "0", "1", "2", "3"]
    assert [text.get_text() for text in axes.get_yticklabels()] == list(run.class_names)


def test_figures_are_written_and_leave_no_global_state(sweep, tmp_path):
    before = dict(matplotlib.rcParams)
    files = write_figures(find_runs(sweep), tmp_path / "figures")
    names = [file.name for file in files]
    assert names == [
        "curves.png",
        "samples_00_replace_seed_0.png",
        "class_shares_00_replace_seed_0.png",
        "samples_01_accumulate_seed_0.png",
        "class_shares_01_accumulate_seed_0.png",
    ]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert dict(matplotlib.rcParams) == before


def test_figures_of_arms_that_are_gone_are_removed_and_other_files_stay(make_run, tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "samples_07_gone_seed_0.png").touch()
    (folder / "mine.png").touch()
    write_figures([load_run(make_run("a", grids=False, metrics=["fid"]))], folder)
    assert sorted(file.name for file in folder.iterdir()) == ["curves.png", "mine.png"]


def test_runs_without_pictures_or_classes_still_have_curves(make_run, tmp_path):
    runs = [load_run(make_run("a", grids=False, metrics=["fid"]))]
    assert [file.name for file in write_figures(runs, tmp_path / "figures")] == ["curves.png"]
