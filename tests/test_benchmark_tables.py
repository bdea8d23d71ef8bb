"""The tables that a script of ``benchmarks/`` makes of runs are those of the records that are committed beside them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("script", "results", "table"),
    [
        ("quality_per_compute.py", "quality_mnist", "quality"),
        ("latents_by_generation.py", "shumailov2024_mnist_vae", "latents"),
    ],
)
def test_the_script_makes_the_committed_table_of_the_committed_records(
    script: str, results: str, table: str, tmp_path: Path
) -> None:
    (committed,) = ROOT.glob(f"results/*/{results}")
    command = [sys.executable, str(ROOT / "benchmarks" / script), str(committed), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    made = (tmp_path / f"{table}.md").read_text(encoding="utf-8")
    assert made == (committed / f"{table}.md").read_text(encoding="utf-8")
    assert made in (committed / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / f"{table}.png").stat().st_size > 0
