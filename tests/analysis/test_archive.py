"""Runs in an archive: the same as in their folders, and never fewer than there are."""

import io
import lzma
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from collapse_bench.analysis.archive import ARCHIVE, read_archive, write_archive
from collapse_bench.analysis.runs import find_runs, to_frame
from collapse_bench.analysis.tables import resource_table
from collapse_bench.errors import RunDirError


@pytest.fixture(scope="module")
def packed(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the runs in ``sweep``."""
    file = tmp_path_factory.mktemp("packed") / ARCHIVE
    write_archive([run.path for run in find_runs(sweep)], sweep, file)
    return file


def write_tar(file: Path, members: dict[str, bytes]) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    file.write_bytes(lzma.compress(buffer.getvalue()))
    return file


@pytest.mark.parametrize("where", ["the archive", "a folder above it"])
def test_runs_in_an_archive_have_the_numbers_of_those_in_folders(sweep, packed, where):
    runs = find_runs(packed if where == "the archive" else packed.parent)
    assert len(runs) == 6
    assert [str(run.path) for run in runs] == [
        f"{packed}/{arm}/{s}" for arm in ("accumulate", "replace") for s in "012"
    ]
    frames = [to_frame(found).drop(columns="run") for found in (runs, find_runs(sweep))]
    pd.testing.assert_frame_equal(*frames)


def test_an_archived_run_has_no_images_and_no_size_on_the_disk(packed):
    runs = find_runs(packed)
    assert not any(run.has_images for run in runs)
    assert set(resource_table(runs)["disk, MiB"].str.split("\n").str[0]) == {"n/a"}


def test_equal_runs_give_equal_archives(sweep, packed, tmp_path):
    write_archive([run.path for run in find_runs(sweep)], sweep, tmp_path / ARCHIVE)
    assert (tmp_path / ARCHIVE).read_bytes() == packed.read_bytes()


def test_one_run_alone_can_be_packed(make_run, tmp_path):
    path = make_run("alone", seed=4)
    write_archive([path], path, tmp_path / ARCHIVE)
    (run,) = find_runs(tmp_path / ARCHIVE)
    assert (run.seed, run.path) == (4, tmp_path / ARCHIVE / "alone")


def test_an_archive_holds_records_configurations_and_states_only(make_run, tmp_path):
    path = make_run("alone", num_generations=1)
    (path / "gen_002.tmp").mkdir()
    (path / "gen_002.tmp" / "record.json").write_text("{}")
    write_archive([path], path, tmp_path / ARCHIVE)
    with tarfile.open(tmp_path / ARCHIVE) as archive:
        names = [name.removeprefix("alone/") for name in archive.getnames()]
    assert names == ["config.yaml", "gen_000/record.json", "gen_001/record.json", "run.json", "status.json"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_an_archive_that_is_cut_short_is_an_error_and_not_fewer_runs(packed, tmp_path, share):
    content = packed.read_bytes()
    (tmp_path / ARCHIVE).write_bytes(content[: int(share * len(content))])
    with pytest.raises(RunDirError, match=rf"{ARCHIVE}: damaged or cut short .*fetch it again"):
        find_runs(tmp_path)


def test_a_file_that_is_no_archive_is_named(tmp_path):
    (tmp_path / ARCHIVE).write_text("not an archive")
    with pytest.raises(RunDirError, match=rf"{ARCHIVE}: damaged or cut short"):
        find_runs(tmp_path / ARCHIVE)
    with pytest.raises(RunDirError, match="no runs found"):
        read_archive(write_tar(tmp_path / ARCHIVE, {"notes.txt": b"nothing"}))


def test_a_damaged_or_missing_file_in_an_archive_is_named(make_run, tmp_path):
    path = make_run("a", num_generations=1)
    names = ["run.json", "status.json", "config.yaml", "gen_000/record.json", "gen_001/record.json"]
    members = {f"a/{name}": (path / name).read_bytes() for name in names}
    with pytest.raises(RunDirError, match=r"a/gen_000/record\.json: damaged"):
        find_runs(write_tar(tmp_path / ARCHIVE, {**members, "a/gen_000/record.json": b"{"}))
    del members["a/config.yaml"]
    with pytest.raises(RunDirError, match=r"a/config\.yaml: cannot be read \(not in the archive\)"):
        find_runs(write_tar(tmp_path / ARCHIVE, members))


def test_nothing_is_written_whatever_the_names_in_an_archive(make_run, tmp_path, monkeypatch):
    path = make_run("a", num_generations=0)
    names = ["run.json", "status.json", "config.yaml", "gen_000/record.json"]
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    members = {f"../../out/{name}": (path / name).read_bytes() for name in names}
    (run,) = find_runs(write_tar(work / ARCHIVE, {**members, "/etc/passwd": b"x"}))
    assert len(run.records) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "work"]
    assert [p.name for p in work.iterdir()] == [ARCHIVE]
