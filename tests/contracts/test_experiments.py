"""One cell of an experiment runs from end to end, on a tiny budget; that its files compose is in test_conf.py."""

from pathlib import Path

import pytest
from chains import TINY, TINY_FLOW

from collapse_bench.testing import promises

SMALL_FLOW = ("budget.num_generations=1", *TINY_FLOW)
CELLS = {
    "several_sources": (
        "budget.num_generations=1",
        *(f"generator.members.{name}.network.width=16" for name in ("vae", "flow", "ddpm")),
        "sampler.members.ddpm.num_steps=4",
    ),
    "sampling_bias": (*SMALL_FLOW, "sampler.temperature=0.8"),
    "warm_scratch": (*SMALL_FLOW, "generator.start=scratch"),
    "suite/reward_curation": (*SMALL_FLOW, "regime=mix", "regime.frac_real=0.1", "mitigation=reward"),
    "suite/biased_reference": (
        *(*SMALL_FLOW, "regime=replace", "mitigation=centre_matching"),
        "mitigation.curator.reference_classes=[0,1,2,3,4]",
    ),
}


@pytest.mark.parametrize("experiment", CELLS)
def test_a_cell_of_an_experiment_runs(experiment: str, tmp_path: Path) -> None:
    records = promises.run_tiny(tmp_path, f"experiment={experiment}", *TINY, *CELLS[experiment])
    promises.keeps_the_books(tmp_path, records)
    assert len(records) == 2
