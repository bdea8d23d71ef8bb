"""The ledger of a run read back: where each image went, and what each pool was made of."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain

from collapse_bench.analysis.lineage import (
    fate_table,
    format_lineage_table,
    lineage_table,
    load_ledger,
    plot_lineage,
)
from collapse_bench.analysis.runs import Run, load_run
from collapse_bench.errors import RunDirError
from collapse_bench.ledger import IMAGES, TRAINED, Ledger
from collapse_bench.records import REAL

# Image k of generation t has the id 100 (t + 1) + k and the seed 7 more than that.
Images = Mapping[int, tuple[int, str]]
Trained = Sequence[tuple[int, float] | tuple[int, float, float]]


def facts(image_ids: Sequence[int]) -> pd.DataFrame:
    ids = np.array(image_ids, dtype=np.int64)
    born = ids // 100 - 1
    source = ["digits" if b == REAL else "flow" for b in born]
    return pd.DataFrame({"image_id": ids, "seed": ids + 7, "born": born, "source": source, "label": ids % 2})


def write_ledger(folder: Path, images: Images, trained: Trained) -> None:
    entered = facts(list(images)).assign(
        drawn=[image_id >= 100 for image_id in images],
        num_kept=[num_kept for num_kept, _ in images.values()],
        because=[because for _, because in images.values()],
    )
    gates = [rest[0] if rest else math.inf for _, _, *rest in trained]
    pool = facts([image_id for image_id, *_ in trained])
    pool = pool.assign(because="?", weight=[weight for _, weight, *_ in trained], gate=gates)
    Ledger(entered, pool).save(folder)


@pytest.fixture
def by_hand(make_run) -> Run:
    """Four real images; generation 0 keeps one of three, generation 1 one of two, twice."""
    path = make_run("by_hand", num_generations=2, grids=False)
    real = dict.fromkeys(range(4), (1, "real"))
    first = {100: (0, "not kept by Judge"), 101: (1, "good"), 102: (0, "not kept by Judge")}
    write_ledger(path / "gen_000", {**real, **first}, [(k, 0.25) for k in range(4)])
    write_ledger(path / "gen_001", {200: (2, "good"), 201: (0, "not kept by Judge")}, [(0, 0.2), (1, 0.0), (101, 0.8)])
    write_ledger(path / "gen_002", {300: (1, "good")}, [(3, 0.5), (200, 0.25), (200, 0.25)])
    return load_run(path)


def run_of(chain: FinishedChain) -> Run:
    return Run(chain.run_dir.path, {}, {}, {"state": "complete"}, chain.records)


def test_an_image_that_a_gate_leaves_out_at_every_level_is_not_trained_on(make_run) -> None:
    path = make_run("gated", num_generations=1, grids=False)
    write_ledger(path / "gen_000", dict.fromkeys(range(3), (1, "real")), [(k, 1 / 3) for k in range(3)])
    write_ledger(path / "gen_001", {}, [(0, 0.4), (1, 0.3, -1.0), (2, 0.3, -math.inf)])
    run = load_run(path)
    assert load_ledger(run)["trained_in"].tolist() == [[0, 1], [0, 1], [0]]
    assert lineage_table(run)["num_trained"].tolist() == [3, 2, 0]


def test_the_ledger_has_one_row_per_image_and_its_whole_story(by_hand: Run) -> None:
    ledger = load_ledger(by_hand)
    story = ledger[["image_id", "born", "kept", "num_kept", "because", "trained_in"]]
    assert list(story.itertuples(index=False, name=None)) == [
        (0, REAL, True, 1, "real", [0, 1]),
        (1, REAL, True, 1, "real", [0]),  # it was in the pool of generation 1 with a weight of 0
        (2, REAL, True, 1, "real", [0]),
        (3, REAL, True, 1, "real", [0, 2]),
        (100, 0, False, 0, "not kept by Judge", []),
        (101, 0, True, 1, "good", [1]),
        (102, 0, False, 0, "not kept by Judge", []),
        (200, 1, True, 2, "good", [2]),
        (201, 1, False, 0, "not kept by Judge", []),
        (300, 2, True, 1, "good", []),
    ]
    assert ledger["source"].tolist() == ["digits"] * 4 + ["flow"] * 6
    assert (ledger["seed"] == ledger["image_id"] + 7).all()


def test_the_lineage_is_what_is_computed_by_hand(by_hand: Run) -> None:
    expected = [
        (0, "real", 4, 4, 1.0, 1.0),
        (1, "real", 2, 1, 0.2, 0.5),
        (1, "gen_000", 1, 1, 0.8, 1.0),
        (2, "real", 1, 1, 0.5, 0.25),
        (2, "gen_000", 0, 0, 0.0, 0.0),
        (2, "gen_001", 2, 2, 0.5, 1.0),
    ]
    table = lineage_table(by_hand)
    assert list(table.columns) == [
        *("generation", "origin", "num_images", "num_trained", "frac_of_pool", "frac_of_origin")
    ]
    for row, wanted in zip(table.itertuples(index=False, name=None), expected, strict=True):
        assert row[:4] == wanted[:4]
        assert row[4:] == pytest.approx(wanted[4:])


def test_the_text_gives_both_shares_of_a_cell(by_hand: Run) -> None:
    text = format_lineage_table(lineage_table(by_hand))
    assert text.to_dict("index") == {
        0: {"real": "100 % (4)\n100 %", "gen_000": "\n", "gen_001": "\n"},
        1: {"real": "20.0 % (2)\n50.0 %", "gen_000": "80.0 % (1)\n100 %", "gen_001": "\n"},
        2: {"real": "50.0 % (1)\n25.0 %", "gen_000": "0 % (0)\n0 %", "gen_001": "50.0 % (2)\n100 %"},
    }


def test_a_share_that_is_nearly_all_or_nothing_does_not_look_like_it(by_hand: Run) -> None:
    table = lineage_table(by_hand).head(1).assign(frac_of_pool=0.9996, frac_of_origin=0.0001)
    assert format_lineage_table(table).loc[0, "real"] == "99.9 % (4)\n< 0.1 %"


def test_fates_count_what_was_kept_and_dropped_and_by_which_rule(by_hand: Run) -> None:
    fates = fate_table(load_ledger(by_hand))
    assert list(fates.itertuples(name=None)) == [
        ("real", "kept: real", "4", "4"),
        ("gen_000", "kept: good", "1", "1"),
        ("gen_000", "not kept by Judge", "2", "0"),
        ("gen_001", "kept: good", "1", "1"),
        ("gen_001", "not kept by Judge", "1", "0"),
        ("gen_002", "kept: good", "1", "0"),
    ]


def test_the_same_id_with_another_seed_is_another_image(by_hand: Run) -> None:
    file = by_hand.path / "gen_001" / TRAINED
    pool = pd.read_parquet(file)
    pool.loc[2, "seed"] = 1
    pool.to_parquet(file)
    ledger = load_ledger(by_hand).set_index(["image_id", "seed"])
    assert ledger.loc[(101, 108), "trained_in"] == []
    foreign = ledger.loc[(101, 1)]
    assert foreign["trained_in"] == [1], "an image that is only in a pool is one of the run"
    assert not foreign["drawn"]
    assert not foreign["kept"]


@pytest.fixture(scope="module", params=["accumulate", "replace"])
def gaussian_chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Run]:
    options = (*TINY_GAUSSIAN, f"regime={request.param}", "mitigation=random_subset")
    return request.param, run_of(FinishedChain(tmp_path_factory.mktemp(request.param), *options))


def test_accumulate_keeps_all_real_images_and_replace_none(gaussian_chain: tuple[str, Run]) -> None:
    regime, run = gaussian_chain
    real = lineage_table(run).query("origin == 'real'")
    accumulates = regime == "accumulate"
    assert real["frac_of_origin"].tolist() == ([1.0] * 4 if accumulates else [1.0, 0.0, 0.0, 0.0])
    assert real["frac_of_pool"].tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4] if accumulates else [1, 0, 0, 0])


def test_shares_of_the_pool_are_those_of_the_records(gaussian_chain: tuple[str, Run]) -> None:
    _, run = gaussian_chain
    table = lineage_table(run).set_index(["generation", "origin"])
    for record in run.records:
        part = table.loc[record.generation]
        present = part[part["num_images"] > 0]
        assert present["num_images"].to_dict() == dict(record.train_pool)
        assert present["frac_of_pool"].to_dict() == pytest.approx(dict(record.train_shares))


def test_what_was_trained_on_was_kept(gaussian_chain: tuple[str, Run]) -> None:
    regime, run = gaussian_chain
    ledger = load_ledger(run)
    assert len(ledger) == 22 + 4 * 44
    assert not ledger.loc[~ledger["kept"], "trained_in"].map(len).any()
    kept = ledger[ledger["kept"]]
    for born, trained_in in zip(kept["born"], kept["trained_in"], strict=True):
        later = list(range(born + 1, 4))
        assert trained_in == (later if regime == "accumulate" else later[:1])


def test_a_pool_that_is_drawn_while_training_has_shares_and_no_images(tmp_path: Path) -> None:
    options = [*TINY, *TINY_FLOW, "regime=replace_on_the_fly", "budget.num_generations=1"]
    run = run_of(FinishedChain(tmp_path, *options))
    assert len(pd.read_parquet(run.path / "gen_001" / TRAINED)) == 0
    table = lineage_table(run)
    assert table["frac_of_pool"].tolist() == [1.0, 0.0, 1.0]
    assert table["num_images"].tolist() == [64, 0, 0]
    assert table["frac_of_origin"].tolist() == [1.0, 0.0, 0.0]
    synthetic = load_ledger(run).query("born >= 0")
    assert synthetic["kept"].all()
    assert not synthetic["trained_in"].map(len).any()


def test_the_figure_shows_the_table(by_hand: Run) -> None:
    table = lineage_table(by_hand)
    figure = plot_lineage(table)
    left, right = figure.axes[:2]
    assert [text.get_text() for text in left.get_yticklabels()] == ["real", "0", "1"]
    assert [text.get_text() for text in right.get_xticklabels()] == ["0", "1", "2"]
    nan = np.nan
    for axes, values in (
        (left, [[1, 0.2, 0.5], [nan, 0.8, 0], [nan, nan, 0.5]]),
        (right, [[1, 0.5, 0.25], [nan, 1, 0], [nan, nan, 1]]),
    ):
        shown = np.ma.filled(axes.collections[0].get_array(), np.nan).reshape(3, 3)
        np.testing.assert_allclose(shown, values)
        assert [text.get_text() for text in axes.texts] == [f"{100 * v:.0f}" for v in np.ravel(values) if v == v]


def test_the_figure_of_a_long_chain_has_no_numbers_in_cells_too_small_for_them() -> None:
    rows = [
        (t, "real" if k == REAL else f"gen_{k:03d}", 1, 1, 1 / (t + 1), 1.0) for t in range(60) for k in range(REAL, t)
    ]
    columns = ["generation", "origin", "num_images", "num_trained", "frac_of_pool", "frac_of_origin"]
    axes = plot_lineage(pd.DataFrame(rows, columns=columns)).axes[0]
    assert not axes.texts
    assert len(axes.get_yticklabels()) <= 20
    assert len(axes.get_xticklabels()) <= 15


@pytest.mark.parametrize("read", [load_ledger, lineage_table])
@pytest.mark.parametrize("name", [IMAGES, TRAINED])
def test_a_missing_or_damaged_table_is_named_with_the_remedy(by_hand: Run, name: str, read) -> None:
    file = by_hand.path / "gen_001" / name
    whole = file.read_bytes()
    for content in (b"", b"PAR1 not really PAR1", whole[: len(whole) // 2], b"\0" * 40 + whole[40:]):
        file.write_bytes(content)
        with pytest.raises(RunDirError, match=rf"gen_001/{name}: damaged .*restore it from a copy") as error:
            read(by_hand)
        assert len(str(error.value).splitlines()) == 1
    pd.DataFrame({"image_id": [1]}).to_parquet(file)
    with pytest.raises(RunDirError, match=rf"gen_001/{name}: damaged"):
        read(by_hand)
    file.unlink()
    with pytest.raises(RunDirError, match=rf"gen_001/{name}: missing, as in runs older than the ledger; repeat"):
        read(by_hand)


@pytest.mark.parametrize("read", [load_ledger, lineage_table])
def test_a_run_without_a_generation_is_refused(make_run, read) -> None:
    path = make_run("empty", num_generations=3, reached=-1)
    assert json.loads((path / "status.json").read_text())["generation"] == -1
    with pytest.raises(RunDirError, match="no generation is committed yet"):
        read(load_run(path))
