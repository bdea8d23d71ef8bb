"""What the loop promises, for every regime and mitigation."""

import gc
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from chains import (
    TINY,
    TINY_FLOW,
    TINY_GAUSSIAN,
    TINY_OPTION,
    assemble_config,
    composed,
    now_of,
    opened_run_dir,
    parts_of,
)
from commands import call
from safetensors.numpy import load_file

from collapse_bench.chain import Chain
from collapse_bench.cli.config import build
from collapse_bench.datasets.base import HeldOut
from collapse_bench.errors import CombinationError, SelectionError, TrainingError
from collapse_bench.loop import Parts, run_generations
from collapse_bench.measuring import Measurer
from collapse_bench.mitigations.base import Curator, Mitigation
from collapse_bench.mitigations.control import EqualWeights, NoRefinement, NoSteering
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.records import Record
from collapse_bench.rundir import RunDir
from collapse_bench.samplers.base import Draw, Sampler
from collapse_bench.samplers.flow import FlowSampler
from collapse_bench.store import Store
from collapse_bench.testing import promises
from collapse_bench.training import TrainingModule


def options(group: str) -> list[str]:
    return [option.name for option in promises.options(group)]


def run(tmp_path: Path, *overrides: str, seed: int = 0, store: str = "store") -> tuple[Record, ...]:
    return promises.run_tiny(tmp_path, *TINY, *TINY_FLOW, *overrides, seed=seed, store=store)


@pytest.fixture(scope="module")
def tiny_parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return parts_of(composed(*TINY, *TINY_FLOW), tmp_path_factory.mktemp("store"))


# Every regime in the default tier, and every mitigation in test_mitigations.py. In the slow tier each mitigation under
# the regimes that ask more of it: there are no real images, generation 0 sees a part of the real pool, more images are
# needed each time.
MITIGATIONS = [name for name in options("mitigation") if name != "human_audit"]  # which waits for a person
CELLS = [
    *((regime, "control") for regime in options("regime")),
    *(
        pytest.param(regime, mitigation, marks=pytest.mark.slow)
        for regime in ("replace", "fresh", "replace_multiple")
        for mitigation in MITIGATIONS
        if mitigation != "control"
    ),
]
# Nothing is left without the synthetic images, or there are no real ones to weigh them against.
NEEDS_REAL_IN_THE_POOL = {"detector", "optimal_mix", "watermark"}
NEEDS_TRUSTED = {
    *("anchoring", "centre_matching", "class_quota", "confidence", "covariance_matching", "detector", "ds3"),
    *("farthest_point", "k_means_representatives", "optimal_mix", "reward", "self_correction", "simulated_audit"),
    *("tail_first", "threshold_decay", "time_gate", "verifier", "watermark"),
}


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One encoder, one floor and one generation 0 for the cells that agree in them, as in a sweep."""
    return str(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize(("regime", "mitigation"), CELLS)
def test_every_regime_and_mitigation_keeps_the_contract(
    regime: str, mitigation: str, tmp_path: Path, shared_store: str
) -> None:
    config = composed(
        *TINY, *TINY_FLOW, f"regime={regime}", f"mitigation={mitigation}", *TINY_OPTION.get(mitigation, ())
    )
    if regime in ("replace", "replace_multiple") and mitigation in NEEDS_REAL_IN_THE_POOL:
        with pytest.raises(CombinationError, match=f"mitigation={mitigation}"):
            parts_of(config, Path(shared_store))
        return
    parts = parts_of(config, Path(shared_store))
    with opened_run_dir(tmp_path / "run") as run_dir:
        records = run_generations(parts, 0, run_dir, "all")
    assert [r.generation for r in records] == [0, 1, 2]
    promises.keeps_the_books(tmp_path, records)
    for record in records:
        assert record.spent.real_images_seen["generator"] <= 64
        assert "floor" in {s.of for s in record.scores}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("regime", "refused"),
    [
        ("contaminate", NEEDS_TRUSTED),  # of which no image is known to be real, unless some are trusted
        ("replace_on_the_fly", {*MITIGATIONS} - {"control"}),  # which has no pool to act on
    ],
)
def test_where_there_is_nothing_to_act_on_or_to_trust_the_mitigations_that_need_it_are_refused(
    regime: str, refused: set[str], shared_store: str
) -> None:
    found = set()
    for mitigation in MITIGATIONS:
        cell = (f"regime={regime}", f"mitigation={mitigation}", *TINY_OPTION.get(mitigation, ()))
        try:
            parts_of({**composed(*TINY, *TINY_FLOW, *cell), "metrics": {}}, Path(shared_store))
        except CombinationError:
            found.add(mitigation)
    assert found == refused


@pytest.mark.parametrize("regime", options("regime"))
def test_no_regime_trusts_real_images_that_generation_0_does_not_have(regime: str, tmp_path: Path) -> None:
    some = ("regime.num_trusted=5",) if regime == "contaminate" else ()
    parts = parts_of(composed(*TINY, *TINY_FLOW, f"regime={regime}", *some), tmp_path)
    with opened_run_dir(tmp_path / "run") as run_dir:
        chain = Chain(run_dir, (), None, None, None, "last", 1)
        first = parts.regime.mix(Now(0, 0, parts.setting, chain))
    trusted = parts.setting.trusted.image_id
    assert len(trusted) > 0
    assert torch.isin(trusted, first.image_id).all()


def test_two_runs_give_equal_records_and_models(tmp_path: Path) -> None:
    first = run(tmp_path / "a")
    second = run(tmp_path / "b")
    assert [r.deterministic for r in first] == [r.deterministic for r in second]
    for t in range(3):
        files = [tmp_path / ab / "run" / f"gen_{t:03d}" / "fitted.safetensors" for ab in "ab"]
        assert files[0].read_bytes() == files[1].read_bytes()


# Which pools a regime looks at is no matter of the family, but one that trains on a live model needs a network.
CLOSED_FORM = [regime for regime in options("regime") if regime != "replace_on_the_fly"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "chain",
    [
        *(pytest.param((*TINY_GAUSSIAN, f"regime={regime}"), id=regime) for regime in CLOSED_FORM),
        pytest.param((*TINY, *TINY_FLOW, "regime=replace_on_the_fly"), id="replace_on_the_fly"),
    ],
)
def test_a_regime_needs_no_more_pools_than_it_says(chain: tuple[str, ...], tmp_path: Path) -> None:
    promises.gives_the_same_again(tmp_path, *chain, "budget.num_generations=4")


def test_another_seed_gives_other_records(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a"), run(tmp_path / "b", seed=1)
    assert first[0].score("fid") != second[0].score("fid")
    assert first[0].score("fid", of="control") == second[0].score("fid", of="control"), "one split, one encoder"


def test_fits_from_the_store_give_the_records_of_fits_made_anew(tmp_path: Path) -> None:
    fresh = run(tmp_path / "a", store="../shared")
    reused = run(tmp_path / "b", store="../shared")
    assert fresh[0].spent.reused == ()
    assert reused[0].spent.reused == ("fit",)
    assert [r.deterministic for r in fresh] == [r.deterministic for r in reused]


def test_arms_share_generation_zero(tmp_path: Path) -> None:
    run(tmp_path / "a", "regime=replace", store="../shared")
    other = run(tmp_path / "b", "regime=accumulate", store="../shared")
    assert other[0].spent.reused == ("fit",)
    assert other[1].spent.reused == ()


def test_measured_samples_never_enter_a_pool(
    tiny_parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring: list[torch.Tensor] = []
    sample, measure = Sampler.sample, Measurer.measure

    def sample_and_note(self, model, seeds):
        measuring.append(seeds)
        return sample(self, model, seeds)

    def measure_and_listen(self, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(Sampler, "sample", sample_and_note)
            return measure(self, *arguments)

    monkeypatch.setattr(Measurer, "measure", measure_and_listen)
    with opened_run_dir(tmp_path / "run") as run_dir:
        run_generations(tiny_parts, 0, run_dir, "all")
    measured = set(torch.cat(measuring).tolist())
    assert len(measured) == 3 * tiny_parts.measurer.num_measured + 16, "fresh ones each generation, one grid for all"
    for t in range(3):
        kept = Pool.load(tmp_path / "run" / f"gen_{t:03d}" / "kept.safetensors")
        assert not measured & set(kept.seed.tolist())


class GuardedHeldOut(HeldOut):
    """Held-out images that let only the measuring side take them."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("reference", "control"):
            asks = sys._getframe(1).f_globals["__name__"]
            assert asks == "collapse_bench.measuring", f"{asks} asks for the held-out images"
        return super().__getattribute__(name)


def reachable(root: object) -> list[object]:
    """All objects that can be reached from one through attributes, containers and closures, but not through modules."""
    found: dict[int, object] = {}
    ahead = [root]
    while ahead:
        thing = ahead.pop()
        if id(thing) in found or isinstance(thing, (type, ModuleType)):
            continue
        found[id(thing)] = thing
        is_function = isinstance(thing, FunctionType)
        ahead += [c.cell_contents for c in thing.__closure__ or ()] if is_function else gc.get_referents(thing)
    return list(found.values())


def storages(root: object) -> set[int]:
    """Where the tensors that can be reached from an object lie in memory."""
    return {thing.untyped_storage().data_ptr() for thing in reachable(root) if isinstance(thing, torch.Tensor)}


def test_samples_that_are_nan_stop_the_run_and_name_the_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FlowSampler, "sample_batch", lambda self, model, seeds, labels: torch.full((len(seeds), 1, 8, 8), torch.nan)
    )
    with pytest.raises(TrainingError, match="generation 0: FlowSampler made images with NaN"):
        run(tmp_path)


def test_nothing_but_the_measuring_side_can_look_at_held_out_images(tmp_path: Path) -> None:
    config = composed(*TINY, *TINY_FLOW, "mitigation=confidence", "labels=classifier")
    data = build(config["dataset"], "dataset").load()
    images = (data.held_out.reference.images, data.held_out.control.images)
    guarded = GuardedHeldOut(data.held_out.reference, data.held_out.control)
    with pytest.raises(AssertionError, match="test_loop asks for the held-out images"):
        _ = guarded.control
    parts = assemble_config(config, replace(data, held_out=guarded), tmp_path / "store")
    with opened_run_dir(tmp_path / "run") as run_dir:
        run_generations(parts, 0, run_dir, "all")
        now = now_of(parts, run_dir, generation=2)
    assert storages(images) <= storages(parts.measurer)
    assert storages(data.pool) <= storages(now)
    assert not storages(images) & storages(now), "a part can get at them by what it is given"


def test_the_grid_has_the_same_seeds_in_every_generation(tmp_path: Path) -> None:
    # With a learning rate of next to nothing the model stays what it was, and then so must the grid.
    run(tmp_path, "regime=real", "generator.optimisation.learning_rate=1e-12", "generator.optimisation.ema_width=null")
    grids = [np.load(tmp_path / "run" / f"gen_{t:03d}" / "grid.npy") for t in range(3)]
    assert grids[0].dtype == np.uint8
    assert grids[0].shape == (16, 8, 8, 1)
    assert (grids[0] == grids[1]).all()
    assert (grids[0] == grids[2]).all()


def test_a_warm_start_continues_and_a_scratch_start_does_not(tmp_path: Path) -> None:
    almost_no_step = ("generator.optimisation.learning_rate=1e-12", "generator.optimisation.ema_width=null")
    run(tmp_path / "warm", *almost_no_step, "generator.start=warm")
    run(tmp_path / "scratch", *almost_no_step, "generator.start=scratch")
    distance = {}
    for start in ("warm", "scratch"):
        files = [tmp_path / start / "run" / f"gen_{t:03d}" / "fitted.safetensors" for t in (0, 1)]
        first, second = (load_file(file)["network.inner.weight"] for file in files)
        distance[start] = np.abs(first - second).mean()
    assert distance["warm"] < 1e-9
    assert distance["scratch"] > 1e-2


class _KeepTooFew(Curator):
    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        return draw(num_needed).take(torch.arange(num_needed - 1), because="too few")


class _AskForTooMany(Curator):
    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        return draw(1000 * num_needed)


@pytest.mark.parametrize(
    ("curator", "words"),
    [(_KeepTooFew(), ["generation 0", "kept 39", "40 are needed"]), (_AskForTooMany(), ["budget.max_candidates"])],
)
def test_a_curator_that_misses_its_quota_stops_the_run(
    curator: Curator, words: list[str], tiny_parts: Parts, tmp_path: Path
) -> None:
    parts = replace(tiny_parts, mitigation=Mitigation(NoSteering(), EqualWeights(), NoRefinement(), curator))
    with opened_run_dir(tmp_path / "run") as run_dir, pytest.raises(SelectionError) as error:
        run_generations(parts, 0, run_dir)
    assert all(word in str(error.value) for word in words)
    assert run_dir.generations() == []


def test_a_nan_loss_stops_the_run_and_leaves_committed_generations(
    tiny_parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TrainingModule.training_step

    def poisoned(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        if self._job.what == "generation 2" and batch_idx == 3:
            self._unchecked[-1] = loss.detach() * float("nan")
        return loss

    monkeypatch.setattr(TrainingModule, "training_step", poisoned)
    parts = replace(tiny_parts, setting=replace(tiny_parts.setting, store=Store(tmp_path / "empty")))
    with opened_run_dir(tmp_path / "run") as run_dir, pytest.raises(TrainingError, match="step 4 of 6 of generation 2"):
        run_generations(parts, 0, run_dir)
    assert run_dir.generations() == [0, 1]

    monkeypatch.undo()
    with opened_run_dir(tmp_path / "run") as run_dir:
        continued = run_generations(parts, 0, run_dir)
    with opened_run_dir(tmp_path / "whole") as run_dir:
        whole = run_generations(parts, 0, run_dir)
    assert [r.deterministic for r in continued] == [r.deterministic for r in whole]


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_records_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """A process is killed with SIGKILL in the middle of generation 2, then the same command is called again."""
    arguments = [
        *(*TINY, *TINY_FLOW, "regime=accumulate", "budget.num_generations=3", "budget.num_steps=150"),
        *("cache.enabled=false", "progress=false"),
    ]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-m", "collapse_bench.cli.run", *arguments, f"run_dir={killed}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not (killed / "gen_001").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    committed = sorted(path.name for path in killed.glob("gen_*[0-9]"))
    assert committed == ["gen_000", "gen_001"], "the kill came in the middle of generation 2"
    before = {name: (killed / name / "record.json").read_bytes() for name in committed}

    for folder in (killed, whole):
        finished = call("collapse-run", *arguments, f"run_dir={folder}", folder=tmp_path)
        assert finished.returncode == 0, finished.stderr
    for name, content in before.items():
        assert (killed / name / "record.json").read_bytes() == content, "committed is committed"
    records = {folder: RunDir(folder).records() for folder in (killed, whole)}
    assert len(records[whole]) == 4
    assert [r.deterministic for r in records[killed]] == [r.deterministic for r in records[whole]]
    last = "gen_003/fitted.safetensors"
    assert (killed / last).read_bytes() == (whole / last).read_bytes()
