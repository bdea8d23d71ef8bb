"""``collapse-report status`` as a user meets it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN
from commands import call

from collapse_bench.cli.report import main
from collapse_bench.sheet import read_sheets

OPTIONS = [*TINY_GAUSSIAN, "cache.enabled=false", "progress=false"]


def run(folder: Path, *overrides: str) -> None:
    process = call("collapse-run", *OPTIONS, *overrides, folder=folder)
    assert process.returncode == 0, process.stderr


def state_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert main(["status", str(folder), "--json"]) == 0
    return {cell["name"]: cell["state"] for cell in json.loads(capsys.readouterr().out)["cells"]}


@pytest.mark.slow
def test_a_killed_run_is_running_then_interrupted_then_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = ["budget.num_generations=60", "run_dir=mine"]
    process = subprocess.Popen(
        [sys.executable, "-m", "collapse_bench.cli.run", *OPTIONS, *many],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "mine" / "gen_001").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert state_of(tmp_path, capsys) == {"mine": "running"}
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert state_of(tmp_path, capsys) == {"mine": "interrupted"}
    assert main(["status", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "1 cells: 1 interrupted" in printed
    assert "time left: about" in printed
    program, *arguments = shlex.split(printed.strip().splitlines()[-1])
    assert (program, arguments[-1]) == ("collapse-run", "run_dir=mine")
    continued = call(program, *arguments, folder=tmp_path)
    assert continued.returncode == 0, continued.stderr
    assert state_of(tmp_path, capsys) == {"mine": "complete"}


@pytest.mark.slow
def test_a_run_that_is_stopped_from_the_keyboard_says_so_and_leaves_with_130(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [*TINY_FLOW, "budget.num_steps_initial=100000", "run_dir=mine", "cache.enabled=false", "progress=false"]
    process = subprocess.Popen(
        [sys.executable, "-m", "collapse_bench.cli.run", *TINY, *long],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background is started deaf to it, and its children are.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "mine" / "real_grid.npy").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)  # in the middle of a fit, which Lightning does
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "stopped; the same command continues at generation 0" in printed
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "mine" / "status.json").read_text())["state"] == "interrupted"
    assert state_of(tmp_path, capsys) == {"mine": "interrupted"}


def test_complete_cells_are_listed_and_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "runs_dir=runs")
    assert main(["status", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["cell", "state", "generation", "s", "each", "left"]
    assert " complete " in lines[1]
    assert "3 of 3" in lines[1]
    assert lines[-1] == "1 cells: 1 complete"


def test_an_empty_folder_is_fine_and_a_missing_one_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(tmp_path)]) == 0
    assert "no runs, and no sweep has begun here" in capsys.readouterr().out
    assert main(["status", str(tmp_path / "nowhere")]) == 1
    error = capsys.readouterr().err
    assert error == f"collapse-report: {tmp_path / 'nowhere'}: no such folder; give the folder of the runs\n"


def test_the_command_needs_neither_torch_nor_pandas(tmp_path: Path) -> None:
    code = (
        "import sys; from collapse_bench.cli.report import main; "
        f"assert main(['status', {str(tmp_path)!r}]) == 0; "
        "sys.exit(bool({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 0


@pytest.mark.slow
def test_a_sweep_in_batches_lists_the_cells_of_later_batches_from_its_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batches = ["-m", "seed=0,1,2", "hydra.sweeper.max_batch_size=1", f"runs_dir={tmp_path / 'runs'}"]
    command = [sys.executable, "-m", "collapse_bench.cli.run", *batches, *OPTIONS]
    process = subprocess.Popen(
        [*command, "budget.num_generations=4000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "runs").glob("*-seed0-*/gen_000")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        states = state_of(tmp_path / "runs", capsys)
    finally:
        process.kill()
        process.wait()
    assert sorted(states.values()) == ["missing", "missing", "running"]
    assert {"seed=1", "seed=2"} < {*states}
    (sheet,) = read_sheets(tmp_path / "runs")
    assert [cell.overrides[0] for cell in sheet.cells] == ["seed=0", "seed=1", "seed=2"]
