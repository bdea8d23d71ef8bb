from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from collapse_bench.analysis.figures import (
    MAX_CURVES,
    OKABE_ITO,
    arm_families,
    arms_by_pools,
    last_sample_rows,
    plot_arm_curves,
    plot_class_share_maps,
    plot_class_shares,
    plot_curves,
    plot_last_samples,
    plot_legend,
    plot_pools,
    plot_samples,
    plot_scoreboard,
    plot_standing,
    pool_shares,
    write_figures,
)
from collapse_bench.analysis.runs import HEADLINE, find_runs, group_by_arm, load_run
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


def test_a_metric_that_is_always_zero_has_no_panel_unless_it_is_asked_for(chain):
    run = chain({"recall": [0.9, 0.8], "duplicates": [0.0, 0.0]})
    assert [axes.get_title(loc="left").split("  ")[0] for axes in plot_curves([run]).axes if axes.axison] == ["recall"]
    assert len([axes for axes in plot_curves([run], ["recall", "duplicates"]).axes if axes.axison]) == 2


def test_a_metric_that_was_not_measured_is_an_error(make_run):
    with pytest.raises(RunDirError, match="not measured: vendi"):
        plot_curves([load_run(make_run("a"))], ["fid", "vendi"])


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_have_the_real_row_on_top_and_a_row_per_generation(make_run, channels):
    run = load_run(make_run("a", num_generations=2, channels=channels))
    axes = plot_samples(run).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "real images",
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


def test_a_band_over_seeds_is_drawn_from_three_seeds_on(make_run):
    runs = [load_run(make_run(f"r{seed}", seed=seed)) for seed in range(3)]
    bands = [len(plot_curves(some, ["fid"]).axes[0].collections) for some in (runs[:2], runs)]
    assert bands == [bands[1] - 1, bands[1]]


def test_a_title_stands_above_the_grid(make_run):
    figure = plot_samples(load_run(make_run("a")), title="Samples: replace, seed 0")
    FigureCanvasAgg(figure).draw()
    (title,) = (text for text in figure.texts if text.get_text())
    assert title.get_window_extent().y0 >= figure.axes[0].get_window_extent().y1


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


@pytest.mark.slow
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
        "standing.png",
        "scoreboard.png",
        "pools.png",
    ]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert dict(matplotlib.rcParams) == before


def test_figures_of_arms_that_are_gone_are_removed_and_other_files_stay(make_run, tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    for earlier in ("samples_07_gone_seed_0.png", "curves_fid.png", "standing.png"):
        (folder / earlier).touch()
    (folder / "mine.png").touch()
    write_figures([load_run(make_run("a", grids=False, metrics=["fid"]))], folder)
    assert sorted(file.name for file in folder.iterdir()) == ["curves.png", "mine.png"]


def test_runs_without_pictures_or_classes_still_have_curves(make_run, tmp_path):
    runs = [load_run(make_run("a", grids=False, metrics=["fid"]))]
    assert [file.name for file in write_figures(runs, tmp_path / "figures")] == ["curves.png"]


def test_arms_are_in_families_by_regime_after_those_without_a_mitigation(families):
    named = {family: list(arms) for family, arms in arm_families(group_by_arm(families)).items()}
    assert list(named) == ["no mitigation", "replace with a mitigation", "mix with a mitigation"]
    assert named["mix with a mitigation"] == ["mix, neon", "mix, sims"]
    one_kind = [run for run in families if run.choices["mitigation"] == "control"]
    assert list(arm_families(group_by_arm(one_kind))) == [""]


def test_many_arms_have_a_panel_each_on_one_scale(families):
    figure = plot_arm_curves(families, "recall")
    assert len(figure.axes) == 9
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert [text.get_text() for text in figure.texts][:3] == list(arm_families(group_by_arm(families)))
    in_order = [item for of_family in arm_families(group_by_arm(families)).values() for item in of_family.items()]
    for axes, (arm, members) in zip(figure.axes, in_order, strict=True):
        assert axes.get_title(loc="left") in arm
        thick = [line for line in axes.lines if line.get_linewidth() == 1.8]
        expected = [summarize([run.value(t, "recall") for run in members]).centre for t in range(3)]
        np.testing.assert_allclose(np.asarray(thick[0].get_ydata(), dtype=float), expected)
        assert [line.get_label() for line in axes.lines].count(FLOOR) == 1
        assert axes.texts[0].get_text() == f"{expected[-1]:.3f}"


def test_a_mitigation_is_shown_beside_the_same_regime_without_it(families):
    figure = plot_arm_curves(families, "recall")
    panel = figure.axes[[axes.get_title(loc="left") for axes in figure.axes].index("neon")]
    dashed = [line for line in panel.lines if line.get_linewidth() == 1.2 and line.get_label() != FLOOR]
    replaced = [run for run in families if run.arm_name == "replace, control"]
    expected = [summarize([run.value(t, "recall") for run in replaced]).centre for t in range(3)]
    np.testing.assert_allclose(np.asarray(dashed[0].get_ydata(), dtype=float), expected)


def test_a_mitigation_is_shown_beside_the_arm_of_its_own_settings(chain):
    runs = [
        chain({"fid": [1.0, end]}, mitigation=mitigation, settings={"budget.num_steps": steps})
        for steps, mitigation, end in ((100, "control", 5.0), (300, "control", 2.0), (300, "neon", 3.0))
    ]
    panel = plot_arm_curves(runs, "fid").axes[-1]
    dashed = [line for line in panel.lines if line.get_linewidth() == 1.2 and line.get_label() != FLOOR]
    assert [list(line.get_ydata()) for line in dashed] == [[1.0, 2.0]]


def test_one_arm_that_is_far_off_does_not_flatten_the_others(chain):
    regimes = [f"regime_{i}" for i in range(9)]
    runs = [chain({"fid": [1.0, 1.0 + 0.1 * i]}, regime=regime) for i, regime in enumerate(regimes)]
    axes = plot_arm_curves([*runs, chain({"fid": [1.0, 500.0]}, regime="this_one")], "fid").axes
    assert axes[0].get_ylim()[1] < 10
    assert axes[-1].texts[0].get_text() == "500"


def test_no_two_panels_overlap(families):
    for figure in (plot_arm_curves(families, "fid"), plot_class_share_maps(families), plot_pools(families)):
        boxes = [axes.get_position() for axes in figure.axes]
        assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
        for i, box in enumerate(boxes):
            assert not [other for other in boxes[:i] if box.overlaps(other)]


def test_where_arms_stand_is_their_interval_at_the_last_generation(families):
    figure = plot_standing(families, ["recall"])
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names[0] == "no mitigation"
    assert names[1:3] == ["replace  [1]", "real  [1]"]
    points = {line.get_ydata()[0]: line for line in axes.lines if line.get_marker() == "o"}
    intervals = {line.get_ydata()[0]: line for line in axes.lines if line.get_linewidth() == 1.4}
    expected = summarize([run.value(2, "recall") for run in families if run.arm_name == "real, control"])
    assert points[2].get_xdata()[0] == pytest.approx(expected.centre)
    np.testing.assert_allclose(intervals[2].get_xdata(), [expected.low, expected.high])
    assert FLOOR in [line.get_label() for line in axes.lines]


def test_a_value_that_is_far_off_stands_at_the_edge_with_its_number(chain):
    runs = [chain({"fid": [1.0, 1.0 + 0.1 * i]}, regime=f"regime_{i}") for i in range(15)]
    axes = plot_standing([*runs, chain({"fid": [1.0, 500.0]}, regime="off")]).axes[0]
    assert axes.get_xlim()[1] < 10
    assert "500" in [text.get_text() for text in axes.texts]
    assert [line.get_marker() for line in axes.lines].count(">") == 1


def test_the_scoreboard_is_darker_farther_from_the_floor_on_the_worse_side(chain):
    def with_spread(run):
        records = [
            replace(record, scores=tuple(replace(s, spread=0.01) if s.of == "control" else s for s in record.scores))
            for record in run.records
        ]
        return replace(run, records=tuple(records))

    ends = {"better": 0.95, "close": 0.89, "far": 0.7}
    axes = plot_scoreboard([with_spread(chain({"recall": [0.9, end]}, regime=r)) for r, end in ends.items()]).axes[0]
    lightness = [sum(patch.get_facecolor()[:3]) for patch in axes.patches]
    assert lightness[0] > lightness[1] > lightness[2]
    # Better than the floor is as good as it.
    assert [text.get_text() for text in axes.texts] == ["0.910", "0.950", "0.890", "0.700"]


def test_cells_without_a_number_are_hatched(chain):
    runs = [chain({"recall": [0.9, 0.8], "fid": [1.0, 2.0]}), chain({"recall": [0.9, 0.8]}, regime="mix")]
    axes = plot_scoreboard(runs, ["fid", "recall"]).axes[0]
    assert len([patch for patch in axes.patches if patch.get_hatch()]) == 1


def test_pools_add_up_and_count_what_was_drawn_live(make_run):
    run = load_run(make_run("a", num_generations=2))
    shares = [{"real": 1.0}, {"real": 0.25, "gen_000": 0.75}, {"gen_000": 0.5, "gen_001": 0.3, "gen_001 live": 0.2}]
    run = replace(run, records=tuple(replace(r, train_shares=s) for r, s in zip(run.records, shares, strict=True)))
    table = pool_shares([run])
    assert list(table.index) == ["real", "gen_000", "gen_001"]
    np.testing.assert_allclose(table.to_numpy(), [[1, 0.25, 0], [0, 0.75, 0.5], [0, 0, 0.5]])
    axes = plot_pools([run]).axes[0]
    for t in range(3):
        tops = [bar.get_y() + bar.get_height() for bar in axes.patches if round(bar.get_center()[0]) == t]
        assert max(tops) == pytest.approx(1)
    assert [bars.get_label() for bars in axes.containers] == ["real", "gen_000", "gen_001"]


def test_arms_with_equal_pools_share_a_panel(families):
    assert [len(arms) for arms, _ in arms_by_pools(families)] == [9]
    assert [axes.get_title(loc="left") for axes in plot_pools(families).axes] == ["replace and others (9\narms)"]


def test_class_share_maps_are_one_per_arm_on_one_scale(families):
    figure = plot_class_share_maps(families)
    maps = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(maps) == 9
    assert len({axes.collections[0].get_clim() for axes in maps}) == 1
    run = next(run for run in families if run.arm_name == "mix, sims" and run.seed == 0)
    values = np.asarray(maps[-1].collections[0].get_array()).reshape(4, 4)
    np.testing.assert_allclose(values[:, 0], 0.25)
    np.testing.assert_allclose(values[:, 1:], run.class_shares().to_numpy())
    assert maps[-1].get_title(loc="right") == f"{100 * run.class_shares().iloc[:, -1].min():.1f} %"


def test_what_arms_end_with_is_shown_of_one_seed(families, make_run):
    rows = last_sample_rows(families)
    assert list(rows) == ["real images", "generation 0 of replace, control", *group_by_arm(families)]
    np.testing.assert_array_equal(rows["mix, sims"], families[-2].grid(2))
    axes = plot_last_samples(families).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == list(rows)
    with pytest.raises(RunDirError, match="no arm has sample grids"):
        plot_last_samples([load_run(make_run("a", grids=False))])


def test_an_arm_that_is_called_real_takes_nothing_from_the_row_of_real_images(make_run):
    runs = [load_run(make_run(regime, choices={"regime": regime})) for regime in ("replace", "real")]
    rows = last_sample_rows(runs)
    assert list(rows) == ["real images", "generation 0 of replace", "replace", "real"]
    np.testing.assert_array_equal(rows["real images"], runs[0].real_grid)
    np.testing.assert_array_equal(rows["real"], runs[1].grid(3))


def test_many_arms_are_written_as_small_multiples(make_run, tmp_path):
    for i in range(MAX_CURVES + 1):
        make_run(f"runs/{i}", choices={"regime": f"regime_{i}"}, num_generations=1, metrics=["recall", "class_kl"])
    names = [file.name for file in write_figures(find_runs(tmp_path / "runs"), tmp_path / "figures")]
    several = ["samples.png", "class_shares.png", "standing.png", "scoreboard.png", "pools.png"]
    assert names == ["curves_recall.png", "curves_class_kl.png", *several]
