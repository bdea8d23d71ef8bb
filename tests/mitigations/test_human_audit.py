import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, composed, opened_run_dir, parts_of
from curating import Bench, assert_equal_pools, noise
from PIL import Image

from collapse_bench.errors import ConfigError, SelectionError
from collapse_bench.loop import run_generations
from collapse_bench.mitigations.human_audit import HumanAudit, read_decisions
from collapse_bench.pool import Pool
from collapse_bench.rundir import write_json


def bench(folder: Path, count: int = 12) -> Bench:
    bench = Bench(folder, noise(count), [k % 2 for k in range(count)])
    bench.run_dir.path.mkdir(exist_ok=True)
    write_json(bench.run_dir.path / "run.json", {"command": "collapse-run seed=7"})
    return bench


def curator(candidates_per_kept: float = 2.0) -> HumanAudit:
    return HumanAudit(candidates_per_kept=candidates_per_kept)


def decide(sheet: Path, *decisions: str) -> None:
    """What a person does: she fills in the column, over and over the same decisions."""
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for k, row in enumerate(rows):
        row["decision"] = decisions[k % len(decisions)]
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def stop(bench: Bench, num_needed: int = 6, candidates_per_kept: float = 2.0) -> str:
    with pytest.raises(SelectionError) as error:
        bench.curate(curator(candidates_per_kept), num_needed)
    return str(error.value)


def test_it_stops_and_names_the_files_and_the_command(tmp_path: Path) -> None:
    message = stop(bench(tmp_path))
    sheet = tmp_path / "run" / "audit" / "gen_000.csv"
    for part in ("12 of 12 candidates wait", str(sheet), str(sheet.with_suffix(".png")), "collapse-run seed=7"):
        assert part in message
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == [str(k) for k in range(12)]
    assert [row["class"] for row in rows[:2]] == ["class0", "class1"]
    assert len({row["pixel_hash"] for row in rows}) == 12
    with Image.open(sheet.with_suffix(".png")) as image:
        assert image.size == (4 * 68, 3 * 80), "four columns and three rows"
        assert image.getpixel((2 + 32, 12 + 32)) == (int(noise(12)[0, 0, 2, 2]),) * 3


def test_it_keeps_the_first_accepted_ones(tmp_path: Path) -> None:
    stop(bench(tmp_path))
    decide(tmp_path / "run" / "audit" / "gen_000.csv", "reject", " Accept", "ACCEPT")
    assert bench(tmp_path).kept(curator(), 6) == [1, 2, 4, 5, 7, 8]


def test_it_goes_on_waiting_while_a_decision_is_missing_and_overwrites_none(tmp_path: Path) -> None:
    sheet = tmp_path / "run" / "audit" / "gen_000.csv"
    stop(bench(tmp_path))
    decide(sheet, "accept", "")
    before = sheet.read_bytes()
    assert "6 of 12 candidates wait" in stop(bench(tmp_path))
    assert sheet.read_bytes() == before


def test_too_few_accepted_ones_are_an_error(tmp_path: Path) -> None:
    stop(bench(tmp_path))
    decide(tmp_path / "run" / "audit" / "gen_000.csv", "accept", "reject", "reject")
    assert "4 of 12 candidates are accepted and 6 are needed" in stop(bench(tmp_path))


def one_grey_level_apart(folder: Path) -> Bench:
    """The same candidates as another number of threads draws them."""
    other = bench(folder)
    other.model.images.copy_(torch.where(other.model.images < 255, other.model.images + 1, 254))
    return other


def test_decisions_hold_for_what_she_has_seen_whatever_is_drawn_again(tmp_path: Path) -> None:
    stop(bench(tmp_path))
    decide(tmp_path / "run" / "audit" / "gen_000.csv", "reject", "accept", "accept")
    before, after = bench(tmp_path).curate(curator(), 6), one_grey_level_apart(tmp_path).curate(curator(), 6)
    assert_equal_pools(before, after)
    assert torch.equal(after.images, noise(12)[[1, 2, 4, 5, 7, 8]])


def test_candidates_drawn_again_are_counted_as_at_the_first_time(tmp_path: Path) -> None:
    stop(bench(tmp_path))
    decide(tmp_path / "run" / "audit" / "gen_000.csv", "accept")
    again = bench(tmp_path)
    again.curate(curator(), 6)
    assert (again.now.spent.candidates, again.now.spent.kept) == (12, 6)


def export(folder: Path) -> tuple[Path, Path]:
    """The file of decisions, all of them made, and that of the candidates."""
    stop(bench(folder))
    sheet = folder / "run" / "audit" / "gen_000.csv"
    decide(sheet, "accept")
    return sheet, sheet.with_suffix(".safetensors")


def test_a_missing_or_damaged_stage_is_named_with_the_remedy(tmp_path: Path) -> None:
    sheet, stage = export(tmp_path)
    whole = stage.read_bytes()
    stage.write_bytes(whole[: len(whole) // 2])
    assert all(part in stop(bench(tmp_path)) for part in ("missing or damaged", str(stage), f"delete {sheet}"))
    stage.unlink()
    assert all(part in stop(bench(tmp_path)) for part in ("missing or damaged", str(stage), f"delete {sheet}"))
    stage.write_bytes(whole)
    assert len(bench(tmp_path).curate(curator(), 6)) == 6, "put back, it is as good as ever"


def test_a_changed_pixel_of_the_stage_is_an_error(tmp_path: Path) -> None:
    sheet, stage = export(tmp_path)
    staged = Pool.load(stage)
    replace(staged, images=staged.images ^ 1).save(stage)
    assert f"{sheet} does not list the images of {stage}" in stop(bench(tmp_path))


def test_candidates_of_another_run_are_an_error(tmp_path: Path) -> None:
    _, stage = export(tmp_path)
    assert "another run or generation" in stop(bench(tmp_path), num_needed=3)
    staged = Pool.load(stage)
    replace(staged, seed=staged.seed + 1).save(stage)
    assert "another run or generation" in stop(bench(tmp_path))


def test_an_export_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    sheet, _ = export(tmp_path)
    sheet.unlink()  # it is written last
    assert "12 of 12 candidates wait" in stop(one_grey_level_apart(tmp_path))
    decide(sheet, "accept")
    assert len(one_grey_level_apart(tmp_path).curate(curator(), 6)) == 6


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("number,decision\n0,accept\n", "needs the columns"),
        ("pixel_hash,decision\nab,maybe\n", "accept or reject, got 'maybe' for ab"),
        ("pixel_hash,decision\nab,accept\nab,reject\n", "different decisions"),
    ],
)
def test_a_damaged_file_is_named(lines: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "gen_000.csv"
    path.write_text(lines)
    with pytest.raises(SelectionError, match=words) as error:
        read_decisions(path)
    assert str(path) in str(error.value)


def test_where_all_is_accepted_it_is_the_control(tmp_path: Path) -> None:
    stop(bench(tmp_path), num_needed=12, candidates_per_kept=1)
    decide(tmp_path / "run" / "audit" / "gen_000.csv", "accept")
    bench(tmp_path).assert_equals_control(curator(1), 12)


def test_pictures_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shows pictures"):
        curator().check(Bench(tmp_path, noise(4) / 255).setting)
    with pytest.raises(ConfigError, match="quantize=true"):
        curator().check(Bench(tmp_path, noise(4) / 255, real=noise(4)).setting)


def test_an_audited_run_goes_on_generation_by_generation(tmp_path: Path) -> None:
    parts = parts_of(composed(*TINY, *TINY_FLOW, "mitigation=human_audit"), tmp_path / "store")
    for generation in range(3):
        with (
            opened_run_dir(tmp_path / "run") as run_dir,
            pytest.raises(SelectionError, match="60 of 60 candidates wait"),
        ):
            run_generations(parts, 0, run_dir)
        assert run_dir.num_committed() == generation
        decide(tmp_path / "run" / "audit" / f"gen_{generation:03d}.csv", "accept", "reject", "accept", "accept")
    with opened_run_dir(tmp_path / "run") as run_dir:
        records = run_generations(parts, 0, run_dir)
    assert [(record.spent.candidates, record.spent.kept) for record in records] == [(60, 40)] * 3
