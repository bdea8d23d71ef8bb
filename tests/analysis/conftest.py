"""Synthetic run directories with known numbers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from collapse_bench.analysis.runs import Run, find_runs
from collapse_bench.records import Record, Score, Spent

BETTER = {
    "fid": "lower",
    "precision": "higher",
    "recall": "higher",
    "within_class_variance_ratio": "one",
    "tail_mass": "floor",
    "class_kl": "lower",
    "lowest_class_share": "higher",
    "confidence": "floor",
    "kid": "lower",
    "fid_infinity": "lower",
    "held_out_loss": "lower",
    "coverage": "higher",
    "tail_coverage": "higher",
    "lowest_class_coverage": "higher",
    "num_classes_covered": "higher",
    "entanglement": "lower",
    "duplicates": "lower",
    "copies_of_training": "lower",
    "copies_of_real": "lower",
}
FLOOR = {
    "fid": 2.0,
    "precision": 0.9,
    "recall": 0.91,
    "within_class_variance_ratio": 1.0,
    "tail_mass": 0.05,
    "class_kl": 0.004,
    "lowest_class_share": 0.09,
    "confidence": 0.97,
    "kid": 0.0001,
    "fid_infinity": 1.0,
    "held_out_loss": 2.0,
    "coverage": 0.95,
    "tail_coverage": 0.9,
    "lowest_class_coverage": 0.85,
    "num_classes_covered": 10.0,
    "entanglement": 0.02,
    "duplicates": 0.0,
    "copies_of_training": 0.0,
    "copies_of_real": 0.0,
}
NUM_CLASSES = 4
KEEP_ALL = "collapse_bench.mitigations.control.KeepAll"


def model_score(metric: str, generation: int, seed: int, decay: float) -> float:
    """The known number of fresh samples: it leaves its start by ``decay`` per generation, seeds shift it a little."""
    shift = 0.01 * seed
    if metric == "fid":
        return 10.0 + 100.0 * decay * generation + seed
    if metric in ("class_kl", "kid"):
        return 0.01 + decay * generation + shift / 10
    return FLOOR[metric] * (1.0 - decay) ** generation - shift


def make_record(generation: int, seed: int, decay: float, encoder: str, metrics: list[str]) -> Record:
    scores = []
    for metric in metrics:
        value = model_score(metric, generation, seed, decay)
        scores += [
            Score(metric, "model", value, 450, 450, BETTER[metric], low=value - 0.1, high=value + 0.1),
            Score(metric, "kept", value + 0.001, 450, 450, BETTER[metric]),
            Score(metric, "control", FLOOR[metric], 450, 450, BETTER[metric]),
        ]
    if "class_kl" in metrics:
        tempered = np.array([1.0 + i for i in range(NUM_CLASSES)]) ** (5 * decay * generation)
        for i, share in enumerate(tempered / tempered.sum()):
            scores.append(Score(f"class_share_{i}", "model", float(share), 450, 450, "floor"))
            scores.append(Score(f"class_share_{i}", "kept", float(share), 450, 450, "floor"))
            scores.append(Score(f"class_share_{i}", "control", 1 / NUM_CLASSES, 450, 450, "floor"))
    return Record(
        generation=generation,
        seed=seed,
        scores=tuple(scores),
        train_pool={"real": 897} if generation == 0 else {f"gen_{generation - 1:03d}": 897},
        train_shares={"real": 1.0} if generation == 0 else {f"gen_{generation - 1:03d}": 1.0},
        kept_labels="condition",
        num_parameters=1000,
        losses=((0, 1.0), (100, 0.5)),
        encoder=encoder,
        spent=Spent(
            gradient_steps=300,
            networks_trained=1,
            candidates=1800,
            kept=900,
            network_evaluations_per_sample=20,
            real_images_seen={"generator": 897},
            reused=("fit",) if generation == 0 else (),
            seconds={"fit": 3.0, "sample": 1.0, "measure": 0.5},
        ),
    )


def make_chain(
    curves: Mapping[str, Sequence[float]],
    *,
    seed: int = 0,
    regime: str = "replace",
    mitigation: str = "control",
    num_real: int = 897,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """A run in memory whose fresh samples have these curves, for tests that need many of them."""
    num_generations = max(map(len, curves.values()))
    records = [
        replace(
            make_record(t, seed, 0.0, "aaaa1111", []),
            scores=tuple(
                score
                for metric, curve in curves.items()
                if t < len(curve)
                for score in (
                    Score(metric, "model", float(curve[t]), 450, 450, BETTER[metric]),
                    Score(metric, "control", FLOOR[metric], 450, 450, BETTER[metric]),
                )
            ),
            train_pool={"real": num_real},
        )
        for t in range(num_generations)
    ]
    identity = {
        "seed": seed,
        "data": f"data of {num_real}",
        "dataset.num_real": num_real,
        "regime._target_": regime,
        "mitigation._target_": "collapse_bench.mitigations.base.Mitigation",
        "mitigation.curator._target_": KEEP_ALL if mitigation == "control" else mitigation,
        "generator.start": "warm",
        "budget.num_steps": 300,
    }
    info = {
        "identity": identity | dict(settings or {}),
        "choices": {"dataset": "digits", "regime": regime, "mitigation": mitigation},
        "seed": seed,
        "class_names": [],
    }
    return Run(Path(f"{regime}-{mitigation}-{num_real}-{seed}"), info, {}, {"state": "complete"}, tuple(records))


def draw_grid(generation: int, decay: float, num_images: int, channels: int) -> np.ndarray:
    """Discs whose radius differs from image to image, and less so in each generation."""
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    radii = 0.5 + (1.0 - decay) ** (2 * generation) * np.linspace(-0.35, 0.35, num_images)
    discs = np.clip((radii[:, None, None] - np.hypot(x, y)[None]) * 600 + 128, 0, 255).astype(np.uint8)
    return np.repeat(discs[..., None], channels, axis=-1)


def write_run(
    root: Path,
    name: str,
    *,
    seed: int = 0,
    decay: float = 0.1,
    num_generations: int = 3,
    reached: int | None = None,
    encoder: str = "aaaa1111",
    metrics: list[str] | None = None,
    choices: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    grids: bool = True,
    channels: int = 1,
) -> Path:
    """Writes a run directory below ``root`` and returns it; ``reached`` makes it incomplete."""
    path = root / name
    path.mkdir(parents=True)
    chosen = {
        "dataset": "digits",
        "generator": "flow",
        "sampler": "euler_20",
        "regime": "replace",
        "mitigation": "control",
        "encoder": "classifier",
        "metrics": "headline",
        "budget": "quick",
        "trainer": "cpu",
        "experiment": None,
    } | dict(choices or {})
    resolved = {
        "seed": seed,
        "runs_dir": "runs",
        "run_dir": str(path),
        "regime": {"_target_": f"collapse_bench.regimes.{chosen['regime']}"},
        "budget": {"num_steps": 300, "num_generations": num_generations},
    } | dict(config or {})
    identity = {"seed": seed, "versions.torch": "2.15.0", "data": "dddd"}
    for group, options in resolved.items():
        identity |= {f"{group}.{key}": value for key, value in options.items()} if isinstance(options, dict) else {}
    info = {
        "schema": 1,
        "identity": identity,
        "config_hash": f"hash-{name}",
        "choices": chosen,
        "seed": seed,
        "num_generations": num_generations,
        "class_names": [f"digit {i}" for i in range(NUM_CLASSES)],
        "versions": {"collapse_bench": "0.1.0", "torch": "2.15.0"},
        "machine": {"platform": "Linux", "processor": "x86_64", "num_threads": 2, "device": "cpu"},
        "command": f"collapse-run regime={chosen['regime']} seed={seed}",
        "encoder": {
            "name": "classifier",
            "hash": encoder,
            "accuracy_control": 0.98,
            "accuracy_reference": 0.97,
        },
    }
    last = num_generations if reached is None else reached
    state = "complete" if reached is None else "running"
    (path / "run.json").write_text(json.dumps(info))
    (path / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False))
    (path / "status.json").write_text(
        json.dumps({"state": state, "generation": last, "error": None, "updated": "2026-11-20T10:00:00Z"})
    )
    if grids:
        np.save(path / "real_grid.npy", draw_grid(0, 0.0, 12, channels))
    for generation in range(last + 1):
        folder = path / f"gen_{generation:03d}"
        folder.mkdir()
        record = make_record(generation, seed, decay, encoder, metrics or list(BETTER))
        (folder / "record.json").write_text(json.dumps(record.to_dict()))
        if grids:
            np.save(folder / "grid.npy", draw_grid(generation, decay, 12, channels))
    return path


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """``write_run`` below ``tmp_path``."""
    return partial(write_run, tmp_path)


@pytest.fixture(scope="session")
def write_run_in() -> Callable[..., Path]:
    """``write_run``, for fixtures that several tests share."""
    return write_run


@pytest.fixture
def chain() -> Callable[..., Run]:
    """``make_chain``."""
    return make_chain


@pytest.fixture
def floors() -> dict[str, float]:
    return FLOOR


@pytest.fixture
def model_value() -> Callable[[str, int, int, float], float]:
    """The value that ``make_run`` wrote, from (metric, generation, seed, decay)."""
    return model_score


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two regimes of three seeds each; tests only read it."""
    root = tmp_path_factory.mktemp("sweep")
    for regime, decay in (("replace", 0.1), ("accumulate", 0.02)):
        for seed in range(3):
            write_run(root, f"{regime}/{seed}", seed=seed, decay=decay, choices={"regime": regime})
    return root


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Five regimes without a mitigation, and two regimes with two mitigations each, of two seeds; never changed."""
    root = tmp_path_factory.mktemp("families")
    chosen = [{"regime": regime} for regime in ("replace", "real", "mix", "fresh", "window")]
    chosen += [{"regime": regime, "mitigation": name} for regime in ("replace", "mix") for name in ("neon", "sims")]
    for i, choices in enumerate(chosen):
        for seed in range(2):
            write_run(root, f"{i}-{seed}", seed=seed, decay=0.02 * i, choices=choices, num_generations=2)
    return find_runs(root)
