"""The same sweep of eight runs by the basic launcher, joblib (2 processes) and submitit's local executor.

    uv run python benchmarks/launchers.py [overrides of collapse-run]

Each sweep has a cache of its own, so each does all the work: 2 regimes x 4 seeds on digits, one thread per run. Records
must be equal bit for bit. Seconds are wall time of the whole command, the imports of every process included.
"""

import sys
import tempfile
import time
from pathlib import Path

from sweeping import records_of, run_sweep

SWEEP = ("regime=replace,accumulate", "seed=0,1,2,3", "trainer.num_threads=1", "budget.num_generations=2")
LAUNCHERS = {
    "basic": (),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"),
}


def main() -> None:
    seconds, found = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, launcher in LAUNCHERS.items():
            place = Path(folder) / name
            begin = time.perf_counter()
            run_sweep(place, *SWEEP, *launcher, *sys.argv[1:])
            seconds[name] = time.perf_counter() - begin
            found[name] = [record.deterministic for record in records_of(place)]
    print(f"{'launcher':16s} {'seconds':>8s} {'ratio':>6s}   {len(found['basic'])} records")
    for name in LAUNCHERS:
        assert found[name] == found["basic"], f"the records of {name} differ from those of basic"
        print(f"{name:16s} {seconds[name]:8.1f} {seconds['basic'] / seconds[name]:6.2f}   equal")


if __name__ == "__main__":
    main()
