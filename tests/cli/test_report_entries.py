"""From runs to an entry of the leaderboard, and its cells made again, as an outsider meets it."""

import dataclasses
import json
import lzma
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chains import TINY_GAUSSIAN
from commands import call

from collapse_bench.analysis.archive import ARCHIVE, write_archive
from collapse_bench.analysis.entries import ENTRY
from collapse_bench.analysis.runs import find_runs
from collapse_bench.cli.config import as_override, parse_overrides
from collapse_bench.cli.report import main
from collapse_bench.cli.verify import cell_overrides
from collapse_bench.errors import ConfigError, RunDirError


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a tiny sweep: a control and a mitigation of two slots, one seed."""
    folder = tmp_path_factory.mktemp("suite")
    sweep = ["mitigation=control,random_subset", "runs_dir=runs", "cache.enabled=false", "progress=false"]
    process = call("collapse-run", "-m", *TINY_GAUSSIAN, *sweep, folder=folder)
    assert process.returncode == 0, process.stderr
    for file in (folder / "runs").glob("*/run.json"):  # as if made from a checkout of that commit, without changes
        file.write_text(json.dumps(json.loads(file.read_text()) | {"commit": "abcdef012345"}))
    return folder / "runs"


@pytest.fixture
def entry(suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The same as an entry."""
    folder = tmp_path / "results" / "2026-11-21_abcdef0" / "tiny"
    assert main(["entry", str(suite), str(folder), "--submitter", "a tester"]) == 0
    printed = capsys.readouterr().out
    assert f"2 runs in {folder / ARCHIVE}" in printed
    assert f"still to write: {folder / 'README.md'}" in printed
    return folder


def test_an_entry_is_a_folder_with_archive_description_and_table(entry: Path) -> None:
    assert sorted(p.name for p in entry.iterdir()) == [ENTRY, ARCHIVE, "table.md"]
    assert "Ranking and cost" in (entry / "table.md").read_text()


@pytest.mark.parametrize("commit", ["0123456789ab", "abcdef012345 with changes"])
def test_runs_of_another_commit_make_no_entry(
    commit: str, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(suite, tmp_path / "copy")
    for file in copy.glob("*/run.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"commit": commit}))
    folder = tmp_path / "results" / "2026-11-21_abcdef0" / "tiny"
    assert main(["entry", str(copy), str(folder), "--submitter", "a tester"]) == 1
    assert f"was made at commit {commit}, and the folder says abcdef0" in capsys.readouterr().err
    assert not folder.exists()


def test_an_entry_is_on_the_leaderboard(entry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["leaderboard", str(entry.parents[1]), "--out", str(out)]) == 0
    assert "random_subset" in capsys.readouterr().out
    assert "random_subset" in (out / "leaderboard.md").read_text()
    assert (out / "leaderboard.html").read_text().startswith("<!doctype html>")


@pytest.mark.slow
def test_a_cell_made_again_has_equal_numbers(entry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(entry), "--cells", "1", "keep=all"]) == 0
    printed = capsys.readouterr().out
    assert "2 runs, as its entry.json says" in printed
    assert "collapse-run dataset=gaussian" in printed
    assert " 0 within the tolerance, 0 apart" in printed
    assert "differs:" not in printed


@pytest.mark.slow
def test_a_number_that_was_made_up_is_found(
    suite: Path, entry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(suite, tmp_path / "copy")
    runs = find_runs(copy)
    for file in copy.glob("*/gen_002/record.json"):
        record = json.loads(file.read_text())
        for score in record["scores"]:
            if (score["metric"], score["of"]) == ("fid", "model"):
                score["value"] = 100.0
        file.write_text(json.dumps(record))
    write_archive([run.path for run in runs], copy, entry / ARCHIVE)
    assert main(["verify", str(entry)]) == 1
    printed = capsys.readouterr()
    assert " 1 apart" in printed.out
    assert "generation 2, fid: 100 committed" in printed.out
    assert "check out commit abcdef0" in printed.err


def test_an_archive_that_was_cut_short_is_one_line(entry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = (entry / ARCHIVE).read_bytes()
    (entry / ARCHIVE).write_bytes(content[:-100])
    for command in ("verify", "leaderboard"):
        assert main([command, str(entry)]) == 1
        error = capsys.readouterr().err
        assert "damaged or cut short" in error
        assert error.count("\n") == 1
    (entry / ARCHIVE).write_bytes(lzma.compress(b""))
    assert main(["verify", str(entry)]) == 1
    assert ARCHIVE in capsys.readouterr().err


def test_a_cells_command_says_what_its_sweep_and_its_experiment_said(suite: Path) -> None:
    for run in find_runs(suite):
        overrides = cell_overrides(run)
        assert f"mitigation={run.choices['mitigation']}" in overrides
        assert [o for o in overrides if o.startswith("budget.num_generations=")] == ["budget.num_generations=3"]
        assert not [o for o in overrides if o.startswith(("runs_dir", "run_dir", "cache", "experiment", "progress"))]


def evil(tmp_path: Path) -> str:
    return f"{{_target_:shutil.copyfile,src:{__file__},dst:{tmp_path / 'ran'}}}"


@pytest.mark.parametrize(
    ("group", "option"),
    [
        ("+hydra.callbacks.evil", "EVIL"),
        ("hydra/launcher", "joblib"),
        ("++seed", "1"),
        ("~regime", "replace"),
        ("regime", "EVIL"),
        ("regime", "../dataset/digits"),
        ("regime", "replace,real"),
        ("mitigation", "control+EVIL"),
        ("mitigation", "control]+[neon"),
        ("seed", "1"),
    ],
)
def test_what_an_entry_says_was_chosen_is_an_option_of_ours_or_refused(
    suite: Path, tmp_path: Path, group: str, option: str
) -> None:
    run = find_runs(suite)[0]
    choices = run.info["choices"] | {group: option.replace("EVIL", evil(tmp_path))}
    with pytest.raises(ConfigError, match="there is no such"):
        cell_overrides(dataclasses.replace(run, info={**run.info, "choices": choices}))


def test_verify_refuses_a_strangers_class_in_one_line_and_runs_nothing(
    suite: Path, entry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(suite, tmp_path / "copy")
    for file in copy.glob("*/run.json"):
        info = json.loads(file.read_text())
        info["choices"]["+hydra.callbacks.evil"] = evil(tmp_path)
        file.write_text(json.dumps(info))
    write_archive([run.path for run in find_runs(copy)], copy, entry / ARCHIVE)
    assert main(["verify", str(entry)]) == 1
    assert "'+hydra.callbacks.evil': there is no such group" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        "${oc.create:{_target_:shutil.rmtree,path:x}}",
        ["${oc.env:HOME}"],
        [{"_target_": "shutil.rmtree", "path": "x"}],
        [{"a:1,_target_:shutil.rmtree,path": "x"}],
    ],
)
def test_a_setting_of_an_entry_that_is_no_plain_value_is_refused(suite: Path, value: Any) -> None:
    run = find_runs(suite)[0]
    config = {**run.config, "budget": {**run.config["budget"], "num_steps": value}}
    with pytest.raises(ConfigError, match=r"budget\.num_steps is"):
        cell_overrides(dataclasses.replace(run, config=config))


def test_settings_of_an_entry_reach_no_further_than_the_keys_of_our_options(suite: Path) -> None:
    run = find_runs(suite)[0]
    strange = {
        "hydra": {"callbacks": {"evil": {"_target_": "shutil.rmtree", "path": "x"}}, "run": {"dir": "/"}},
        "+hydra.callbacks.evil": "{_target_:shutil.rmtree,path:x}",
        "~seed": None,
        "seed=1 hydra.run.dir": "/",
        "runs_dir": "/elsewhere",
        "run_dir": "/elsewhere",
        "cache": {"root": "/elsewhere", "enabled": True, "max_gb": 1},
        "budget": run.config["budget"] | {"num_steps": {"_target_:shutil.rmtree,path": []}},
        "logger": {"evil": {"_target_": "shutil.rmtree", "path": "x"}},
        "dataset": run.config["dataset"] | {"download": True, "root": "/elsewhere", "_target_": "shutil.rmtree"},
    }
    config = {**run.config, **strange}
    found = [o for o in cell_overrides(run) if not o.startswith("budget.num_steps=")]
    assert cell_overrides(dataclasses.replace(run, config=config)) == found


@pytest.mark.parametrize("text", ["it's", "a\\'b,c=d", "x', hydra.run.dir='/", "a\nb", "[1]+{a:b}", "--help", "0,1"])
def test_a_text_of_an_entry_stays_a_text(suite: Path, text: str) -> None:
    run = find_runs(suite)[0]
    config = {**run.config, "dataset": {**run.config["dataset"], "name": text}}
    (override,) = [o for o in cell_overrides(dataclasses.replace(run, config=config)) if o.startswith("dataset.name=")]
    (parsed,) = parse_overrides([override])
    value = parsed.value()
    assert (parsed.key_or_group, getattr(value, "text", value)) == ("dataset.name", text)
    assert override == f"dataset.name={as_override(text)}"


def test_a_folder_that_no_entry_can_have_is_refused_before_any_table(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collapse_bench.cli.sections.compose_sections", lambda runs: pytest.fail("tables take minutes"))
    assert main(["entry", str(suite), str(tmp_path / "mine"), "--submitter", "a tester"]) == 1
    assert "an entry is in a folder results/DATE_COMMIT/NAME" in capsys.readouterr().err


def test_the_draw_is_said_and_can_be_made_again(
    entry: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collapse_bench.cli.verify._run", lambda *_: (_ for _ in ()).throw(RunDirError("stopped")))

    def drawn(*arguments: str) -> list[str]:
        assert main(["verify", str(entry), *arguments]) == 1
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith(("drawn", "collapse-run"))]

    first, command = drawn()
    assert first.startswith("drawn from the cheaper half with --seed ")
    assert drawn("--seed", first.rpartition(" ")[2]) == [first, command]


def test_the_commands_import_no_torch(entry: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from collapse_bench.cli.report import main; "
        f"assert main(['leaderboard', {str(entry)!r}, '--out', {str(tmp_path)!r}]) == 0; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 0
