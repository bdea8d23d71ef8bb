"""What a sweep's status says of cells in every state, and how long it thinks that they take."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from collapse_bench.analysis.status import STATES, CellStatus, Status, read_status
from collapse_bench.errors import RunDirError
from collapse_bench.sheet import note, start_sheet

# Of every generation that conftest's runs have: fit, sample and measure.
SECONDS = 4.5
COMMAND = "collapse-run -m regime=replace,accumulate seed=0,1"


def set_status(path: Path, state: str, error: str | None = None) -> None:
    (path / "status.json").write_text(json.dumps({"state": state, "generation": 0, "error": error, "updated": ""}))


def set_seconds(path: Path, seconds: list[float]) -> None:
    for generation, total in enumerate(seconds):
        file = path / f"gen_{generation:03d}" / "record.json"
        record: dict[str, Any] = json.loads(file.read_text())
        record["spent"]["seconds"] = {"fit": total / 2, "measure": total / 2}
        file.write_text(json.dumps(record))


def cell(status: Status, name: str) -> CellStatus:
    return next(cell for cell in status.cells if cell.name == name)


def write_sheet(runs_dir: Path, cells: list[list[str]], number: str = "00000001") -> Path:
    path = runs_dir / ".sweep" / f"{number}.json"
    start_sheet(path, COMMAND, cells)
    return path


def test_every_state_is_told_apart(make_run, tmp_path):
    make_run("done", seed=0)
    interrupted = make_run("killed", seed=1, reached=1)
    (interrupted / ".lock").touch()
    stopped = make_run("stopped", seed=2, reached=0)
    set_status(stopped, "interrupted")
    failed = make_run("failed", seed=3, reached=0)
    set_status(failed, "failed", "the loss became NaN\nat step 7")
    refused = make_run("refused", seed=4, reached=-1)
    set_status(refused, "refused", "neither goes with the other")
    running = make_run("running", seed=5, reached=2)
    sheet = write_sheet(tmp_path, [["regime=fresh", "seed=0"], ["regime=fresh", "seed=1"]])
    note(sheet, ["regime=fresh", "seed=1"], begun="2026-11-21T00:00:00", ended="2026-11-21T00:00:01", error="no data")
    with FileLock(running / ".lock"):
        status = read_status(tmp_path)
    assert {(c.name, c.state, c.generation, c.error) for c in status.cells} == {
        ("done", "complete", 3, None),
        ("killed", "interrupted", 1, None),
        ("stopped", "interrupted", 0, None),
        ("failed", "failed", 0, "the loss became NaN at step 7"),
        ("refused", "refused", -1, "neither goes with the other"),
        ("running", "running", 2, None),
        ("seed=0", "missing", -1, None),
        ("seed=1", "failed", -1, "no data"),
    }
    assert [c.state for c in status.cells] == sorted((c.state for c in status.cells), key=STATES.index)
    counts = {"complete": 1, "refused": 1, "running": 1, "interrupted": 2, "failed": 2, "missing": 1}
    assert status.counts == counts


def test_a_run_that_was_killed_before_its_first_status_is_interrupted(make_run, tmp_path):
    path = make_run("a", reached=-1)
    (path / "status.json").unlink()
    assert [c.state for c in read_status(tmp_path).cells] == ["interrupted"]
    with FileLock(path / ".lock"):
        assert [c.state for c in read_status(tmp_path).cells] == ["running"]


def test_the_commands_are_those_of_the_sweeps_and_of_runs_outside_of_any(make_run, tmp_path):
    make_run("done")
    make_run("alone", seed=7, reached=1)
    begun = make_run("begun", seed=1, reached=1)
    sheet = write_sheet(tmp_path, [["seed=0"], ["seed=1"], ["seed=2"]])
    note(sheet, ["seed=0"], run_dir="elsewhere/runs/done")  # the folder was moved; its name is what counts
    note(sheet, ["seed=1"], run_dir=str(begun))
    status = read_status(tmp_path)
    assert {(c.name, c.state) for c in status.cells} == {
        ("done", "complete"),
        ("alone", "interrupted"),
        ("begun", "interrupted"),
        ("seed=2", "missing"),
    }
    assert status.commands == ["collapse-run regime=replace seed=7", COMMAND]
    assert cell(status, "begun").command == COMMAND


def test_nothing_is_to_be_run_where_all_is_complete_or_refused(make_run, tmp_path):
    make_run("done")
    set_status(make_run("refused", seed=1, reached=-1), "refused", "no")
    status = read_status(tmp_path)
    assert status.commands == []
    assert status.left_s == 0


def test_a_missing_cell_is_named_by_what_sets_it_apart_in_its_sweep(tmp_path):
    write_sheet(tmp_path, [["trainer=cpu", "regime=mix", "seed=0"], ["trainer=cpu", "regime=mix", "seed=1"]])
    write_sheet(tmp_path, [["regime=fresh", "seed=0"]], "00000002")
    assert [c.name for c in read_status(tmp_path).cells] == ["regime=fresh seed=0", "seed=0", "seed=1"]


def test_a_cell_of_two_sweeps_counts_once(make_run, tmp_path):
    make_run("done")
    for number in ("00000001", "00000002"):
        sheet = write_sheet(tmp_path, [["seed=0"], ["seed=1"]], number)
    note(sheet, ["seed=0"], run_dir="done")
    assert [(c.name, c.state) for c in read_status(tmp_path).cells] == [("done", "complete"), ("seed=1", "missing")]


def test_a_missing_cell_takes_as_long_as_others_of_its_sweep_where_its_own_arm_has_no_run(make_run, tmp_path):
    alone, of_the_sweep = make_run("alone", seed=7), make_run("first", seed=0)
    set_seconds(alone, [100.0] * 4)
    set_seconds(of_the_sweep, [2.0] * 4)
    sheet = write_sheet(tmp_path, [["regime=replace", "seed=0"], ["regime=accumulate", "seed=0"]])
    note(sheet, ["regime=replace", "seed=0"], begun="2026-11-21T00:00:00", run_dir=str(of_the_sweep))
    assert cell(read_status(tmp_path), "regime=accumulate").left_s == pytest.approx(8.0)


def test_a_deleted_run_folder_is_a_missing_cell(make_run, tmp_path):
    path = make_run("done")
    note(write_sheet(tmp_path, [["seed=0"]]), ["seed=0"], run_dir="done")
    shutil.rmtree(path)
    assert [(c.name, c.state) for c in read_status(tmp_path).cells] == [("seed=0", "missing")]


def test_a_run_alone_is_timed_by_its_own_generations_but_the_first(make_run, tmp_path):
    path = make_run("a", num_generations=10, reached=2)
    set_seconds(path, [100.0, 3.0, 5.0])
    (only,) = read_status(tmp_path).cells
    assert only.s_per_generation == pytest.approx(4.0)
    assert only.left_s == pytest.approx(8 * 4.0)


def test_a_run_is_timed_by_finished_runs_of_its_arm_at_its_own_pace(make_run, tmp_path):
    for name, seed in (("one", 0), ("two", 1)):
        set_seconds(make_run(name, seed=seed, num_generations=4), [50.0, 2.0, 4.0, 8.0, 16.0])
    other = make_run("other", num_generations=4, choices={"regime": "accumulate"})
    set_seconds(other, [1000.0] * 5)
    slow = make_run("slow", seed=2, num_generations=4, reached=2)
    set_seconds(slow, [0.1, 4.0, 8.0])
    assert cell(read_status(tmp_path), "slow").left_s == pytest.approx(2 * (8.0 + 16.0))
    fresh = make_run("fresh", seed=3, num_generations=4, reached=-1)
    assert fresh.exists()
    assert cell(read_status(tmp_path), "fresh").left_s == pytest.approx(80.0)


def test_a_cell_that_never_began_takes_what_its_arm_took(make_run, tmp_path):
    set_seconds(make_run("quick", num_generations=1), [1.0, 1.0])
    set_seconds(make_run("slow", num_generations=1, choices={"regime": "fresh"}), [10.0, 10.0])
    cells = [[f"regime={regime}", f"seed={s}"] for regime in ("replace", "fresh", "mix") for s in (0, 1)]
    sheet = write_sheet(tmp_path, cells[:5])
    note(sheet, cells[0], run_dir="quick")
    note(sheet, cells[2], run_dir="slow")
    status = read_status(tmp_path)
    assert cell(status, "regime=replace seed=1").left_s == pytest.approx(2.0)
    assert cell(status, "regime=fresh seed=1").left_s == pytest.approx(20.0)
    assert cell(status, "regime=mix seed=0").left_s == pytest.approx(11.0)
    assert status.left_s == pytest.approx(33.0)


def test_what_runs_side_by_side_shares_the_time_left(make_run, tmp_path):
    make_run("done", seed=0, num_generations=9)
    paths = [make_run(f"r{seed}", seed=seed, num_generations=9, reached=4) for seed in (1, 2)]
    make_run("later", seed=3, num_generations=9, reached=-1)
    with FileLock(paths[0] / ".lock"), FileLock(paths[1] / ".lock"):
        now = max(os.stat(p / "gen_004" / "record.json").st_mtime for p in paths)  # noqa: PTH116
        status = read_status(tmp_path, now=now)
    assert cell(status, "r2").left_s == pytest.approx(5 * SECONDS)
    assert status.left_s == pytest.approx((5 + 5 + 10) * SECONDS / 2, abs=0.2)


def test_the_time_since_the_last_generation_counts_where_a_process_works_on_it(make_run, tmp_path):
    path = make_run("a", num_generations=9, reached=4)
    now = (path / "status.json").stat().st_mtime
    now = max(now, (path / "gen_004" / "record.json").stat().st_mtime)
    assert read_status(tmp_path, now=now + 10).left_s == pytest.approx(5 * SECONDS)
    with FileLock(path / ".lock"):
        assert read_status(tmp_path, now=now + 10).left_s == pytest.approx(5 * SECONDS - 10)
        assert read_status(tmp_path, now=now + 1e6).left_s == 0


def test_nothing_is_guessed_before_anything_has_run(make_run, tmp_path):
    make_run("a", reached=-1)
    status = read_status(tmp_path)
    assert status.cells[0].left_s is None
    assert status.left_s is None


def test_damaged_files_are_said_and_stop_nothing(make_run, tmp_path):
    make_run("good")
    (make_run("bad", seed=1) / "run.json").write_text("{")
    (make_run("worse", seed=2) / "gen_000" / "record.json").write_text("{}")
    (tmp_path / ".sweep").mkdir()
    (tmp_path / ".sweep" / "00000001.json").write_text("[1")
    status = read_status(tmp_path)
    assert {c.name: c.state for c in status.cells} == {"good": "complete", "bad": "failed", "worse": "failed"}
    assert "run.json: damaged" in (cell(status, "bad").error or "")
    assert len(status.problems) == 1
    assert "00000001.json" in status.problems[0]


def test_no_folder_is_an_error_and_an_empty_one_is_not(tmp_path):
    with pytest.raises(RunDirError, match="no such folder"):
        read_status(tmp_path / "nowhere")
    assert read_status(tmp_path).cells == ()
