import errno
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from collapse_bench import chain as chain_module
from collapse_bench.chain import Chain
from collapse_bench.errors import RunDirError
from collapse_bench.ledger import IMAGES, TRAINED, Ledger, become
from collapse_bench.pool import PROVENANCE, Pool
from collapse_bench.records import Record, Score, Spent
from collapse_bench.rundir import RunDir

GRID = np.zeros((2, 2, 3, 1), dtype=np.uint8)


def network(seed: int) -> nn.Module:
    rng = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
        tensor.data = torch.randn(tensor.shape, generator=rng)
    return model


class Pair(nn.Module):
    """A refined model of another kind than the fitted one, as SIMS makes it."""

    def __init__(self, base: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.base, self.other = base, other


def pool(t: int) -> Pool:
    rng = torch.Generator().manual_seed(t)
    images = torch.randint(0, 256, (5, 1, 2, 3), generator=rng, dtype=torch.uint8)
    seeds = torch.arange(5) + 100 * t
    return Pool.sampled(images, seeds % 2, seeds, start=0, born=t, source="flow").take(torch.arange(3), "all kept")


def record(t: int) -> Record:
    scores = (Score("fd", "model", 1 / (t + 3), 10, 10, "lower"),)
    return Record(t, 9, scores, {"real": 4}, {"real": 1.0}, "none", 26, (), "e", Spent())


def ledger(t: int) -> Ledger:
    table = pool(t).table()
    return Ledger(become([table], table, "not kept"), table.assign(weight=1 / len(table), gate=float("inf")))


def start(run_dir: RunDir, keep: str = "last", num_pools_needed: int | None = 1) -> Chain:
    return Chain.resume_or_start(
        run_dir,
        empty_model=lambda _: network(seed=1000),
        refined_skeleton=lambda fitted: Pair(fitted, network(seed=1001)),
        keep=keep,  # type: ignore[arg-type]
        num_pools_needed=num_pools_needed,
    )


def extend(chain: Chain, *, refined: bool = False) -> Chain:
    t = chain.next_generation
    fitted = network(t)
    model = Pair(fitted, network(50 + t)) if refined else fitted
    return chain.commit(record(t), ledger(t), fitted=fitted, model=model, kept=pool(t), grid=GRID + t)


def same_module(first: nn.Module | None, second: nn.Module | None) -> bool:
    assert first is not None
    assert second is not None
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]) for name in one
    )


def same_pool(first: Pool, second: Pool) -> bool:
    return (first.sources, first.reasons, first.hidden) == (second.sources, second.reasons, second.hidden) and all(
        torch.equal(getattr(first, name), getattr(second, name)) for name in ("images", "labels", *PROVENANCE)
    )


def on_disk(run_dir: RunDir, name: str) -> list[int]:
    return [t for t in run_dir.generations() if (run_dir.generation(t) / f"{name}.safetensors").exists()]


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[RunDir]:
    run = RunDir(tmp_path / "run")
    with run.opened({"identity": {"name": "test"}}, {}):
        yield run


def test_an_empty_folder_starts_at_generation_0(run_dir: RunDir) -> None:
    chain = start(run_dir)
    assert (chain.next_generation, chain.records, chain.fitted, chain.model) == (0, (), None, None)


@pytest.mark.parametrize("refined", [False, True])
def test_a_resumed_chain_is_the_one_that_was_left_bit_for_bit(run_dir: RunDir, refined: bool) -> None:
    chain = start(run_dir)
    for _ in range(3):
        chain = extend(chain, refined=refined)
    resumed = start(run_dir)
    assert resumed.next_generation == chain.next_generation == 3
    assert resumed.records == chain.records == tuple(record(t) for t in range(3))
    assert same_module(resumed.fitted, chain.fitted)
    assert same_module(resumed.model, chain.model)
    assert same_pool(resumed.kept(2), pool(2))
    assert np.array_equal(np.load(run_dir.generation(2) / "grid.npy"), GRID + 2)


def test_a_resumed_model_is_ready_to_sample(run_dir: RunDir) -> None:
    extend(start(run_dir), refined=True)
    resumed = start(run_dir)
    assert resumed.fitted is not None
    assert resumed.model is not None
    assert not any(module.training for model in (resumed.fitted, resumed.model) for module in model.modules())


def test_a_refined_model_is_stored_beside_the_fitted_one(run_dir: RunDir) -> None:
    chain = extend(start(run_dir), refined=True)
    assert on_disk(run_dir, "fitted") == on_disk(run_dir, "model") == [0]
    resumed = start(run_dir)
    assert isinstance(resumed.model, Pair)
    assert not isinstance(resumed.fitted, Pair)
    assert same_module(resumed.model, chain.model)


def test_a_model_that_was_not_refined_is_stored_once(run_dir: RunDir) -> None:
    extend(start(run_dir))
    assert on_disk(run_dir, "fitted") == [0]
    assert on_disk(run_dir, "model") == []
    resumed = start(run_dir)
    assert resumed.model is resumed.fitted


def test_a_commit_makes_another_chain_and_leaves_the_old_one(run_dir: RunDir) -> None:
    old = extend(start(run_dir))
    fitted, records = old.fitted, old.records
    new = extend(old)
    assert new is not old
    assert (old.fitted, old.records, old.next_generation) == (fitted, records, 1)
    assert (len(new.records), new.next_generation) == (2, 2)
    assert new.fitted is not fitted


NUM_GENERATIONS = 5


@pytest.mark.parametrize("num_needed", [0, 1, 2, 3, None])
def test_keep_last_always_leaves_what_the_next_generation_needs(run_dir: RunDir, num_needed: int | None) -> None:
    chain = start(run_dir, "last", num_needed)
    for t in range(NUM_GENERATIONS):
        chain = extend(chain, refined=True)
        # Generation t + 1 looks at the last `num_needed` pools, or at all of them.
        first = 0 if num_needed is None else max(0, t + 1 - num_needed)
        resumed = start(run_dir, "last", num_needed)
        for needed in range(first, t + 1):
            assert same_pool(resumed.kept(needed), pool(needed))
        assert same_module(resumed.fitted, chain.fitted)
        assert same_module(resumed.model, chain.model)


@pytest.mark.parametrize(
    ("num_needed", "pools"),
    [(0, [4]), (1, [4]), (2, [3, 4]), (3, [2, 3, 4]), (9, [0, 1, 2, 3, 4]), (None, [0, 1, 2, 3, 4])],
)
def test_keep_last_deletes_old_models_and_the_pools_nobody_looks_at(
    run_dir: RunDir, num_needed: int | None, pools: list[int]
) -> None:
    chain = start(run_dir, "last", num_needed)
    for _ in range(NUM_GENERATIONS):
        chain = extend(chain, refined=True)
    # The first model stays, because later samples are encoded by it.
    assert on_disk(run_dir, "fitted") == on_disk(run_dir, "model") == [0, NUM_GENERATIONS - 1]
    assert on_disk(run_dir, "kept") == pools
    # Numbers and grids are small and are the result: they stay.
    assert start(run_dir).records == tuple(record(t) for t in range(NUM_GENERATIONS))
    for name in ("grid.npy", IMAGES, TRAINED):
        assert all((run_dir.generation(t) / name).exists() for t in range(NUM_GENERATIONS))


@pytest.mark.parametrize("num_needed", [0, 1, None])
def test_keep_all_deletes_nothing(run_dir: RunDir, num_needed: int | None) -> None:
    chain = start(run_dir, "all", num_needed)
    for _ in range(NUM_GENERATIONS):
        chain = extend(chain, refined=True)
    everything = list(range(NUM_GENERATIONS))
    assert on_disk(run_dir, "fitted") == on_disk(run_dir, "model") == on_disk(run_dir, "kept") == everything
    assert all(same_pool(chain.kept(t), pool(t)) for t in everything)


def test_what_a_killed_run_did_not_delete_is_deleted_at_the_next_commit(
    run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = extend(start(run_dir))
    with monkeypatch.context() as killed:

        def die(self: Chain, generation: int) -> None:
            raise KeyboardInterrupt

        killed.setattr(Chain, "_delete_before", die)
        with pytest.raises(KeyboardInterrupt):
            extend(chain)
    assert on_disk(run_dir, "fitted") == [0, 1]
    resumed = start(run_dir)
    assert resumed.next_generation == 2
    extend(resumed)
    assert on_disk(run_dir, "fitted") == [0, 2]
    assert on_disk(run_dir, "kept") == [2]


def test_the_first_model_is_known_after_a_resume_as_it_was_sampled(run_dir: RunDir) -> None:
    chain = extend(extend(start(run_dir), refined=True), refined=True)
    resumed = start(run_dir)
    assert chain.first is not None
    assert resumed.first is not None
    first, again = chain.first.state_dict(), resumed.first.state_dict()
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    stored = load_file(run_dir.generation(0) / "model.safetensors")
    assert all(torch.equal(stored[name], again[name]) for name in stored)


def test_a_pool_that_was_deleted_is_an_error_that_names_it(run_dir: RunDir) -> None:
    chain = extend(extend(start(run_dir)))
    with pytest.raises(RunDirError, match=r"gen_000.kept\.safetensors"):
        chain.kept(0)
    assert same_pool(chain.kept(1), pool(1))


@pytest.mark.parametrize("name", ["fitted", "model"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "of another network"])
def test_a_model_that_cannot_be_loaded_is_an_error_that_names_it(run_dir: RunDir, name: str, damage: str) -> None:
    extend(start(run_dir), refined=True)
    path = run_dir.generation(0) / f"{name}.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "of another network":
        chain_module.write_tensors(path, nn.Linear(1, 1).state_dict())
    elif name == "fitted":
        path.unlink()
    else:
        # A refined model that is missing looks like one that never was.
        path.write_bytes(b"")
    with pytest.raises(RunDirError, match=rf"(?s){name}\.safetensors.*delete its generation folder"):
        start(run_dir)
    assert run_dir.generations() == [0]


@pytest.mark.parametrize("writer", ["write_tensors", "np.save", "write_json", "Ledger.save"])
def test_a_commit_that_fails_leaves_the_chain_and_the_folder_as_they_were(
    run_dir: RunDir, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    chain = extend(extend(start(run_dir)))
    with monkeypatch.context() as patched:
        patched.setattr(f"collapse_bench.chain.{writer}", full_disk)
        with pytest.raises(RunDirError, match=r"generation 2 .*No space left on device.*free some space"):
            extend(chain)
    assert chain.next_generation == 2
    resumed = start(run_dir)
    assert resumed.records == chain.records
    assert same_module(resumed.fitted, chain.fitted)
    assert same_pool(resumed.kept(1), pool(1))
    assert same_module(extend(resumed).fitted, network(2))
