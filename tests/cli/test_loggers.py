"""Loggers: what is committed can be read back from every log, once, and no log gets in the way of a chain."""

import csv
import dataclasses
import json
import math
import struct
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from chains import TINY_GAUSSIAN, composed
from commands import call
from rich.console import Console

from collapse_bench.cli import loggers
from collapse_bench.cli.chain import Launch, run_config
from collapse_bench.cli.config import build, check_command_line
from collapse_bench.cli.loggers import CSV, LogTarget, MLflow, RunLog, TensorBoard, WandB, metrics_of
from collapse_bench.errors import ConfigError
from collapse_bench.records import Record, Score, Spent
from collapse_bench.rundir import RunDir, write_json

# TensorBoard's reader and MLflow's tables make warnings of their own.
pytestmark = pytest.mark.filterwarnings("default")

IDENTITY = {"seed": 0, "budget.num_steps": 6, "generator.start": "warm", "dataset.classes": None}
HASH = "0123abcd"
TARGETS = {
    "csv": CSV(None),
    "tensorboard": TensorBoard(None),
    "wandb": WandB("collapse-bench", None, "offline", None),
    "mlflow": MLflow("collapse-bench", None),
}
SLOW = pytest.mark.slow  # it takes seconds to start each of these
EVERY = [pytest.param(name, marks=SLOW if name in ("wandb", "mlflow") else ()) for name in TARGETS]

History = dict[str, list[tuple[int, float]]]
"""Steps and values by name."""


def record(t: int) -> Record:
    def score(metric: str, of: str, value: float) -> Score:
        return Score(metric, of, value, num_samples=60, num_reference=450, better="lower")

    scores = (
        score("fid", "model", 1.5 + t),
        score("fid", "kept", 2.5 + t),
        score("fid", "floor", 0.25),
        score("recall@classifier", "model", 0.5 / (t + 1)),
        score("knn_entropy_gap", "model", math.nan),
    )
    spent = Spent(gradient_steps=6, candidates=80, kept=40, seconds={"fit": 0.5, "measure": 0.125})
    return Record(t, 0, scores, {"real": 64}, {"real": 1.0}, "none", 65, ((3, 0.75), (6, 0.5)), "encoder", spent)


def commit(run_dir: RunDir, t: int) -> None:
    with run_dir.committing(t) as folder:
        write_json(folder / "record.json", record(t).to_dict())
        np.save(folder / "grid.npy", np.full((4, 8, 8, 1), 10 * t, np.uint8))


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[RunDir]:
    run_dir = RunDir(tmp_path / "run")
    with run_dir.opened({"identity": IDENTITY, "config_hash": HASH}, {}):
        yield run_dir


def expected(num_generations: int) -> History:
    """What a log of so many generations must hold."""
    history: History = defaultdict(list)
    for t in range(num_generations):
        history[f"loss/gen_{t:03d}"] = [(3, 0.75), (6, 0.5)]
        for name, value in metrics_of(record(t)).items():
            history[name].append((t, value))
    return dict(history)


def read_csv(folder: Path) -> tuple[History, dict, int]:
    history: History = defaultdict(list)
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            step = int(row.pop("step"))
            for name, value in row.items():
                if value:
                    history[name].append((step, float(value)))
    return dict(history), yaml.safe_load((folder / "hparams.yaml").read_text()), -1


def read_tensorboard(folder: Path) -> tuple[History, dict, int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    history = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    history["generation"] = history["generation"][1:]  # the first goes with the hyperparameters
    assert "_hparams_/session_start_info" in events.summary_metadata
    return history, yaml.safe_load((folder / "hparams.yaml").read_text()), len(events.Images("samples"))


def wandb_entries(file: Path) -> Iterator[bytes]:
    """The entries of a file of W&B: after seven bytes, LevelDB's log format."""
    data, at, entry = file.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        if (left := 2**15 - at % 2**15) < 7:  # no header fits into the rest of a block
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        entry += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield entry
            entry = b""


def read_wandb(folder: Path) -> tuple[History, dict, int]:
    from wandb.proto.wandb_internal_pb2 import Record as Entry

    history: History = defaultdict(list)
    config, num_pictures = {}, 0
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    for data in wandb_entries(file):
        entry = Entry.FromString(data)
        for item in (*entry.run.config.update, *entry.config.update):
            config[item.key or item.nested_key[0]] = json.loads(item.value_json)
        row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in entry.history.item}
        if "samples/count" in row:
            num_pictures += 1
            continue
        for name in row.keys() - {"trainer/global_step", "_step", "_runtime", "_timestamp"}:
            history[name].append((row["trainer/global_step"], row[name]))
    return dict(history), config, num_pictures


def read_mlflow(folder: Path) -> tuple[History, dict, int]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("collapse-bench")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    history = {
        name.replace("_at_", "@"): [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    return history, run.data.params, len(list(folder.glob("artifacts/*/artifacts/samples/gen_*.png")))


READERS = {"csv": read_csv, "tensorboard": read_tensorboard, "wandb": read_wandb, "mlflow": read_mlflow}


def assert_same(found: History, wanted: History) -> None:
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in values], name
        np.testing.assert_allclose([v for _, v in found[name]], [v for _, v in values], rtol=1e-6, err_msg=name)


def test_names_say_what_was_measured_and_undefined_numbers_are_left_out() -> None:
    metrics = metrics_of(record(1))
    assert (metrics["fid/model"], metrics["fid/kept"], metrics["fid/floor"]) == (2.5, 3.5, 0.25)
    assert (metrics["generation"], metrics["seconds/fit"], metrics["spent/candidates"]) == (1, 0.5, 80)
    assert metrics["recall@classifier/model"] == 0.25
    assert not any("knn_entropy_gap" in name for name in metrics)
    counted = {field.name for field in dataclasses.fields(Spent) if field.type in ("int", int)}
    assert {f"spent/{name}" for name in (*counted, "num_real_images")} == {n for n in metrics if n.startswith("spent")}


@pytest.mark.parametrize("name", EVERY)
def test_what_was_committed_is_read_back_from_a_log_that_was_interrupted_and_has_no_step_twice(
    name: str, run_dir: RunDir
) -> None:
    targets = {name: TARGETS[name]}
    first = RunLog(targets, run_dir)
    with suppress(KeyboardInterrupt), first.opened():
        for t in (0, 1):
            commit(run_dir, t)
            first.committed(record(t))
        commit(run_dir, 2)
        raise KeyboardInterrupt  # between a commit and its log
    second = RunLog(targets, run_dir)
    with second.opened():
        commit(run_dir, 3)
        second.committed(record(3))
    RunLog(targets, run_dir).complete()
    history, params, num_pictures = READERS[name](run_dir.path / "logs" / name)
    assert_same(history, expected(4))
    assert {key: str(params[key]) for key in IDENTITY} == {key: str(value) for key, value in IDENTITY.items()}
    assert num_pictures == (-1 if name == "csv" else 4)


def test_a_named_place_has_one_folder_per_run_and_nothing_else_in_it_is_touched(run_dir: RunDir) -> None:
    place = run_dir.path.parent / "all"
    mine = place / f"run-{HASH}" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    commit(run_dir, 0)
    for folder in (place, place):  # the second time the log is there
        RunLog({"csv": CSV(str(folder)), "tensorboard": TensorBoard(str(folder))}, run_dir).complete()
        (run_dir.path / "logs" / "csv.json").unlink()
    assert_same(read_csv(mine.parent)[0], expected(1))
    assert mine.read_text() == "mine"
    assert not (run_dir.path / "logs" / "csv").exists()


def run(tmp_path: Path, name: str, *overrides: str) -> tuple[RunDir, list[dict]]:
    """A closed-form chain by way of the command line's own function; its folder and records."""
    config = composed(*TINY_GAUSSIAN, f"run_dir={tmp_path / name}", f"cache.root={tmp_path / 'cache'}", *overrides)
    choices = dict.fromkeys(("dataset", "generator", "regime", "mitigation", "encoder", "logger"), "x")
    run_dir, _ = run_config(config, Launch(choices=choices, command="collapse-run", console=Console(quiet=True)))
    return run_dir, [record.deterministic for record in run_dir.records()]


def test_a_log_changes_neither_the_records_nor_what_a_run_is(tmp_path: Path) -> None:
    (plain, records), (logged, same) = run(tmp_path, "plain"), run(tmp_path, "logged", "logger=[csv,tensorboard]")
    assert records == same
    infos = [json.loads((r.path / "run.json").read_text()) for r in (plain, logged)]
    assert infos[0]["identity"] == infos[1]["identity"]
    assert infos[0]["choices"] == infos[1]["choices"]
    assert not (plain.path / "logs").exists()
    logs = [
        reader(logged.path / "logs" / name)[0] for name, reader in READERS.items() if name in ("csv", "tensorboard")
    ]
    for record in logged.records():
        for metric, value in metrics_of(record).items():
            for log in logs:
                assert dict(log[metric])[record.generation] == pytest.approx(value, rel=1e-6)


def test_a_run_that_was_complete_before_it_had_a_logger_is_logged(tmp_path: Path) -> None:
    run(tmp_path, "run")
    run_dir, records = run(tmp_path, "run", "logger=csv")
    history, _, _ = read_csv(run_dir.path / "logs" / "csv")
    assert [step for step, _ in history["fid/model"]] == list(range(len(records)))


def test_a_logger_that_fails_is_given_up_with_a_warning_and_completed_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, records = run(tmp_path, "plain")

    def fail(self: LogTarget, log: object, metrics: dict[str, float], step: int) -> None:
        if metrics.get("generation") == 1:
            raise ConnectionError("the server is gone\nand this is its traceback")
        log_metrics(self, log, metrics, step)

    log_metrics = LogTarget.log_metrics
    monkeypatch.setattr(CSV, "log_metrics", fail)
    run_dir, same = run(tmp_path, "run", "logger=[csv,tensorboard]")
    assert same == records
    assert json.loads((run_dir.path / "status.json").read_text())["state"] == "complete"
    warning = "warning: logger.csv has failed and is given up: the server is gone. The chain goes on"
    assert capsys.readouterr().err.count(warning) == 2
    assert len(read_tensorboard(run_dir.path / "logs" / "tensorboard")[0]["fid/model"]) == len(records)
    monkeypatch.undo()
    run(tmp_path, "run", "logger=[csv,tensorboard]")
    history, _, _ = read_csv(run_dir.path / "logs" / "csv")
    assert [step for step, _ in history["fid/model"]] == list(range(len(records)))
    assert not capsys.readouterr().err


def test_a_place_that_cannot_be_opened_is_an_error_before_any_generation_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"logger\.csv cannot be opened: .*Correct its options or leave it out"):
        run(tmp_path, "run", "logger=csv", f"logger.csv.folder={tmp_path / 'file'}")
    assert RunDir(tmp_path / "run").num_committed() == 0
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


@pytest.mark.slow
def test_a_server_that_is_not_there_is_an_error_before_any_generation_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match=r"logger\.mlflow cannot be opened: .*Connection refused"):
        run(tmp_path, "run", "logger=mlflow", "logger.mlflow.tracking_uri='http://127.0.0.1:9'")
    assert RunDir(tmp_path / "run").num_committed() == 0


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_an_error_that_says_how_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    with pytest.raises(ConfigError) as error:
        build(composed(f"logger={name}")["logger"], "logger")
    assert f"logger={name} needs the package {name}, which is not installed" in str(error.value)
    assert "pip install 'collapse-bench[loggers]'" in str(error.value)


def test_loggers_are_chosen_like_any_option() -> None:
    assert composed()["logger"] is None
    assert list(composed("logger=[csv,mlflow]")["logger"]) == ["csv", "mlflow"]
    with pytest.raises(ConfigError, match=r"logger=tensorbord: there is no such option \(did you mean tensorboard\?\)"):
        check_command_line(["logger=tensorbord"])


@pytest.mark.slow
def test_every_run_of_a_sweep_has_its_own_log(tmp_path: Path) -> None:
    arguments = [*TINY_GAUSSIAN, "seed=0,1", "logger=[csv,wandb]", "logger.wandb.mode=offline", "progress=false"]
    process = call("collapse-run", "-m", *arguments, folder=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "warning" not in process.stderr.lower(), process.stderr
    runs = sorted((tmp_path / "runs").glob("gaussian-*"))
    assert len(runs) == 2
    for run in runs:
        of_records = [metrics_of(record)["fid/model"] for record in RunDir(run).records()]
        for name in ("csv", "wandb"):
            history, params, _ = READERS[name](run / "logs" / name)
            assert [value for _, value in history["fid/model"]] == pytest.approx(of_records)
            assert params["seed"] == int(run.name.split("seed")[1][0])
