"""The records of one small chain: exact between two runs on one machine, close to a stored file everywhere.

A change that moves these numbers on purpose shows the table of before and after in its commit message:
``COLLAPSE_BENCH_UPDATE_GOLDEN=1 pytest tests/golden -s`` prints it and writes the new file.
"""

import json
import os
from pathlib import Path

import pytest
from chains import TINY, TINY_FLOW, composed, opened_run_dir, parts_of

from collapse_bench.loop import run_generations
from collapse_bench.records import Record

GOLDEN = Path(__file__).parent / "tiny_digits.json"

# After a few gradient steps another processor or library differs in the sixth digit, but a sample on the edge of a
# ball can move a share by one or two images in 60.
RELATIVE = 0.02
ABSOLUTE = 2.5 / 60


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, ...]:
    folder = tmp_path_factory.mktemp("golden")
    parts = parts_of(composed(*TINY, *TINY_FLOW, "regime=augment"), folder / "store")
    with opened_run_dir(folder / "run") as run_dir:
        return run_generations(parts, 0, run_dir)


def scores_of(records: tuple[Record, ...]) -> dict[str, float]:
    return {f"gen {r.generation} {s.of} {s.metric}": s.value for r in records for s in r.scores}


def test_records_are_those_of_the_stored_file(records: tuple[Record, ...]) -> None:
    scores = scores_of(records)
    if os.environ.get("COLLAPSE_BENCH_UPDATE_GOLDEN"):
        before = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        for name in sorted({*before, *scores}):
            if before.get(name) != scores.get(name):
                print(f"{name:45s} {before.get(name)} -> {scores.get(name)}")
        GOLDEN.write_text(json.dumps(scores, indent=1) + "\n")
    assert scores == pytest.approx(json.loads(GOLDEN.read_text()), rel=RELATIVE, abs=ABSOLUTE, nan_ok=True)


def test_the_real_pool_and_one_synthetic_pool_were_trained_on(records: tuple[Record, ...]) -> None:
    assert [dict(r.train_pool) for r in records] == [
        {"real": 64},
        {"real": 64, "gen_000": 64},
        {"real": 64, "gen_001": 64},
    ]
