"""The ledger as the loop writes it: every candidate and its fate, every image of every training pool."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd
import pytest
import torch
from chains import TINY_GAUSSIAN, FinishedChain, assert_equal_chains, composed, opened_run_dir, parts_of
from curating import Bench, noise

from collapse_bench import chain as chain_module
from collapse_bench.ledger import COLUMNS, IMAGES, TRAINED, Ledger, become
from collapse_bench.loop import run_generations
from collapse_bench.mitigations.base import Curator, Mitigation
from collapse_bench.mitigations.control import EqualWeights, NoRefinement, NoSteering
from collapse_bench.mitigations.random_subset import RandomSubset
from collapse_bench.mitigations.selection import draw_until
from collapse_bench.now import Now
from collapse_bench.pool import REAL, Pool
from collapse_bench.rundir import RunDir
from collapse_bench.samplers.base import Draw
from collapse_bench.seeding import Role


def sampled(start: int, *seeds: int, source: str = "flow") -> Pool:
    count = len(seeds)
    images = torch.zeros(count, 1, 1, 1, dtype=torch.uint8)
    numbers = torch.tensor(seeds)
    return Pool.sampled(images, numbers % 3, numbers, start=start, born=0, source=source)


def rows(table: pd.DataFrame, *columns: str) -> list[tuple]:
    return list(table[list(columns)].itertuples(index=False, name=None))


def tables(run_dir: RunDir, t: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = run_dir.generation(t)
    return pd.read_parquet(folder / IMAGES), pd.read_parquet(folder / TRAINED)


def test_a_table_of_a_pool_says_all_but_the_pixels() -> None:
    real = Pool.real(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.tensor([4, 5]), "digits")
    table = Pool.concat([real, sampled(7, 70).take(torch.tensor([0]), "liked")]).hide("born", "source").table()
    columns = ("image_id", "seed", "born", "source", "label", "because")
    assert rows(table, *columns) == [
        (0, 0, REAL, "digits", 4, "real"),
        (1, 1, REAL, "digits", 5, "real"),
        ((1 << 40) + 7, 70, 0, "flow", 1, "liked"),
    ]


def test_candidates_are_kept_or_dropped_in_the_order_of_the_draws() -> None:
    first, second = sampled(0, 10, 11), sampled(2, 12, 13)
    kept = Pool.concat([second.take(torch.tensor([1]), "rare"), first.take(torch.tensor([0]), "good")])
    images = become([first.table(), second.table()], kept.table(), "not kept by Judge")
    assert rows(images, "seed", "drawn", "num_kept", "because") == [
        (10, True, 1, "good"),
        (11, True, 0, "not kept by Judge"),
        (12, True, 0, "not kept by Judge"),
        (13, True, 1, "rare"),
    ]


def test_an_image_handed_on_twice_is_counted_twice_and_listed_once() -> None:
    drawn = sampled(0, 10, 11)
    images = become([drawn.table()], drawn.take(torch.tensor([1, 1]), "twice").table(), "dropped")
    assert rows(images, "seed", "num_kept", "because") == [(10, 0, "dropped"), (11, 2, "twice")]


def test_an_image_that_is_no_candidate_says_so_even_with_the_id_of_one() -> None:
    drawn, other = sampled(0, 10, 11), sampled(0, 99, source="another model").take(torch.tensor([0]), "made")
    assert other.image_id[0] == drawn.image_id[0]
    images = become([drawn.table()], other.table(), "dropped")
    assert rows(images, "seed", "source", "drawn", "num_kept", "because") == [
        (10, "flow", True, 0, "dropped"),
        (11, "flow", True, 0, "dropped"),
        (99, "another model", False, 1, "made"),
    ]


def test_a_curator_that_drew_nothing_and_kept_nothing_has_an_empty_ledger(tmp_path: Path) -> None:
    nothing = sampled(0, 10).take(torch.arange(0)).table()
    Ledger(become([], nothing, "dropped"), nothing.assign(weight=np.empty(0), gate=np.empty(0))).save(tmp_path)
    for name in (IMAGES, TRAINED):
        table = pd.read_parquet(tmp_path / name)
        assert len(table) == 0
        assert tuple(table.columns) == COLUMNS[name]


@final
@dataclass(frozen=True)
class EvenOnes(Curator):
    """Draws until it has enough candidates with even seeds."""

    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        def accept(candidates: Pool) -> torch.Tensor:
            return (candidates.seed % 2 == 0).nonzero().flatten()

        return draw_until(num_needed, accept, "even", lambda: "", draw, now)


@final
@dataclass(frozen=True)
class OwnDraw(Curator):
    """Hands on images that it has drawn by other means, and drops all candidates but one."""

    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        candidate = draw(3).take(torch.tensor([2]), because="a candidate")
        own = now.sample(draw.model, num_needed - 1, Role.CURATE).take(torch.arange(num_needed - 1), because="my own")
        return Pool.concat([candidate, own])


def ledger_of(bench: Bench, curator: Curator, num_needed: int) -> Ledger:
    """What a generation writes down about a curator, on a pool of the real images with a weight for each."""
    sampler, now = bench.setting.sampler, bench.now
    draw = sampler.stream(bench.model, now, num_needed)  # type: ignore[attr-defined]
    kept = curator.curate(draw, num_needed, now)
    real = bench.setting.real
    return now.ledger(real, torch.arange(1.0, len(real) + 1), None, draw.candidates, kept, curator)


def test_a_curator_that_draws_in_several_rounds_is_told_whole(tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(30), generation=1, first=None)
    images = ledger_of(bench, EvenOnes(), 10).images
    even = images["seed"] % 2 == 0
    assert len(images) == bench.now.spent.candidates > 10
    assert images["drawn"].all()
    assert images["num_kept"].sum() == 10
    assert set(images.loc[~even, "because"]) == {"not kept by EvenOnes"}
    # Even ones that came after the quota was full are dropped by the same rule.
    assert images.loc[even, "num_kept"].tolist() == [1] * 10 + [0] * (int(even.sum()) - 10)
    assert images["image_id"].is_monotonic_increasing


def test_images_that_a_curator_drew_by_other_means_are_no_candidates(tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(30), generation=1)
    images = ledger_of(bench, OwnDraw(), 5).images
    fates = rows(images, "drawn", "num_kept", "because")
    assert fates == [(True, 0, "not kept by OwnDraw")] * 2 + [(True, 1, "a candidate")] + [(False, 1, "my own")] * 4


def test_weights_are_shares_of_the_sampling_probability(tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(4), generation=1)
    trained = ledger_of(bench, EvenOnes(), 2).trained
    assert trained["weight"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rows(trained, "image_id", "born", "source") == [(k, REAL, "listed") for k in range(4)]


def test_the_ledger_of_a_chain_lists_the_real_pool_the_candidates_and_the_pools(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *TINY_GAUSSIAN, "regime=augment", "mitigation=random_subset")
    for t, record in enumerate(chain.records):
        images, trained = tables(chain.run_dir, t)
        kept = Pool.load(chain.run_dir.generation(t) / "kept.safetensors")
        real = images[images["born"] == REAL]
        candidates = images[images["born"] == t]
        assert len(real) == (22 if t == 0 else 0)
        assert set(real["because"]) <= {"real"}
        assert len(real) + len(candidates) == len(images)
        assert len(candidates) == record.spent.candidates == 44
        assert candidates.loc[candidates["num_kept"] == 1, "seed"].tolist() == kept.seed.tolist()
        assert set(candidates["because"]) == {RandomSubset.reason, "not kept by RandomSubset"}
        pool = chain.pool(t)
        assert trained["image_id"].tolist() == pool.image_id.tolist()
        assert trained["label"].tolist() == pool.labels.tolist()
        shares = trained.groupby("born")["weight"].sum()
        assert shares.tolist() == pytest.approx(list(record.train_shares.values()))


def test_the_ledger_sees_an_origin_that_the_scenario_hides(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *TINY_GAUSSIAN, "regime=contaminate", "regime.frac_synthetic=0.5")
    for t, record in enumerate(chain.records):
        _, trained = tables(chain.run_dir, t)
        assert trained["born"].value_counts().to_dict() == ({REAL: 22} if t == 0 else {REAL: 11, t - 1: 11})
        assert sum(record.train_pool.values()) == len(trained)


def test_a_run_killed_in_a_commit_resumes_to_the_ledger_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*TINY_GAUSSIAN, "regime=accumulate", "mitigation=random_subset")
    whole = FinishedChain(tmp_path / "whole", *options)
    save = Ledger.save

    def save_and_die(self: Ledger, folder: Path) -> None:
        save(self, folder)
        if folder.name == "gen_002.tmp":
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(chain_module.Ledger, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            FinishedChain(tmp_path / "killed", *options)
    assert RunDir(tmp_path / "killed" / "run").generations() == [0, 1]
    resumed = FinishedChain(tmp_path / "killed", *options)
    assert_equal_chains(whole, resumed)
    for t in range(4):
        for name in (IMAGES, TRAINED):
            contents = [(chain.run_dir.generation(t) / name).read_bytes() for chain in (whole, resumed)]
            assert contents[0] == contents[1]


def test_the_ledger_changes_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = (*TINY_GAUSSIAN, "regime=accumulate_subsample", "mitigation=random_subset")
    with_ledger = FinishedChain(tmp_path / "with", *options)
    with monkeypatch.context() as without:
        without.setattr(Pool, "table", lambda self: None)
        without.setattr(Now, "ledger", lambda *_: None)
        without.setattr(chain_module.Chain, "commit", _commit_without_ledger)
        without_ledger = FinishedChain(tmp_path / "without", *options)
    assert not (without_ledger.run_dir.generation(0) / IMAGES).exists()
    assert_equal_chains(with_ledger, without_ledger)


_COMMIT = chain_module.Chain.commit


def _commit_without_ledger(self: chain_module.Chain, record: object, ledger: None, **rest: object) -> object:
    assert ledger is None
    return _COMMIT(self, record, _NoLedger(), **rest)  # type: ignore[arg-type]


class _NoLedger:
    def save(self, folder: Path) -> None:
        pass


def test_a_curator_of_a_run_is_named_in_what_it_dropped(tmp_path: Path) -> None:
    parts = parts_of({**composed(*TINY_GAUSSIAN), "metrics": {}}, tmp_path / "store")
    parts = replace(parts, mitigation=Mitigation(NoSteering(), EqualWeights(), NoRefinement(), EvenOnes()))
    with opened_run_dir(tmp_path / "run") as run_dir:
        run_generations(parts, 0, run_dir)
    for t in range(4):
        images, _ = tables(run_dir, t)
        assert set(images.loc[images["num_kept"] == 0, "because"]) == {"not kept by EvenOnes"}
