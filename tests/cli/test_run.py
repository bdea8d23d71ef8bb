"""``collapse-run`` as a user meets it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN
from commands import call
from PIL import Image

CHEAP = [*TINY, *TINY_FLOW, "progress=false"]


def collapse_run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return call("collapse-run", *arguments, f"runs_dir={folder / 'runs'}", folder=folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["regime=replcae"], ["regime=replcae", "did you mean replace?", "accumulate"]),
        (["budgt.num_steps=3"], ["budgt.num_steps", "did you mean budget.num_steps?"]),
        (["generator.optimisation.learning_rte=3"], ["did you mean generator.optimisation.learning_rate?"]),
        (["generatr=vae"], ["generatr", "did you mean generator?"]),
        (["generator/network=unet_smal"], ["generator/network=unet_smal", "did you mean unet_small?"]),
        (["generator=vae", "generator/network=unet_tiny"], ["this generator has no network to choose"]),
        (["-m", "regime=replace,acumulate"], ["regime=acumulate", "did you mean accumulate?"]),
        (["regime"], ["'regime' is not understood", "KEY=VALUE"]),
        (["+budgt.num_steps=3"], ["budgt.num_steps", "did you mean budget.num_steps?"]),
        (["seed=0,1"], ["-m"]),
        (["-m", "experiment=suite/digits", "budgt.num_steps=3"], ["budgt.num_steps", "did you mean budget.num_steps?"]),
        (["-m", "experiment=suite/digts"], ["did you mean suite/digits?"]),
        (["-m", "hydra/launcher=jobli"], ["hydra/launcher=jobli", "did you mean joblib?", "submitit_slurm"]),
        (["-m", "hydra/sweeper=optna"], ["hydra/sweeper=optna", "did you mean optuna?"]),
        (["-m", "hydra.sweeper.max_batch_sise=4"], ["Could not override 'hydra.sweeper.max_batch_sise'"]),
    ],
)
def test_a_misspelt_key_or_option_is_refused_with_the_nearest_match(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from collapse_bench.cli.run import main

    monkeypatch.setattr(sys, "argv", ["collapse-run", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    message = str(stop.value)
    assert message.startswith("error: ")
    assert len(message.splitlines()) == 1
    assert all(word in message for word in words), message


@pytest.mark.parametrize("arguments", [["-m", "hydra/sweeper=optuna"], ["-m", "experiment=tune_neon"]])
def test_a_plugin_that_is_not_installed_is_named_with_its_extra(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    from collapse_bench.cli.config import check_command_line
    from collapse_bench.errors import ConfigError

    Plugins.instance()
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["sweeper"], "optuna.yaml")
    with pytest.raises(
        ConfigError, match=r"hydra/sweeper=optuna is not installed; pip install 'collapse-bench\[optuna\]'"
    ):
        check_command_line(arguments)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["generator.optimisation.learning_rate=abc"], ["generator.optimisation.learning_rate must be float", "abc"]),
        (["budget.num_steps=-1"], ["budget.num_steps must be at least 1"]),
        (["generator.start=wram"], ["generator.start must be one of warm, scratch"]),
        (["generator=vae", "sampler=euler_20"], ["VAEModel", "leave out sampler="]),
        (["encoder=pixels"], ["class probabilities", "metrics=features"]),
        (["dataset=gaussian"], ["no grey levels"]),
        (["dataset=gaussian", "generator=ddpm", "sampler.quantize=false"], ["sampler.clip=true", "have no bounds"]),
        (["budget.num_measured=100000"], ["budget.num_measured=100000", "control set"]),
        (["dataset.classes=[1,eleven]"], ["eleven"]),
        (["generator.network.width=-1"], ["generator.network", "width"]),
        (["generator.optimisation.weight_decay=-1"], ["weight_decay must not be negative"]),
        (["generator=flow_unet", "dataset.image_size=9"], ["divisible by 2", "image_size"]),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_before_training(
    overrides: list[str], words: list[str], tmp_path: Path
) -> None:
    from chains import composed, parts_of

    from collapse_bench.errors import CollapseBenchError

    with pytest.raises(CollapseBenchError) as error:
        parts_of(composed(*(o for o in TINY if not o.startswith("encoder.")), *overrides), tmp_path)
    assert all(word in str(error.value) for word in words), error.value
    assert not list(tmp_path.glob("fit/*"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("cache.enabled=no", "cache.enabled must be true or false, got 'no'"),
        ("cache.root=5", "cache.root must be a folder, got 5"),
        ("run_dir=2024", "run_dir must be text, or null, got 2024"),
        ("mitigation=null", "mitigation=null chooses no option; leave it out, or choose one (see --help)"),
        ("keep=some", "keep must be one of last, all; got 'some'"),
    ],
)
def test_an_option_that_decides_no_number_is_checked_as_well(override: str, words: str, tmp_path: Path) -> None:
    process = call("collapse-run", *TINY_GAUSSIAN, "progress=false", override, folder=tmp_path)
    assert process.returncode == 1
    assert process.stderr == f"error: {words}\n"


def test_a_sweep_with_a_cell_that_does_not_compose_is_refused_before_any_runs(tmp_path: Path) -> None:
    """A VAE has no group of networks, which shows in no single value of the sweep."""
    both = ("generator=flow,vae", "generator/network=residual_mlp,unet_tiny")
    process = call("collapse-run", "-m", *both, *TINY, "runs_dir=runs", folder=tmp_path)
    assert process.returncode == 1
    assert process.stderr.startswith("error: Could not override 'generator/network'. No match in the defaults list.")
    assert not list((tmp_path / "runs").glob("digits-*"))


def test_a_launcher_that_begins_no_job_is_quoted(tmp_path: Path) -> None:
    slurm = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=none")
    process = call("collapse-run", "-m", *TINY_GAUSSIAN, *slurm, "seed=0,1", "runs_dir=runs", folder=tmp_path)
    assert process.returncode == 1
    assert "2 of 2 runs of the sweep did not finish" in process.stderr
    assert "no job begins under this launcher: " in process.stderr
    assert "srun" in process.stderr


def test_a_number_of_threads_that_makes_no_sense_is_refused_in_a_sweep_too(tmp_path: Path) -> None:
    process = call("collapse-run", "-m", *TINY_GAUSSIAN, "trainer.num_threads=0", "seed=0,1", folder=tmp_path)
    assert process.returncode == 1
    assert process.stderr.count("trainer.num_threads must be at least 1, got 0") == 4, "as it fails, and at the end"


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a GPU here")
def test_a_missing_device_is_an_error_and_never_replaced() -> None:
    from chains import composed

    from collapse_bench.cli.config import build
    from collapse_bench.errors import ConfigError

    with pytest.raises(ConfigError, match="torch sees no CUDA device; use trainer=cpu"):
        build(composed("trainer=gpu")["trainer"], "trainer")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("sweep")
    return folder, collapse_run("-m", "regime=replace,real", "seed=0,1", *CHEAP, folder=folder)


def test_a_sweep_leaves_one_complete_folder_per_run(sweep: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, process = sweep
    assert process.returncode == 0, process.stdout + process.stderr
    runs = sorted((folder / "runs").glob("digits-*"))
    assert len(runs) == 4
    for run in runs:
        assert json.loads((run / "status.json").read_text())["state"] == "complete"
        assert not (run / "figures").exists()  # collapse-report draws those of a sweep
    assert "the sweep of 4 is done; to compare its runs: collapse-report runs\n" in process.stdout
    assert re.findall(r"^\[(.*)\] (.*)$", process.stdout, flags=re.MULTILINE) == [
        ("1/4", "regime=replace seed=0"),
        ("2/4", "regime=replace seed=1"),
        ("3/4", "regime=real seed=0"),
        ("4/4", "regime=real seed=1"),
    ]
    ends = re.findall(r"^generation 0 to 2: FID \S+ -> \S+, recall \S+ -> \S+; run folder: (.*)$", process.stdout, re.M)
    assert {Path(end).name for end in ends} == {run.name for run in runs}
    assert "real-vs-real floor" not in process.stdout


def test_a_single_run_draws_its_figures_and_draws_again_what_is_missing(
    sweep: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = sweep
    process = collapse_run("regime=real", "seed=0", *CHEAP, folder=folder)
    assert (process.returncode, "complete already, skipped" in process.stdout) == (0, True), process.stderr
    (run,) = (folder / "runs").glob("digits-*-real-*-seed0-*")
    assert (run / "figures" / "curves.png").stat().st_size > 10_000
    assert len(list((run / "figures").glob("samples_*.png"))) == 1
    assert f"figures: {run / 'figures'}" in process.stdout


@pytest.mark.slow
def test_the_same_sweep_again_skips_what_is_complete_and_does_what_is_new(
    sweep: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = sweep
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("record.json")}
    again = collapse_run("-m", "regime=replace,real", "seed=0,1,2", *CHEAP, folder=folder)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("complete already, skipped") == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((folder / "runs").glob("digits-*"))) == 6


@pytest.mark.slow
def test_one_failing_run_of_a_sweep_does_not_stop_the_others(
    sweep: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = sweep
    mixed = collapse_run("-m", "budget.max_candidates=0,20", "seed=7", *CHEAP, folder=folder)
    assert mixed.returncode == 1
    assert "error: budget.max_candidates must be at least 1, got 0" in mixed.stderr
    assert "Traceback" not in mixed.stderr
    assert len(list((folder / "runs").glob("*seed7*"))) == 1


@pytest.mark.slow
def test_a_combination_that_makes_no_sense_leaves_a_trace_in_a_sweep_that_reports_show_and_none_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from collapse_bench.cli.report import main

    refused = ["regime=replace", "mitigation=optimal_mix", *CHEAP]
    alone = collapse_run(*refused, folder=tmp_path)
    assert (alone.returncode, "weighs real against synthetic" in alone.stderr) == (1, True)
    assert not (tmp_path / "runs").exists()
    for mitigations in ("optimal_mix", "control,optimal_mix"):  # the second sweep tries what was refused again
        sweep = collapse_run("-m", *refused, f"mitigation={mitigations}", folder=tmp_path)
        assert (sweep.returncode, "weighs real against synthetic" in sweep.stderr) == (1, True)
    runs = sorted((tmp_path / "runs").glob("digits-*"))
    assert [json.loads((run / "status.json").read_text())["state"] for run in runs] == ["complete", "refused"]
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert "n/a: optimal_mix: mitigation=optimal_mix weighs" in " ".join(capsys.readouterr().out.split())
    assert "| optimal_mix | n/a |" in (tmp_path / "out" / "table.md").read_text()


def test_a_run_folder_of_another_configuration_is_refused_by_the_keys_that_differ(
    sweep: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = sweep
    run = next((folder / "runs").glob("*replace*seed0*"))
    refused = collapse_run(*CHEAP, "budget.num_steps=7", f"run_dir={run}", folder=folder)
    assert refused.returncode == 1
    assert "belongs to another configuration (budget.num_steps: 6 -> 7)" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_run_that_is_stopped_while_it_prepares_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from collapse_bench.cli import chain

    def stopped(**parts: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chain, "assemble", stopped)
    process = collapse_run(*CHEAP, folder=tmp_path)
    assert process.returncode == 130
    assert ": preparing encoder and floor, then generations 0 to 2" in process.stdout
    assert "stopped while preparing; nothing is lost" in process.stdout


def test_help_explains_every_group_without_importing_torch() -> None:
    code = (
        "import sys\nsys.argv = ['collapse-run', '--help']\nfrom collapse_bench.cli.run import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    from collapse_bench.cli.config import conf_dir

    for group in (p.name for p in Path(conf_dir()).iterdir() if p.is_dir()):
        assert f"\n  {group} " in process.stdout


@pytest.mark.slow
def test_the_same_command_on_other_images_is_another_run(tmp_path: Path) -> None:
    for name, offset in (("cats", 0), ("dogs", 100)):
        for k in range(60):
            file = tmp_path / name / "ab"[k % 2] / f"{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), k + offset, np.uint8)).save(file)
    few = [*(o for o in CHEAP if "num_real" not in o and "num_measured" not in o), "budget.num_generations=0"]
    data = ("dataset=image_folder", "dataset.channels=1")
    for name in ("cats", "dogs"):
        process = collapse_run(*few, *data, f"dataset.root={tmp_path / name}", folder=tmp_path)
        assert process.returncode == 0, process.stdout + process.stderr
        assert "skipped" not in process.stdout
    assert len(list((tmp_path / "runs").glob("*/run.json"))) == 2
