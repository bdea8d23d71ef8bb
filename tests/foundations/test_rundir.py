import errno
import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from collapse_bench import files as files_module
from collapse_bench import rundir
from collapse_bench.errors import RunBusyError, RunDirError
from collapse_bench.records import Record, Score, Spent
from collapse_bench.rundir import RUN_SCHEMA, RunDir, read_json, write_json, write_text

INFO = {"identity": {"dataset.name": "digits", "seed": 0}, "command": "collapse-run"}
CONFIG = {"seed": 0, "dataset": {"name": "digits", "classes": [1, 2]}, "note": None}


def record(t: int) -> Record:
    scores = (Score("fd", "model", 0.1 * t, 10, 10, "lower"),)
    return Record(t, 0, scores, {"real": 4}, {"real": 1.0}, "none", 3, ((1, 0.5),), "encoder", Spent())


def commit(run: RunDir, t: int) -> None:
    with run.committing(t) as folder:
        write_json(folder / "record.json", record(t).to_dict())
        (folder / "kept.bin").write_bytes(bytes([t % 256]) * 100)


def files(path: Path) -> dict[str, bytes]:
    """All files below a folder except the lock."""
    found = {p.relative_to(path).as_posix(): p for p in sorted(path.rglob("*")) if p.is_file()}
    return {name: p.read_bytes() for name, p in found.items() if name != ".lock"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "runs" / "run")


def test_an_opened_folder_says_what_it_is(run: RunDir) -> None:
    import yaml

    with run.opened(INFO, CONFIG):
        pass
    assert read_json(run.path / "run.json") == {"schema": RUN_SCHEMA, **INFO}
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == CONFIG
    assert sorted(files(run.path)) == ["config.yaml", "run.json"]


def test_the_same_configuration_opens_its_folder_again(run: RunDir) -> None:
    with run.opened(INFO, CONFIG):
        commit(run, 0)
    before = files(run.path)
    with run.opened({**INFO, "command": "another"}, CONFIG):
        assert run.generations() == [0]
    assert files(run.path) == before


def test_the_configuration_on_the_disk_is_that_of_the_last_start(run: RunDir) -> None:
    """Of what decides no number, such as where data are and what is kept; the rest is the same."""
    with run.opened(INFO, CONFIG):
        commit(run, 0)
    before = (run.path / "run.json").read_bytes()
    with run.opened({**INFO, "command": "another"}, {**CONFIG, "keep": "all"}):
        pass
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == {**CONFIG, "keep": "all"}
    assert (run.path / "run.json").read_bytes() == before


def test_another_configuration_is_refused_by_the_names_of_the_keys_that_differ(run: RunDir) -> None:
    with run.opened(INFO, CONFIG):
        commit(run, 0)
    before = files(run.path)
    other = {"identity": {"dataset.name": "mnist", "seed": 0, "sampler.steps": 5}}
    with pytest.raises(RunDirError) as caught, run.opened(other, CONFIG):
        pass
    assert "dataset.name: digits -> mnist, sampler.steps: None -> 5" in str(caught.value)
    assert "seed" not in str(caught.value)
    with pytest.raises(RunDirError, match="seed: 0 -> None"), run.opened({"identity": {"dataset.name": "digits"}}, {}):
        pass
    assert files(run.path) == before


def test_a_run_that_makes_no_sense_leaves_a_trace_that_the_next_attempt_replaces(run: RunDir) -> None:
    run.refuse(INFO, CONFIG, "no real images")
    assert run.refused
    assert read_json(run.path / "status.json")["error"] == "no real images"
    assert sorted(files(run.path)) == ["config.yaml", "run.json", "status.json"]
    run.refuse({"identity": {"code": "newer"}}, CONFIG, "still none")
    assert read_json(run.path / "status.json")["error"] == "still none"
    with run.opened({"identity": {"code": "newest"}}, CONFIG):
        assert not run.refused
        commit(run, 0)
    assert read_json(run.path / "run.json")["identity"] == {"code": "newest"}
    assert sorted(files(run.path)) == ["config.yaml", "gen_000/kept.bin", "gen_000/record.json", "run.json"]


def test_a_run_that_has_begun_is_not_made_a_trace(run: RunDir) -> None:
    with run.opened(INFO, CONFIG):
        run.write_status("running")
        commit(run, 0)
    before = files(run.path)
    run.refuse({"identity": {"code": "newer"}}, CONFIG, "no real images")
    assert files(run.path) == before
    assert not run.refused


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "gen_000.tmp").mkdir()
    with pytest.raises(RunDirError, match=r"not a run directory.*thesis\.tex"), RunDir(tmp_path).opened(INFO, CONFIG):
        pass
    assert files(tmp_path) == {"thesis.tex": b"years of work"}
    assert (tmp_path / "gen_000.tmp").is_dir()


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    with RunDir(tmp_path).opened(INFO, CONFIG):
        assert (tmp_path / "run.json").exists()


def test_who_only_looks_whether_a_run_is_at_work_makes_no_other_one_busy(run: RunDir) -> None:
    run.path.mkdir(parents=True)
    lock = FileLock(run.path / ".lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.1, lock.release).start()
    run.check_idle()  # waits for it
    with lock, pytest.raises(RunBusyError):
        run.check_idle()


def test_a_refusal_does_not_keep_the_folder_locked(run: RunDir) -> None:
    with run.opened(INFO, CONFIG):
        pass
    with pytest.raises(RunDirError, match="another configuration"), run.opened({"identity": {}}, {}):
        pass
    with run.opened(INFO, CONFIG):
        assert run.generations() == []


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(RunDirError, match="cannot write the run folder"),
        RunDir(tmp_path / "file" / below).opened(INFO, CONFIG),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


WRITER = """
import sys, time
from pathlib import Path
from collapse_bench.rundir import RunDir

run = RunDir(Path(sys.argv[1]))
with run.opened({"identity": {"dataset.name": "digits", "seed": 0}}, {}):
    with run.committing(0) as folder:
        (folder / "kept.bin").write_bytes(b"whole")
    with run.committing(1) as folder:
        (folder / "kept.bin").write_bytes(b"ha")
        print("halfway", flush=True)
        time.sleep(600)
"""


def test_a_second_process_is_refused_until_the_first_is_gone_and_finds_whole_generations_only(run: RunDir) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(run.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "halfway\n"
        with pytest.raises(RunDirError, match="another process is writing the run"), run.opened(INFO, CONFIG):
            pass
        assert (run.path / "gen_001.tmp").exists()
    finally:
        writer.kill()
        writer.communicate()
    with run.opened(INFO, CONFIG):
        assert run.generations() == [0]
        assert sorted(files(run.path)) == ["config.yaml", "gen_000/kept.bin", "run.json"]


def test_opening_removes_unfinished_generations(run: RunDir) -> None:
    with run.opened(INFO, CONFIG):
        commit(run, 0)
    for name in ("gen_000.tmp", "gen_001.tmp"):
        (run.path / name).mkdir()
        (run.path / name / "record.json").write_text("{")
    with run.opened(INFO, CONFIG):
        assert sorted(p.name for p in run.path.glob("gen_*")) == ["gen_000"]


def test_generations_are_counted_from_0(run: RunDir) -> None:
    assert run.num_committed() == 0  # also where there is no folder yet
    with run.opened(INFO, CONFIG):
        for t in range(3):
            commit(run, t)
        assert run.generations() == [0, 1, 2]
        assert run.num_committed() == 3
        assert run.records() == tuple(record(t) for t in range(3))


@pytest.mark.parametrize("missing", [0, 1])
def test_a_gap_in_the_generations_is_an_error(run: RunDir, missing: int) -> None:
    for t in {0, 1, 2} - {missing}:
        run.generation(t).mkdir(parents=True)
    with pytest.raises(RunDirError, match="one is missing"):
        run.generations()
    run.generation(missing).mkdir()
    assert run.generations() == [0, 1, 2]


def test_a_chain_may_be_longer_than_three_digits(run: RunDir) -> None:
    for t in range(1002):
        run.generation(t).mkdir(parents=True)
    assert run.generations() == list(range(1002))


def test_a_generation_appears_only_when_it_is_complete(run: RunDir) -> None:
    with run.opened(INFO, CONFIG):
        with run.committing(0) as folder:
            (folder / "kept.bin").write_bytes(b"x")
            assert run.generations() == []
            assert not run.generation(0).exists()
        assert run.generations() == [0]
        assert not folder.exists()


def write_and_raise(folder: Path, error: BaseException | None) -> None:
    (folder / "leftover").write_text("x")
    if error is not None:
        raise error


@pytest.mark.parametrize("error", [ValueError("of the writer"), KeyboardInterrupt(), RunDirError("of the writer")])
def test_an_exception_inside_the_block_commits_nothing_and_passes_through(run: RunDir, error: BaseException) -> None:
    with run.opened(INFO, CONFIG):
        commit(run, 0)
        before = files(run.generation(0))
        with pytest.raises(type(error)) as caught, run.committing(1) as folder:
            write_and_raise(folder, error)
        assert caught.value is error
        assert run.generations() == [0]
        assert files(run.generation(0)) == before
        commit(run, 1)
        assert run.records() == (record(0), record(1))


FULL_DISK = OSError(errno.ENOSPC, "No space left on device")


def full_disk(*_: object) -> None:
    raise FULL_DISK


@pytest.mark.parametrize("where", ["while writing", "while syncing a file", "while syncing the folder"])
def test_a_full_disk_commits_nothing_and_says_which_generation_and_what_to_do(
    run: RunDir, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run.opened(INFO, CONFIG):
        for t in range(2):
            commit(run, t)
        before = files(run.path)
        with monkeypatch.context() as patched:
            if where == "while syncing a file":
                patched.setattr(rundir, "sync_file", full_disk)
            if where == "while syncing the folder":
                patched.setattr(rundir, "_sync_folder", full_disk)
            with (
                pytest.raises(RunDirError, match=r"generation 2 .*No space left.*free some space.*same command"),
                run.committing(2) as folder,
            ):
                write_and_raise(folder, FULL_DISK if where == "while writing" else None)
        assert files(run.path) == before
        assert not folder.exists()
        commit(run, 2)
        assert run.generations() == [0, 1, 2]


def test_a_committed_generation_is_never_written_again(run: RunDir) -> None:
    with run.opened(INFO, CONFIG):
        commit(run, 0)
        before = files(run.path)
        with pytest.raises(RunDirError, match="generation 0"), run.committing(0) as folder:
            (folder / "kept.bin").write_bytes(b"other")
        assert files(run.path) == before


def test_an_unfinished_folder_of_an_earlier_attempt_leaves_nothing_in_the_next(run: RunDir) -> None:
    with run.opened(INFO, CONFIG):
        with pytest.raises(ValueError, match="stop"), run.committing(0) as folder:
            write_and_raise(folder, ValueError("stop"))
        commit(run, 0)
        assert sorted(files(run.generation(0))) == ["kept.bin", "record.json"]


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1}', '{"schema": 0}', "null"])
def test_a_record_that_cannot_be_read_is_an_error_that_names_the_file(run: RunDir, text: str) -> None:
    run.generation(0).mkdir(parents=True)
    (run.generation(0) / "record.json").write_text(text)
    with pytest.raises(RunDirError, match=r"gen_000.record\.json"):
        run.records()
    assert run.generations() == [0]


def test_the_status_says_how_far_the_run_is(run: RunDir) -> None:
    with run.opened(INFO, CONFIG):
        run.write_status("running")
        first = read_json(run.path / "status.json")
        commit(run, 0)
        run.write_status("failed", "no luck")
        second = read_json(run.path / "status.json")
    assert (first["state"], first["generation"], first["error"]) == ("running", -1, None)
    assert (second["state"], second["generation"], second["error"]) == ("failed", 0, "no luck")


def test_json_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_json(path, {"ä": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == read_json(path) == {"ä": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"value": math.nan})
    monkeypatch.setattr(files_module, "sync_file", full_disk)
    with pytest.raises(RunDirError, match="No space left"):
        write_text(path, "half")
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]
    assert read_json(path) == {"ä": 1}


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_json_that_cannot_be_read_is_an_error_that_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunDirError, match=r"cannot read .*run\.json"):
        read_json(path)
    assert path.exists() == (content is not None)
