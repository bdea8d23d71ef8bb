"""Sweeps by every launcher: equal records, and what is left when a job or its process dies."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN
from commands import call
from deadly import Deadly

from collapse_bench.cli.run import main
from collapse_bench.rundir import RunDir
from collapse_bench.sheet import read_sheets

TESTS = Path(__file__).parents[1]
DEADLY = [
    *TINY_GAUSSIAN,
    f"mitigation.curator._target_={Deadly.__module__}.Deadly",
    "budget.num_generations=2",
    "progress=false",
]
SEEDS = "seed=0,1,2,3"
BY_LAUNCHER = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=4"],
    "ray": ["hydra/launcher=ray"],
}


def start_sweep(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """``collapse-run -m`` in a process of its own, with the runs in ``folder/runs``."""
    (folder / "deadly").mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "collapse_bench.cli.run", "-m", *arguments, f"runs_dir={folder / 'runs'}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "COLLAPSE_BENCH_CACHE": str(folder / "cache"),
            "COLUMNS": "200",
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            "DEADLY_FOLDER": str(folder / "deadly"),
            **environment,
        },
    )


def sweep(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    process = start_sweep(folder, *arguments, **environment)
    out, err = process.communicate(timeout=900)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def sweep_here(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, where no other is needed."""
    (folder / "deadly").mkdir(parents=True, exist_ok=True)
    own = [*arguments, f"runs_dir={folder / 'runs'}"]
    return call("collapse-run", "-m", *own, folder=folder, DEADLY_FOLDER=str(folder / "deadly"))


def records(folder: Path) -> dict[str, list[dict]]:
    """What the complete runs have found, by the name of their folder."""
    runs = [path.parent for path in (folder / "runs").glob("*/status.json")]
    complete = [run for run in runs if json.loads((run / "status.json").read_text())["state"] == "complete"]
    return {run.name: [record.deterministic for record in RunDir(run).records()] for run in complete}


def computed(folder: Path) -> Counter[str]:
    """How often each generation of each seed was computed, by any process."""
    return Counter((folder / "deadly" / "log").read_text().splitlines())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """The records of four chains that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = sweep_here(folder, SEEDS, *DEADLY)
    assert process.returncode == 0, process.stderr
    assert len(records(folder)) == 4
    return records(folder)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit"])
def test_a_crash_and_a_kill_cost_no_other_run_and_the_same_command_completes_only_what_is_missing(
    launcher: str, tmp_path: Path, undisturbed: dict[str, list[dict]]
) -> None:
    command = [SEEDS, *DEADLY, *BY_LAUNCHER[launcher]]
    # When seed 2 has begun, one of joblib's two processes is done with the crash.
    first = sweep(tmp_path, *command, DEADLY="crash=0 kill=1", DEADLY_AFTER="2 0")
    assert first.returncode == 1
    left = [line for line in first.stderr.splitlines() if line.startswith("  seed=")]
    assert first.stderr.rstrip().endswith(left[-1])  # at the end, where one looks
    (crashed,) = [line for line in left if line.startswith("  seed=0:")]
    (killed,) = [line for line in left if line.startswith("  seed=1:")]
    assert "RuntimeError: a slip of the hand in two lines  [" in crashed
    assert "its process died after generation 0 was committed (killed, or out of memory?)  [" in killed
    for line in (crashed, killed):
        assert Path(line.partition("[")[2].removesuffix("]")).is_dir()
    # Loky kills the other processes of the pool as well; what they were at is committed, and listed.
    assert len(left) <= (3 if launcher == "joblib" else 2), first.stderr
    assert f"{len(left)} of 4 runs of the sweep did not finish" in first.stderr
    (sheet,) = read_sheets(tmp_path / "runs")
    assert sheet.command.startswith("collapse-run -m seed=0,1,2,3 experiment=gaussian ")
    assert [cell.overrides[0] for cell in sheet.cells] == ["seed=0", "seed=1", "seed=2", "seed=3"]
    assert (sheet.cells[0].error, sheet.cells[1].error) == ("RuntimeError: a slip of the hand in two lines", None)
    assert (sheet.cells[0].ended is None, sheet.cells[1].ended is None) == (False, True)
    for cell in sheet.cells:
        assert cell.begun is not None
        info = json.loads((Path(cell.run_dir or "") / "run.json").read_text())
        assert info["command"] == sheet.command
    done = records(tmp_path)
    assert len(done) == 4 - len(left)
    assert done.items() <= undisturbed.items()

    before = computed(tmp_path)
    again = sweep(tmp_path, *command, DEADLY="crash=0 kill=1")
    assert again.returncode == 0, again.stderr
    assert records(tmp_path) == undisturbed
    anew = {line.split()[0] for line in computed(tmp_path) - before}
    assert len(anew) == len(left)
    assert all(f"{seed} 0" not in computed(tmp_path) - before for seed in (0, 1))  # from the last committed generation


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work_and_repeat_none(tmp_path: Path, undisturbed: dict[str, list[dict]]) -> None:
    commands = [[SEEDS, *DEADLY, *BY_LAUNCHER[launcher]] for launcher in ("basic", "joblib")]
    both = [start_sweep(tmp_path, *command, DEADLY_SECONDS="0.3") for command in commands]
    outputs = [process.communicate(timeout=900) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert records(tmp_path) == undisturbed
    assert set(computed(tmp_path).values()) == {1}
    assert len(computed(tmp_path)) == 4 * 3
    assert any("complete already, skipped" in out for out, _ in outputs)


@pytest.mark.slow
def test_a_run_of_another_process_is_waited_for_and_then_skipped(tmp_path: Path) -> None:
    log = tmp_path / "deadly" / "log"
    holding = start_sweep(tmp_path, "seed=0", *DEADLY, DEADLY="hold=0", DEADLY_AFTER="let go")
    while not log.exists() or "0 1" not in log.read_text():
        assert holding.poll() is None, holding.communicate()
        time.sleep(0.1)
    other = start_sweep(tmp_path, "seed=0,1", *DEADLY)
    assert other.stderr is not None
    assert other.stderr.readline() == "waiting for another process, which runs 1 of these runs: seed=0\n"
    assert "1 2" in computed(tmp_path)  # what nobody else is at comes first
    with log.open("a") as file:
        file.write("let go\n")
    out, err = other.communicate(timeout=900)
    holding.communicate(timeout=900)
    assert (holding.returncode, other.returncode) == (0, 0), err
    assert out.count("complete already, skipped") == 1
    assert set(computed(tmp_path).values()) == {1}


@pytest.mark.slow
def test_ray_takes_up_a_run_whose_process_was_killed(tmp_path: Path, undisturbed: dict[str, list[dict]]) -> None:
    process = sweep(tmp_path, SEEDS, *DEADLY, *BY_LAUNCHER["ray"], DEADLY="kill=2", DEADLY_AFTER="2 0")
    assert process.returncode == 0, process.stderr
    assert records(tmp_path) == undisturbed
    assert computed(tmp_path) - Counter(set(computed(tmp_path))) == {"2 1": 1}, "the generation that was cut off, alone"


NEON = ["mitigation.refiner.num_samples=40", "mitigation.refiner.num_steps=3", "hydra.sweeper.n_trials=3"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Optuna and its database library are old
def test_optuna_tunes_by_the_control_set_and_the_same_command_repeats_nothing(tmp_path: Path) -> None:
    command = ["experiment=tune_neon", *NEON, *TINY, *TINY_FLOW, "progress=false"]
    first = sweep_here(tmp_path, *command)
    assert first.returncode == 0, first.stderr
    (sheet,) = read_sheets(tmp_path / "runs")
    assert len(sheet.cells) == 3
    for cell in sheet.cells:
        assert cell.run_dir is not None
        *earlier, last = RunDir(Path(cell.run_dir)).records()
        (tuned,) = [score for score in last.scores if score.of == "tuning"]
        assert (tuned.metric, tuned.value, tuned.num_reference) == ("fid", cell.value, 450)
        assert tuned.value != last.score("fid", "model")
        assert not any(score.of == "tuning" for record in earlier for score in record.scores)
    best = min(sheet.cells, key=lambda cell: cell.value or 0.0)
    (w,) = [override for override in best.overrides if override.startswith("mitigation.refiner.w=")]
    assert f"best of 3: {w} " in first.stdout
    again = sweep_here(tmp_path, *command)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("complete already, skipped") == 3
    assert f"best of 3: {w} " in again.stdout


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Optuna and its database library are old
@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("recall", "objective=recall is better when higher; set hydra.sweeper.direction=maximize"),
        ("tail_mass", "objective=tail_mass is best at a value between others"),
        ("fdi", "objective=fdi: there is no such number to tune by; choose one of "),
        ("null", "say which one: objective=fid"),
    ],
)
def test_an_objective_that_nothing_can_be_tuned_by_is_refused_before_training(
    objective: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["experiment=tune_neon", *NEON, *TINY, *TINY_FLOW, f"objective={objective}", "hydra.sweeper.n_trials=1"]
    monkeypatch.setattr(sys, "argv", ["collapse-run", "-m", *command, f"runs_dir={tmp_path / 'runs'}"])
    monkeypatch.setenv("COLLAPSE_BENCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as stop:  # in this process: torch and Optuna are loaded once
        main()
    assert words in str(stop.value)
    assert not list((tmp_path / "runs").rglob("gen_000"))


@pytest.mark.parametrize(
    ("launcher", "chosen", "key", "expected", "warns"),
    [
        ("joblib", [], "launcher.n_jobs", 4, False),
        ("joblib", ["hydra.launcher.n_jobs=8"], "launcher.n_jobs", 8, True),
        ("submitit_local", [], "sweeper.max_batch_size", 4, False),
        ("submitit_slurm", [], "launcher.cpus_per_task", 2, False),
        ("submitit_slurm", ["hydra.launcher.cpus_per_task=1"], "launcher.cpus_per_task", 1, True),
        ("ray", [], "launcher.ray.remote.num_cpus", 2, False),
    ],
)
def test_jobs_at_once_follow_from_the_threads_of_a_run_and_never_the_reverse(
    launcher: str,
    chosen: list[str],
    key: str,
    expected: int,
    warns: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import joblib
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from collapse_bench.cli.config import conf_dir
    from collapse_bench.cli.sweep import SturdySweep

    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        overrides = [f"hydra/launcher={launcher}", *chosen, f"runs_dir={tmp_path}", "trainer.num_threads=2"]
        config = compose("run", [*overrides, "hydra.job.name=run"], return_hydra_config=True)
    SturdySweep().on_multirun_start(config)
    group, _, rest = key.partition(".")
    assert OmegaConf.select(config.hydra, f"{group}.chosen.{rest}") == expected
    assert config.trainer.num_threads == 2
    assert ("warning: " in capsys.readouterr().err) == warns


COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", (TESTS.parent / "docs" / "sweeps.md").read_text(), flags=re.DOTALL)
    for line in block.strip().splitlines()
]


TUNES = [command for command in COMMANDS if "generator" in command or "tune_neon" in command]
BASIC, *OTHERS = [command for command in COMMANDS if command not in TUNES]
# With the number of threads that a run has by default: how many jobs there are at once must not change it.
SMALLER = [o for o in (*TINY, *TINY_FLOW) if not o.startswith("trainer.num_threads")]


def of_the_page(command: str, folder: Path, *more: str, here: bool = False) -> dict[str, list[dict]]:
    """The records of a command of the page on sweeps, on a tiny budget."""
    program, multirun, *arguments = shlex.split(command)
    assert (program, multirun) == ("collapse-run", "-m")
    start = sweep_here if here else sweep
    process = start(folder, *arguments, *SMALLER, "budget.num_generations=1", "progress=false", *more)
    assert process.returncode == 0, process.stderr
    return records(folder)


@pytest.fixture(scope="module")
def of_the_basic_launcher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """The records of the page's first command."""
    assert "launcher" not in BASIC
    found = of_the_page(BASIC, tmp_path_factory.mktemp("basic"), here=True)
    assert len(found) == 6
    return found


def test_the_page_has_a_command_for_every_launcher_that_runs_here() -> None:
    for said in ("launcher=joblib ", "launcher=submitit_local ", "launcher=ray ", "cache.enabled=false"):
        assert any(said in command for command in OTHERS), said


@pytest.mark.slow
@pytest.mark.parametrize("command", OTHERS)
def test_every_command_of_the_page_has_the_records_of_the_basic_launcher(
    command: str, tmp_path: Path, of_the_basic_launcher: dict[str, list[dict]]
) -> None:
    some = of_the_page(command, tmp_path, "regime=replace,accumulate", "seed=0")
    assert len(some) == 2
    assert some.items() <= of_the_basic_launcher.items()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("command", TUNES)
def test_every_command_of_the_page_that_tunes_runs(command: str, tmp_path: Path) -> None:
    of_neon = NEON[:2] if "tune_neon" in command else []
    assert len(of_the_page(command, tmp_path, "hydra.sweeper.n_trials=2", *of_neon, here=True)) == 2
