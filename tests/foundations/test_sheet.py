from pathlib import Path

import pytest

from collapse_bench.errors import RunDirError
from collapse_bench.rundir import RunDir
from collapse_bench.sheet import Cell, add_cells, in_short, note, read_sheet, read_sheets, start_sheet, unfinished

CELLS = [("regime=replace", "seed=0", "budget=smoke"), ("regime=real", "seed=0", "budget=smoke")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / ".sweep" / "1a2b3c4d.json"
    path.parent.mkdir()
    start_sheet(path, "collapse-run -m regime=replace,real", CELLS)
    return path


def test_a_sheet_says_what_was_noted_of_each_cell_and_nothing_of_the_others(path: Path) -> None:
    note(path, reversed_of(CELLS[1]), begun="then", run_dir="runs/b", value=0.5)
    sheet = read_sheet(path)
    assert sheet.command == "collapse-run -m regime=replace,real"
    assert sheet.cells == (Cell(CELLS[0]), Cell(CELLS[1], run_dir="runs/b", begun="then", value=0.5))


def reversed_of(cell: tuple[str, ...]) -> tuple[str, ...]:
    return cell[::-1]


def test_another_start_keeps_the_run_folders_and_forgets_the_rest(path: Path) -> None:
    note(path, CELLS[0], begun="then", ended="later", run_dir="runs/a", error="no luck")
    start_sheet(path, "again", CELLS)
    assert read_sheet(path).cells == (Cell(CELLS[0], run_dir="runs/a"), Cell(CELLS[1]))
    assert read_sheet(path).command == "again"


def test_cells_that_a_sweeper_chooses_later_are_added_once(path: Path) -> None:
    new = ("regime=mix", "seed=0", "budget=smoke")
    for _ in range(2):
        add_cells(path, [CELLS[0], new])
    assert [cell.overrides for cell in read_sheet(path).cells] == [*CELLS, new]


def test_what_did_not_finish_has_a_line_with_reason_and_folder(path: Path, tmp_path: Path) -> None:
    begun = tmp_path / "run"
    (begun / "gen_000").mkdir(parents=True)
    third, fourth = ("regime=mix", "seed=0", "budget=smoke"), ("regime=fresh", "seed=0", "budget=smoke")
    add_cells(path, [third, fourth])
    note(path, CELLS[0], begun="then", ended="later", error="no luck", run_dir=str(tmp_path / "refused"))
    note(path, CELLS[1], begun="then", run_dir=str(begun))
    note(path, third, begun="then", ended="later", run_dir=str(begun))
    killed_at_the_end = ("regime=window", "seed=0", "budget=smoke")
    add_cells(path, [killed_at_the_end])
    note(path, killed_at_the_end, begun="then", run_dir=str(tmp_path / "complete"))
    (tmp_path / "complete").mkdir()
    RunDir(tmp_path / "complete").write_status("complete")
    assert unfinished(read_sheet(path)) == [
        "regime=replace: no luck  [no folder yet]",
        f"regime=real: its process died after generation 0 was committed (killed, or out of memory?)  [{begun}]",
        "regime=fresh: never began  [no folder yet]",
    ]


def test_a_cell_is_named_by_what_tells_it_from_the_others(path: Path) -> None:
    sheet = read_sheet(path)
    assert [in_short(cell, sheet) for cell in sheet.cells] == ["regime=replace", "regime=real"]


def test_sheets_are_read_in_the_order_of_their_starts_and_a_damaged_one_is_named(path: Path, tmp_path: Path) -> None:
    assert [sheet.path for sheet in read_sheets(tmp_path)] == [path]
    assert read_sheets(tmp_path / "nowhere") == []
    path.write_text('{"cells": [{"override": []}]}')
    with pytest.raises(RunDirError, match=r"1a2b3c4d\.json is not the sheet of a sweep"):
        read_sheets(tmp_path)
