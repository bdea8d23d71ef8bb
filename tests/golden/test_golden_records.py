"""The records of one small chain: exact between two runs on one machine, close to a stored file everywhere.

A change that moves these numbers on purpose shows the table of before and after in its commit message:
``COLLAPSE_BENCH_UPDATE_GOLDEN=1 pytest tests/golden -s`` prints it and writes the new file.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from chains import TINY, TINY_FLOW, composed, opened_run_dir, parts_of

from collapse_bench.loop import run_generations
from collapse_bench.records import Record

GOLDEN = Path(__file__).parent / "tiny_digits.json"

# After a few gradient steps another processor or library differs in the sixth digit. That can put a sample on the other
# side of the edge of a ball or of a class, which moves a share of the 60 images, and what is made of such shares.
SMOOTH = ("fid", "kid", "confidence", "held_out_loss", "loss")
EXACT = ("duplicates", "copies_of_training", "copies_of_real", "num_parameters", "spent")


def close_to(name: str, value: float) -> Any:
    """What a number may be elsewhere."""
    kind = name.split()[2]  # after "gen" and its number
    if kind in EXACT:
        return pytest.approx(value, rel=0, abs=0)
    if kind in SMOOTH:
        return pytest.approx(value, rel=1e-3, abs=0, nan_ok=True)
    return pytest.approx(value, rel=0.02, abs=1.001 / 60, nan_ok=True)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, ...]:
    folder = tmp_path_factory.mktemp("golden")
    parts = parts_of(composed(*TINY, *TINY_FLOW, "regime=augment"), folder / "store")
    with opened_run_dir(folder / "run") as run_dir:
        return run_generations(parts, 0, run_dir)


def numbers_of(records: tuple[Record, ...]) -> dict[str, float]:
    """All that a record says in numbers and that is the same again, by name."""
    numbers: dict[str, float] = {}
    for record in records:
        generation = f"gen {record.generation}"
        numbers |= {f"{generation} {score.metric} of {score.of}": score.value for score in record.scores}
        numbers |= {f"{generation} loss up to step {step}": loss for step, loss in record.losses}
        numbers[f"{generation} num_parameters"] = record.num_parameters
        counted = {name: value for name, value in asdict(record.spent).items() if isinstance(value, int)}
        numbers |= {f"{generation} spent {name}": n for name, n in counted.items() if not name.startswith("peak_")}
    return numbers


def test_records_are_those_of_the_stored_file(records: tuple[Record, ...]) -> None:
    numbers = numbers_of(records)
    if os.environ.get("COLLAPSE_BENCH_UPDATE_GOLDEN"):
        before = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        for name in sorted({*before, *numbers}):
            if before.get(name) != numbers.get(name):
                print(f"{name:45s} {before.get(name)} -> {numbers.get(name)}")
        GOLDEN.write_text(json.dumps(numbers, indent=1) + "\n")
    stored = json.loads(GOLDEN.read_text())
    assert numbers == {name: close_to(name, value) for name, value in stored.items()}


def test_the_real_pool_and_one_synthetic_pool_were_trained_on(records: tuple[Record, ...]) -> None:
    assert [dict(r.train_pool) for r in records] == [
        {"real": 64},
        {"real": 64, "gen_000": 64},
        {"real": 64, "gen_001": 64},
    ]
