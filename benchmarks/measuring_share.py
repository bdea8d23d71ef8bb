"""The measuring step as a share of a generation's time, in the main job (the quick start) or any other run.

    uv run python benchmarks/measuring_share.py [overrides of collapse-run]

A generation is fitted, sampled and measured; nothing is read from a store. The shares are those of one run, so a busy
machine slows all their parts alike.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from collapse_bench.analysis.runs import load_run


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = ["-m", "collapse_bench.cli.run", "budget.num_generations=2", f"run_dir={run}", "progress=false"]
        subprocess.run([sys.executable, *command, f"cache.root={folder}/cache", *sys.argv[1:]], check=True)
        print(f"\n{'generation':>10} {'fit':>8} {'sample':>8} {'measure':>8}   share of measuring")
        for record in load_run(run).records:
            seconds = dict(record.spent.seconds)
            share = seconds["measure"] / sum(seconds.values())
            cells = " ".join(f"{seconds.get(phase, 0.0):7.2f}s" for phase in ("fit", "sample", "measure"))
            print(f"{record.generation:>10} {cells}   {share:.1%}")


if __name__ == "__main__":
    main()
