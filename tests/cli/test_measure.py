import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import call
from PIL import Image

from collapse_bench.cli.config import conf_dir
from collapse_bench.datasets.digits import Digits
from collapse_bench.fingerprint import fingerprint
from collapse_bench.rundir import RunDir, read_json, write_json

TINY = (
    "dataset=digits",
    "generator=flow",
    "generator.network.width=16",
    "generator.network.num_blocks=1",
    "budget=smoke",
    "budget.num_synthetic=40",
    "budget.num_measured=60",
    "budget.num_floor_splits=2",
    "sampler.num_steps=4",
    "encoder=classifier",  # not the default
    "encoder.classifier.num_steps=10",
    "trainer.num_threads=1",
    "progress=false",
)
FEW = ("encoder=classifier", "encoder.classifier.num_steps=10", "trainer.num_threads=1")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the cache and for two runs of one chain: ``all`` keeps every model, ``last`` the last one."""
    folder = tmp_path_factory.mktemp("measure")
    for keep in ("all", "last"):
        process = call("collapse-run", *TINY, f"keep={keep}", f"run_dir={folder / keep}", folder=folder)
        assert process.returncode == 0, process.stderr
    return folder


def measured(folder: Path, *arguments: str) -> str:
    """What ``collapse-measure`` prints where it succeeds."""
    process = call("collapse-measure", *arguments, folder=folder, COLUMNS="400")
    assert process.returncode == 0, process.stderr
    return process.stdout


def refused(folder: Path, *arguments: str) -> str:
    """Its error where it does not."""
    process = call("collapse-measure", *arguments, folder=folder, COLUMNS="400")
    assert process.returncode == 1
    assert process.stderr.startswith("error: ")
    assert "Traceback" not in process.stderr
    return process.stderr.rstrip("\n")


def copied(folder: Path, to: Path, keep: str = "all") -> Path:
    """A copy of one of the two runs, for tests that damage it."""
    shutil.copytree(folder / keep, to, ignore=shutil.ignore_patterns("measured"))
    return to


def content(path: Path) -> dict[str, str]:
    """Hashes of all files of a run, without what is measured afterwards."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and "measured" not in p.relative_to(path).parts)
    return {str(file.relative_to(path)): fingerprint(file.read_bytes()) for file in files}


def change_config(path: Path, group: str, **options: Any) -> None:
    file = path / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config[group] |= options
    file.write_text(yaml.safe_dump(config))


# A run


def test_unchanged_choices_give_the_numbers_of_the_records(folder: Path) -> None:
    before = content(folder / "all")
    printed = measured(folder, "run=all")
    written = read_json(folder / "all" / "measured" / "classifier-headline.json")
    records = RunDir(folder / "all").records()
    assert [entry["generation"] for entry in written["generations"]] == [0, 1, 2]
    for record, entry in zip(records, written["generations"], strict=True):
        assert entry["scores"] == record.to_dict()["scores"]
    counts = {(score["of"], score["num_samples"]) for entry in written["generations"] for score in entry["scores"]}
    # The loss of the model is that on the reference.
    assert counts == {("model", 60), ("control", 60), ("kept", 40), ("floor", 60), ("model", 450)}
    assert written["encoder"]["hash"] == records[0].encoder
    assert written["run"]["path"] == str(folder / "all")
    assert "do not compare" not in printed
    assert "may differ" not in printed
    assert content(folder / "all") == before


@pytest.mark.slow
def test_numbers_of_the_training_pool_are_again_those_of_what_the_fit_saw(folder: Path) -> None:
    real_alone = ("regime=augment", "mitigation=provenance_weight", "mitigation.weigher.synthetic_weight=0")
    run = ("metrics=full", "keep=all", "run_dir=weighed")
    process = call("collapse-run", *TINY, *real_alone, *run, folder=folder)
    assert process.returncode == 0, process.stderr
    measured(folder, "run=weighed")
    (written,) = (folder / "weighed" / "measured").glob("*.json")
    for record, entry in zip(RunDir(folder / "weighed").records(), read_json(written)["generations"], strict=True):
        assert entry["scores"] == record.to_dict()["scores"]
        of_model = {score.metric: score.value for score in record.scores if score.of == "model"}
        assert math.isnan(of_model["nearest_is_real"]), "real images alone leave nothing to choose between"


def test_the_table_has_the_floor_first_and_a_row_per_generation(folder: Path) -> None:
    lines = measured(folder, "run=all").splitlines()
    rows = [line.split("  ")[0] for line in lines if line]
    assert rows.count("real-vs-real floor") == 2  # headline and further numbers
    first = rows.index("real-vs-real floor")
    assert rows[first : first + 5] == ["real-vs-real floor", "null of a perfect model", "0", "1", "2"]
    assert "digits / flow / replace / control, seed 0, classifier: 60 samples against 450 real images" in lines
    assert any("KID" in line and "density" in line for line in lines)


def test_a_run_that_kept_the_last_model_is_measured_there(folder: Path) -> None:
    printed = measured(folder, "run=last")
    written = read_json(folder / "last" / "measured" / "classifier-headline.json")
    assert [entry["generation"] for entry in written["generations"]] == [2]
    # What generation 2 was fitted to is gone.
    recorded = RunDir(folder / "last").records()[2].to_dict()["scores"]
    kept = [score for score in recorded if score["metric"] != "copies_of_training"]
    assert 0 < len(kept) < len(recorded)
    assert written["generations"][0]["scores"] == kept
    assert "numbers of the training pool are left out" in printed
    assert "not measured, because the model or the kept images are not on the disk: generations 0, 1. " in printed
    assert "keep=all and another run_dir" in printed


def test_a_run_without_models_is_refused(folder: Path, tmp_path: Path) -> None:
    path = copied(folder, tmp_path / "run", keep="last")
    (path / "gen_002" / "fitted.safetensors").unlink()
    error = refused(folder, f"run={path}")
    assert "no generation has its model and its kept images on the disk. To have everything," in error
    assert not (path / "measured").exists()


def test_the_command_line_replaces_encoder_and_metrics(folder: Path) -> None:
    printed = measured(folder, "run=all", "encoder=pixels", "metrics=features")
    written = read_json(folder / "all" / "measured" / "pixels-features.json")
    names = {score["metric"] for score in written["generations"][0]["scores"]}
    assert {"fid", "kid", "recall", "tail_mass"} <= names
    assert "class_kl" not in names
    assert written["encoder"]["name"] == "pixels"
    assert written["encoder"]["hash"] != RunDir(folder / "all").records()[0].encoder
    assert "another encoder than the run's: these numbers do not compare" in printed


def test_single_options_change_the_choices_of_the_run(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "scores.json"
    options = ("encoder.classifier.seed=7", "~metrics.kid", "metrics.tail.frac_tail=0.1")
    printed = measured(folder, "run=last", *options, f"out={out}")
    settings = read_json(out)["settings"]
    # num_steps is the run's: the group's default is another.
    keys = ("encoder.classifier.seed", "encoder.classifier.num_steps", "metrics.tail.frac_tail")
    assert [settings[key] for key in keys] == [7, 10, 0.1]
    assert not any(key.startswith("metrics.kid") for key in settings)
    assert "kid" not in {score["metric"] for score in read_json(out)["generations"][0]["scores"]}
    assert f"all numbers: {out}" in printed
    measured(folder, "run=last", "encoder=classifier", *options, f"out={out}")  # what the run chose, said once more
    assert read_json(out)["settings"] == settings


def test_a_measurement_with_other_options_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    path = copied(folder, tmp_path / "run", keep="last")
    measured(folder, f"run={path}", "encoder=pixels", "metrics=features")
    measured(folder, f"run={path}", "encoder=pixels", "metrics=features")
    error = refused(folder, f"run={path}", "encoder=pixels", "metrics=features", "metrics.tail.frac_tail=0.2")
    assert (
        "pixels-features.json holds what was measured with other options (metrics.tail.frac_tail: 0.05 -> 0.2)" in error
    )
    assert "out=FILE.json" in error


def test_an_incomplete_run_is_measured_as_far_as_it_goes(folder: Path, tmp_path: Path) -> None:
    path = copied(folder, tmp_path / "run")
    shutil.rmtree(path / "gen_002")
    write_json(path / "status.json", {"state": "failed", "generation": 1, "error": "", "updated": ""})
    printed = measured(folder, f"run={path}", "encoder=pixels", "metrics=features")
    assert "the run is not complete: its state is 'failed'" in printed
    written = read_json(path / "measured" / "pixels-features.json")
    assert [entry["generation"] for entry in written["generations"]] == [0, 1]


@pytest.mark.parametrize("override", ["dataset=mnist", "dataset.split_seed=1", "seed=3", "samples=null"])
def test_what_comes_from_the_run_cannot_be_replaced(folder: Path, override: str) -> None:
    error = refused(folder, "run=all", override)
    assert f"{override}: with run=... this comes from the run, leave it out; only encoder, metrics, trainer" in error


def test_options_that_the_run_does_not_have_are_refused(folder: Path, tmp_path: Path) -> None:
    path = copied(folder, tmp_path / "run", keep="last")
    config = yaml.safe_load((path / "config.yaml").read_text())
    del config["metrics"]["kid"]
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    assert "~metrics.kid: the run has no metrics.kid; leave this out" in refused(folder, f"run={path}", "~metrics.kid")
    error = refused(folder, f"run={path}", "encoder=pixels")
    assert "needs class probabilities and this encoder has none; choose encoder=pca or encoder=classifier," in error


def test_other_data_than_the_run_had_is_refused(folder: Path, tmp_path: Path) -> None:
    path = copied(folder, tmp_path / "run")
    change_config(path, "dataset", split_seed=1)
    assert "the data set digits is not the one of the run" in refused(folder, f"run={path}")
    gone = {"_target_": "collapse_bench.datasets.image_folder.ImageFolder", "name": "mine", "root": "/gone"}
    config = yaml.safe_load((path / "config.yaml").read_text()) | {"dataset": gone}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    error = refused(folder, f"run={path}")
    assert "there is no folder /gone" in error
    assert f"If the images were moved, correct dataset in {path / 'config.yaml'}" in error


@pytest.mark.parametrize("target", ["subprocess.Popen", "collapse_bench.cli.chain.Path"])
def test_code_from_elsewhere_is_not_run(folder: Path, tmp_path: Path, target: str) -> None:
    path = copied(folder, tmp_path / "run")
    change_config(path, "generator", optimisation=[{"_target_": target, "args": ["touch", str(tmp_path / "ran")]}])
    error = refused(folder, f"run={path}")
    assert f"config.yaml names {target}, code outside collapse_bench; if you trust it, add trust=true" in error
    assert not (tmp_path / "ran").exists()
    assert "generator.optimisation" in refused(folder, f"run={path}", "trust=true")  # it is built, and does not fit


def test_a_changed_library_is_named(folder: Path, tmp_path: Path) -> None:
    path = copied(folder, tmp_path / "run", keep="last")
    info = read_json(path / "run.json")
    info["identity"]["versions.torch"] = "1.0"
    write_json(path / "run.json", info)
    printed = measured(folder, f"run={path}", "encoder=pixels", "metrics=features")
    assert f"so last digits may differ: torch 1.0 -> {torch.__version__.partition('+')[0]}" in printed


def test_damaged_runs_are_refused(folder: Path, tmp_path: Path) -> None:
    assert "run.json: cannot be read" in refused(folder, f"run={tmp_path}")
    path = copied(folder, tmp_path / "run")
    (path / "gen_001" / "fitted.safetensors").write_bytes(b"damaged")
    assert "cannot load the model" in refused(folder, f"run={path}")
    (path / "gen_001" / "fitted.safetensors").unlink()
    (path / "config.yaml").write_text("seed: 0\n")
    assert "is not the configuration of a run: it has no budget, dataset, encoder" in refused(folder, f"run={path}")


# Foreign samples


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    """Real digits that are not held out, uint8 [n, h, w]."""
    data = Digits(name="digits", num_reference=450, num_control=450).load()
    return data.pool.images[:, 0].numpy()


def scores(file: Path, of: str) -> dict[str, float]:
    return {score["metric"]: score["value"] for score in read_json(file)["scores"] if score["of"] == of}


@pytest.mark.slow
def test_folder_array_and_parquet_give_the_same_numbers(folder: Path, tmp_path: Path, digits: np.ndarray) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = digits[:500]  # more than the control set, so that a subset is drawn
    (tmp_path / "png").mkdir()
    rows = []
    for i, image in enumerate(images):
        file = tmp_path / "png" / f"{i}.png"  # 10.png sorts before 2.png
        Image.fromarray(image).save(file)
        rows.append({"bytes": file.read_bytes(), "path": file.name})
    np.savez(tmp_path / "array.npz", images)
    pq.write_table(pa.table({"image": rows}), tmp_path / "rows.parquet")
    results = []
    for name in ("png", "array.npz", "rows.parquet"):
        out = tmp_path / f"{name}.json"
        printed = measured(folder, f"samples={tmp_path / name}", *FEW, f"out={out}")
        assert "holds 500 images; a random 450 of them (seed=0) are scored" in printed
        results.append(read_json(out)["scores"])
    assert results[0] == results[1] == results[2]
    assert {score["num_samples"] for score in results[0]} == {450}
    assert {score["of"] for score in results[0]} == {"samples", "control", "floor"}


def test_the_seed_chooses_the_subset(folder: Path, tmp_path: Path, digits: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", digits)
    values = []
    for seed in (0, 0, 1):
        measured(folder, f"samples={tmp_path / 'a.npy'}", f"seed={seed}", *FEW, f"out={tmp_path / 'a.json'}")
        values.append((scores(tmp_path / "a.json", "samples"), scores(tmp_path / "a.json", "control")))
    assert values[0] == values[1]
    assert values[0][0] != values[2][0]
    assert values[0][1] == values[2][1]


def test_the_control_set_scores_as_the_floor(folder: Path, tmp_path: Path) -> None:
    control = Digits(name="digits", num_reference=450, num_control=450).load().held_out.control.images
    np.save(tmp_path / "control.npy", control)
    printed = measured(folder, f"samples={tmp_path / 'control.npy'}", *FEW, f"out={tmp_path / 'a.json'}")
    # The order of the images differs, and with it the last digits of sums in float32.
    assert scores(tmp_path / "a.json", "samples") == pytest.approx(scores(tmp_path / "a.json", "control"), rel=1e-3)
    rows = [line.split("  ")[0] for line in printed.splitlines() if line]
    assert rows.index("samples") == rows.index("real-vs-real floor") + 2  # the null between them
    assert "of them" not in printed


def test_few_samples_have_a_floor_of_as_many(folder: Path, tmp_path: Path, digits: np.ndarray) -> None:
    np.save(tmp_path / "few.npy", digits[:60])
    printed = measured(folder, f"samples={tmp_path / 'few.npy'}", *FEW, f"out={tmp_path / 'a.json'}")
    assert "holds 60 images, all are scored; the floor is of as many of the 450 control images" in printed
    assert "few.npy against digits: 60 samples against 450 real images" in printed
    assert {score["num_samples"] for score in read_json(tmp_path / "a.json")["scores"]} == {60}
    # The floor is that of a run with the same encoder and count.
    floor = [score for score in RunDir(folder / "all").records()[0].to_dict()["scores"] if score["of"] == "control"]
    assert [score for score in read_json(tmp_path / "a.json")["scores"] if score["of"] == "control"] == floor


def test_nothing_is_written_without_out(folder: Path, tmp_path: Path, digits: np.ndarray) -> None:
    np.save(tmp_path / "few.npy", digits[:60])
    before = sorted(folder.iterdir())
    printed = measured(folder, f"samples={tmp_path / 'few.npy'}", *FEW)
    assert "all numbers" not in printed
    assert sorted(folder.iterdir()) == before
    assert sorted(tmp_path.iterdir()) == [tmp_path / "few.npy"]


def test_samples_that_do_not_fit_are_refused(folder: Path, tmp_path: Path, digits: np.ndarray) -> None:
    np.save(tmp_path / "big.npy", np.kron(digits[:9], np.ones((2, 2), dtype=np.uint8)))
    assert "big.npy is 16x16 grey" in refused(folder, f"samples={tmp_path / 'big.npy'}", *FEW)
    np.save(tmp_path / "few.npy", digits[:2])
    assert "measure more images or ask for fewer neighbours" in refused(folder, f"samples={tmp_path / 'few.npy'}", *FEW)
    assert "there is no such file" in refused(folder, "samples=gone.npy")
    assert "holds no pictures" in refused(folder, "samples=gone.npy", "dataset=gaussian", "metrics=features")
    error = refused(folder, f"samples={tmp_path / 'few.npy'}", "encoder=pixels")
    assert "needs class probabilities and this encoder has none" in error


# The command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "neither of run and samples given; give one of run=FOLDER (a finished run) and samples=PATH"),
        (("run=all", "samples=a.npz"), "both of run and samples given; give one of run=FOLDER"),
        (
            ("run=all", "encodr=pixels"),
            "encodr: there is no such key (did you mean encoder?). All keys: collapse-measure",
        ),
        (("run=all", "metrics.tail.frac_tial=0.1"), "(did you mean metrics.tail.frac_tail?)"),
        (("run=all", "encoder=pixls"), "encoder=pixls: there is no such option (did you mean pixels?). Options: "),
        (("run=all", "sampler=euler_50"), "sampler: there is no such key"),
        (("all",), "'all' is not understood; overrides have the form KEY=VALUE"),
        (("-m", "run=all,last"), "collapse-measure does not sweep; start it once for each run"),
        (("run=all,last",), "run=all,last gives several values"),
        (("samples=a (1).npz",), "quotes within quotes: KEY=\"'a (1)'\""),
        (("samples=7",), "samples must be a path, got 7"),
        (("samples=a.npz", "seed=x"), "seed must be int and trust bool, got 'x' and False"),
        (("samples=a.npz", "~encoder"), "encoder is empty; choose one of its options"),
        (("samples=a.npz", "out=."), "out=. is a folder; name a file in it"),
        (("samples=a.npz", "dataset=image_folder"), "give it as dataset.root=VALUE"),
        (
            ("samples=a.npz", "encoder=classifier", "encoder.classifier.width=7"),
            "Classifier.width must be a positive multiple of 8, got 7",
        ),
        (
            ("samples=a.npz", "encoder=classifier", "encoder.classifier.num_steps=many"),
            "encoder.classifier.num_steps must be int, got 'many'",
        ),
    ],
)
def test_a_wrong_command_line_gets_one_clear_error(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(folder, *arguments)


def test_the_defaults_are_those_of_a_run() -> None:
    defaults = {}
    for name in ("run", "measure"):
        entries = yaml.safe_load(Path(conf_dir(), f"{name}.yaml").read_text())["defaults"]
        defaults[name] = {
            group: option for entry in entries if isinstance(entry, dict) for group, option in entry.items()
        }
    assert {*defaults["measure"]} >= {"dataset", "encoder", "metrics", "trainer"}
    assert defaults["measure"].items() <= defaults["run"].items()


def test_an_output_that_cannot_be_written_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "scores.json"
    error = refused(folder, "run=last", "encoder=pixels", "metrics=features", f"out={out}")
    assert f"cannot write {out}: " in error
    assert "name another file with out=FILE.json" in error


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
def test_help_and_configuration_are_shown_without_torch(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import sys; from collapse_bench.cli.measure import main\n"
        "try: main()\nfinally: assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "samples" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_written_numbers_are_valid_json(folder: Path) -> None:
    measured(folder, "run=last", "encoder=pixels", "metrics=features")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (folder / "last" / "measured" / "pixels-features.json").read_text()
    assert json.loads(text, parse_constant=refuse)["schema"] == 1
