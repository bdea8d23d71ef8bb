"""The table of quality against seconds of training is that of the records that are committed beside it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_script_makes_the_committed_table_of_the_committed_records(tmp_path: Path) -> None:
    (committed,) = ROOT.glob("results/*/quality_mnist")
    script = [sys.executable, str(ROOT / "benchmarks" / "quality_per_compute.py"), str(committed)]
    subprocess.run([*script, "--out", str(tmp_path)], check=True, capture_output=True)
    table = (tmp_path / "quality.md").read_text(encoding="utf-8")
    assert table == (committed / "quality.md").read_text(encoding="utf-8")
    assert table in (committed / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / "quality.png").stat().st_size > 0
