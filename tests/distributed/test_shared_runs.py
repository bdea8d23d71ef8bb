"""Two processes run the chain of one: compared file by file with what this process does alone."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from chains import TINY, TINY_FLOW, composed, opened_run_dir, parts_of
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from safetensors.torch import load_file
from two_processes import CHAINS, FITS, NUM_FIT_STEPS, fitted

from collapse_bench.cli.chain import _refuse_other_launchers
from collapse_bench.cli.config import conf_dir
from collapse_bench.cli.measure import main
from collapse_bench.distributed import join
from collapse_bench.errors import ConfigError
from collapse_bench.loop import run_generations
from collapse_bench.pool import Pool
from collapse_bench.seeding import Role, Stream
from collapse_bench.training import TrainerOptions

TESTS = Path(__file__).parents[1]


def torchrun(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What two processes print; the folders of the tests are on their path, as here."""
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *command],
        cwd=folder,
        env={
            **os.environ,
            "COLLAPSE_BENCH_CACHE": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join(paths),
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )


def two_processes(folder: Path, *parts: str) -> Path:
    """The folder with what two processes have left in it."""
    process = torchrun(str(TESTS / "two_processes.py"), str(folder), *parts, folder=folder)
    assert process.returncode == 0, process.stdout + process.stderr
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All but whole chains."""
    return two_processes(tmp_path_factory.mktemp("two"), "parts_of_counts", "stored", "errors", "fits")


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chains."""
    return two_processes(tmp_path_factory.mktemp("chains"), "chains", "resumed")


def noted(folder: Path, name: str) -> Any:
    """What both processes have noted under a name, which is the same."""
    first, second = (json.loads((folder / f"{name}_{process}.json").read_text()) for process in (0, 1))
    assert first == second, name
    return first


def test_the_parts_of_all_processes_are_the_whole(done: Path) -> None:
    first, second = (json.loads((done / f"parts_{process}.json").read_text()) for process in (0, 1))
    assert first == {"0": [0, 0], "1": [0, 1], "2": [0, 1], "7": [0, 4]}
    assert second == {"0": [0, 0], "1": [1, 1], "2": [1, 2], "7": [4, 7]}


@pytest.mark.parametrize("name", FITS)
def test_a_fit_by_two_processes_is_that_of_one_up_to_rounding(name: str, done: Path) -> None:
    parameters, losses = fitted(FITS[name], TrainerOptions(num_threads=1))
    (theirs, their_losses), (others, other_losses) = (torch.load(done / f"fit_{name}_{k}.pt") for k in (0, 1))
    assert len(losses) == NUM_FIT_STEPS
    assert their_losses == other_losses
    assert [loss for _, loss in their_losses] == pytest.approx([loss for _, loss in losses], rel=1e-5)
    for key, parameter in parameters.items():
        assert torch.equal(theirs[key], others[key])
        # Steps are of 1e-3 or so: other noise, other images or another weight of a part would show.
        assert torch.allclose(theirs[key], parameter, rtol=0, atol=2e-5), key


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[dict[str, Any]]]:
    """Records of the same chains, by one process."""
    records = {}
    for name, overrides in CHAINS.items():
        folder = tmp_path_factory.mktemp(name)
        parts = parts_of(composed(*overrides), folder / "store")
        with opened_run_dir(folder / "run") as run_dir:
            records[name] = [record.deterministic for record in run_generations(parts, 0, run_dir, keep="all")]
    return records


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_all_processes_have_the_records_that_the_first_one_has_written(name: str, chained: Path) -> None:
    records = noted(chained, name)
    on_disk = [json.loads(path.read_text()) for path in sorted((chained / name / "run").glob("gen_*/record.json"))]
    assert len(records) == len(on_disk) > 1
    for ours, written in zip(records, on_disk, strict=True):
        assert ours["scores"] == written["scores"]
        assert ours["losses"] == written["losses"]
    assert not (chained / name / "store_1").exists(), "caches are the first process's"


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_of_two_processes_spends_what_one_does_and_learns_the_same(
    name: str, chained: Path, alone: Mapping[str, list[dict[str, Any]]]
) -> None:
    for ours, theirs in zip(alone[name], noted(chained, name), strict=True):
        # An artefact's key is the hash of the model that it judges, last digits included.
        spent = [
            {**record["spent"], "artefact_keys": list(record["spent"]["artefact_keys"])} for record in (ours, theirs)
        ]
        assert spent[0] == spent[1]
        assert theirs["train_pool"] == ours["train_pool"]
        assert [step for step, _ in theirs["losses"]] == [step for step, _ in ours["losses"]]
    # Rounding grows from generation to generation; the first one has none behind it.
    assert dict(noted(chained, name)[0]["losses"]) == pytest.approx(dict(alone[name][0]["losses"]), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flow", "vae_on_the_fly"])
def test_samples_of_two_processes_are_those_of_one_within_a_grey_level(
    name: str, chained: Path, tmp_path: Path
) -> None:
    parts = parts_of(composed(*CHAINS[name]), tmp_path)
    generation = chained / name / "run" / "gen_000"
    model = parts.generator.empty_model(parts.setting.spec)
    model.load_state_dict(load_file(generation / "fitted.safetensors"))
    kept = Pool.load(generation / "kept.safetensors")
    assert torch.equal(kept.seed, Stream(0, 0, Role.SAMPLE).image_seeds(0, len(kept)))
    images, labels = parts.sampler.sample(model.eval(), kept.seed)
    assert torch.equal(labels, kept.labels)
    assert (images.int() - kept.images.int()).abs().max() <= 1


@pytest.mark.slow
def test_scores_of_the_same_images_are_those_of_one_process(chained: Path, tmp_path: Path) -> None:
    # The encoder was learnt by the first process alone, as here.
    parts = parts_of(composed(*CHAINS["flow"]), tmp_path)
    real = parts.setting.real
    parts.measurer.see_training(real)
    scores = {score.metric: score.value for score in parts.measurer.score(real.images[:45], real.labels[:45], "real")}
    assert len(scores) > 20
    assert noted(chained, "scores") == pytest.approx(scores, rel=1e-5, abs=1e-6, nan_ok=True)


@pytest.mark.slow
def test_the_held_out_loss_has_the_noise_of_one_process(
    chained: Path, alone: Mapping[str, list[dict[str, Any]]]
) -> None:
    def held_out(records: list[dict[str, Any]]) -> float:
        (score,) = [s for s in records[0]["scores"] if s["metric"] == "held_out_loss"]
        return score["value"]

    assert held_out(noted(chained, "vae_on_the_fly")) == pytest.approx(held_out(alone["vae_on_the_fly"]), rel=1e-5)


@pytest.mark.slow
def test_a_chain_that_is_resumed_by_two_processes_ends_with_the_records_of_an_uninterrupted_one(chained: Path) -> None:
    assert noted(chained, "resumed") == noted(chained, "flow")
    files = [chained / name / "run" / "gen_002" / "fitted.safetensors" for name in ("resumed", "flow")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_first_process_decides_what_the_store_has(done: Path) -> None:
    assert noted(done, "stored") == {
        "process 0 has it": [7.0, True, 0],
        "process 1 has it": [0.5, False, 1],  # all build, of which two have a part each
        "artefact": [10.0, False],  # the first one, as if it were alone
    }
    assert [(done / f"of_{process}" / "artefact").exists() for process in (0, 1)] == [True, False]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan in one part", "TrainingError: the loss became nan at step 3 of 10 of generation 3; lower "),
        ("batch of one", "ConfigError: batch_size=1 leaves some of 2 processes without images; raise it"),
        ("of the main process", "ConfigError: a wrong option"),
        ("of another process", "ConfigError: a bad part"),
        ("parted", "DivergenceError: the processes are not at the same place: work of 0; work of 1. They need equal"),
        ("the same in all", "ConfigError: the same in all"),
    ],
)
def test_an_error_in_one_process_is_an_error_in_all(what: str, message: str, done: Path) -> None:
    for process in (0, 1):
        assert json.loads((done / f"errors_{process}.json").read_text())[what].startswith(message)


def test_an_unforeseen_error_travels_with_its_traceback(done: Path) -> None:
    first, second = (json.loads((done / f"errors_{process}.json").read_text())["unforeseen"] for process in (0, 1))
    assert first == "ProcessError: process 1 failed: ... KeyError: 'a slip'"
    assert second.startswith("KeyError: 'a slip'")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A sweep of two chains, the second of which fails in the second process while the first one waits for it."""
    folder = tmp_path_factory.mktemp("sweep")
    curators = "collapse_bench.mitigations.control.KeepAll,failing_parts.FailsInTheSecondProcess"
    command = ("-m", "collapse_bench.cli.run", "-m", "trainer=ddp", f"mitigation.curator._target_={curators}")
    rest = (*TINY, *TINY_FLOW, "budget.num_generations=1", "progress=false", f"runs_dir={folder / 'runs'}")
    return folder, torchrun(*command, *rest, folder=folder)


@pytest.mark.slow
def test_a_sweep_under_torchrun_is_written_and_shown_once(
    sweep: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, process = sweep
    runs = {json.loads((run / "status.json").read_text())["state"]: run for run in (folder / "runs").glob("digits-*")}
    info = json.loads((runs["complete"] / "run.json").read_text())
    assert info["identity"]["trainer.num_processes"] == info["machine"]["num_processes"] == 2
    assert info["command"].startswith("torchrun --nproc_per_node=2 -m collapse_bench.cli.run -m trainer=ddp")
    assert (runs["complete"] / "real_grid.npy").exists()
    # Both chains begin with the same generation 0.
    assert re.findall(r"^generation (\d) committed", process.stdout, flags=re.MULTILINE) == ["0", "1", "0"]
    assert process.stdout.count("run folder: ") == 1


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_with_one_message(
    sweep: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, process = sweep
    assert process.returncode == 1
    ours = [line for line in process.stderr.splitlines() if "out of luck" in line]
    assert ours == ["error: process 1: this process has run out of luck"]
    states = [json.loads(path.read_text()) for path in (folder / "runs").glob("digits-*/status.json")]
    (failed,) = [status for status in states if status["state"] == "failed"]
    assert failed["error"] == "process 1: this process has run out of luck"
    assert failed["generation"] == 0


@pytest.mark.parametrize(
    ("environment", "options", "words"),
    [
        ({"WORLD_SIZE": "2"}, ("single", 1), ["2 processes were started", "choose trainer=ddp or trainer=ddp_gpu"]),
        ({}, ("ddp", 1), ["torchrun --nproc_per_node=2 -m collapse_bench.cli.run trainer=ddp", "trainer=cpu"]),
        ({"WORLD_SIZE": "2"}, ("ddp", 3), ["trainer.num_processes=3 and 2 were started", "leave it out"]),
    ],
)
def test_processes_that_the_configuration_does_not_speak_of_are_refused(
    environment: dict[str, str], options: tuple[str, int], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment:
        for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "1")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as error:
        join(*options, "cpu")
    assert all(word in str(error.value) for word in words), error.value


def test_one_process_joins_nobody() -> None:
    join("single", 1, "cpu")
    assert not torch.distributed.is_initialized()


def test_the_number_of_processes_is_read_from_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "6")
    assert composed("trainer=ddp")["trainer"]["num_processes"] == 6
    assert composed("trainer=cpu")["trainer"]["num_processes"] == 1
    with pytest.raises(ConfigError, match=r"does not go with trainer\.strategy=single"):
        TrainerOptions(num_processes=2)
    assert TrainerOptions(strategy="ddp", num_processes=6).exact == TrainerOptions()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("hydra/launcher=joblib", ["hydra/launcher=joblib deals out the runs", "leave one of the two out"]),
        ("hydra/sweeper=optuna", ["hydra/sweeper=optuna deals out the runs"]),
        ("hydra/sweeper=suite", []),
    ],
)
def test_a_sweep_that_does_not_run_in_step_is_refused(override: str, words: list[str]) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("run", ["trainer=ddp", override, "hydra.mode=MULTIRUN"], return_hydra_config=True)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        if not words:
            assert _refuse_other_launchers() is None  # type: ignore[func-returns-value]
            return
        with pytest.raises(ConfigError) as error:
            _refuse_other_launchers()
    finally:
        HydraConfig.instance().cfg = before
    assert all(word in str(error.value) for word in words), error.value


def test_measuring_under_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["collapse-measure", "run=runs/kept"])
    with pytest.raises(SystemExit, match="error: collapse-measure works in one process; start it without torchrun"):
        main()
