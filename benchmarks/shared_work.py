"""What a sweep saves by sharing its fits: five regimes, two seeds, with and without the store.

    uv run python benchmarks/shared_work.py [overrides of collapse-run]

The same ten runs of digits, one after the other in one process of one thread, once with an empty store and once without
any. Records must be equal bit for bit but for seconds and the marks of what was reused. Seconds are wall time of the
whole command; gradient steps are those of the generators' fits that were computed, from the records. The classifier
that measures is trained once with the store and once per run without, which counts in the seconds alone.
"""

import sys
import tempfile
import time
from pathlib import Path

from sweeping import records_of, run_sweep

REGIMES = "replace,accumulate,accumulate_subsample,mix,real"
SWEEP = (f"regime={REGIMES}", "seed=0,1", "trainer.num_threads=1", "budget.num_generations=2")


def main() -> None:
    seconds, steps, reused, found = {}, {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, enabled in (("with", "true"), ("without", "false")):
            place = Path(folder) / name
            begin = time.perf_counter()
            run_sweep(place, *SWEEP, f"cache.enabled={enabled}", *sys.argv[1:])
            seconds[name] = time.perf_counter() - begin
            records = records_of(place)
            steps[name] = sum(r.spent.gradient_steps for r in records if "fit" not in r.spent.reused)
            reused[name] = sum("fit" in r.spent.reused for r in records)
            found[name] = [record.deterministic for record in records]
    assert found["with"] == found["without"], "the records with reuse differ from those without"
    print(f"{len(found['with'])} records with the store, equal to those without")
    print(f"{'store':8s} {'seconds':>8s} {'gradient steps':>15s} {'fits reused':>12s}")
    for name in found:
        print(f"{name:8s} {seconds[name]:8.1f} {steps[name]:15,d} {reused[name]:12d}")
    print(f"{'ratio':8s} {seconds['without'] / seconds['with']:8.2f} {steps['without'] / steps['with']:15.2f}")


if __name__ == "__main__":
    main()
