from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain, composed, opened_run_dir, parts_of
from safetensors.torch import load_file

from collapse_bench.assembly import assemble
from collapse_bench.cli.config import build
from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.loop import run_generations
from collapse_bench.mitigations.base import Weigher
from collapse_bench.pool import LivePool
from collapse_bench.seeding import Role, Stream
from collapse_bench.store import Store
from collapse_bench.training import LiveBatches
from collapse_bench.types import to_float

FLOW = (*TINY, *TINY_FLOW, "sampler=euler_20")
ON_THE_FLY = (*FLOW, "regime=replace_on_the_fly")
CPU = torch.device("cpu")


def live_pool(chain: FinishedChain) -> LivePool:
    """The pool of the generation after the last."""
    pool = chain.pool(len(chain.records))
    assert isinstance(pool, LivePool)
    return pool


def fitted(chain: FinishedChain, generation: int) -> bytes:
    return (chain.run_dir.generation(generation) / "fitted.safetensors").read_bytes()


def test_there_is_no_pool_after_generation_0(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *ON_THE_FLY)
    assert chain.train_pools == [{"real": 64}, {"gen_000 live": 0}, {"gen_001 live": 0}]
    assert [r.spent.real_images_seen["generator"] for r in chain.records] == [64, 0, 0]
    assert [r.spent.candidates for r in chain.records] == [40, 40, 40]


def test_what_is_drawn_for_batches_is_counted_also_where_the_fit_is_reused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    chains = [FinishedChain(tmp_path / name, *ON_THE_FLY, store=store) for name in ("a", "b")]
    assert chains[1].records[1].spent.reused == ("fit",)
    for chain in chains:  # 6 steps with batches of 16
        assert [r.spent.other_samples for r in chain.records] == [0, 96, 96]


def test_every_member_of_a_population_draws_batches_of_its_own() -> None:
    generator = build(composed("generator=population")["generator"], "generator")
    assert generator.batch_size == sum(member.batch_size for member in generator.members.values()) > 0


@pytest.mark.parametrize("quantize", ["true", "false"])
def test_batches_are_samples_of_the_parent_by_image_seed_and_none_comes_twice(quantize: str, tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *ON_THE_FLY, "budget.num_generations=1", f"sampler.quantize={quantize}")
    parent, sampler = chain.now(2).chain.model, chain.parts.sampler
    assert isinstance(parent, Model)
    batches = list(LiveBatches(live_pool(chain), batch_size=8, num_batches=3, device=CPU))
    assert len(batches) == 3
    expected, labels = sampler.sample(parent, Stream(0, 2, Role.LIVE).image_seeds(0, 24))
    # Float arithmetic depends on the batch size, and a grey level is 2/255 wide.
    torch.testing.assert_close(torch.cat([x for x, _ in batches]), to_float(expected), rtol=0, atol=0.01)
    assert torch.equal(torch.cat([y for _, y in batches]), labels)
    assert len(torch.cat([x for x, _ in batches]).unique(dim=0)) == 24


def test_the_fit_is_made_again_for_another_parent_or_sampler_and_found_for_the_same(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path / "a", *ON_THE_FLY)
    assert live_pool(chain).content_hash == live_pool(chain).content_hash
    other_parent = FinishedChain(tmp_path / "b", *ON_THE_FLY, "budget.num_steps=7")
    other_sampler = FinishedChain(tmp_path / "c", *ON_THE_FLY, "sampler.temperature=0.9")
    assert len({live_pool(c).content_hash for c in (chain, other_parent, other_sampler)}) == 3
    parts = chain.parts
    with opened_run_dir(tmp_path / "again") as run_dir:
        again = run_generations(parts, 0, run_dir)
    assert [r.spent.reused for r in again] == [("fit",)] * 3
    assert [r.deterministic for r in again] == [r.deterministic for r in chain.records]


def test_a_parent_that_makes_one_image_only_is_replace(tmp_path: Path) -> None:
    # Noise times zero is the same noise for every image, so a pool has nothing that a live pool has not.
    live = FinishedChain(tmp_path / "a", *ON_THE_FLY, "sampler.temperature=0.0")
    pooled = FinishedChain(tmp_path / "b", *FLOW, "regime=replace", "sampler.temperature=0.0")
    for t in range(3):
        assert fitted(live, t) == fitted(pooled, t)


def test_otherwise_it_is_not_replace(tmp_path: Path) -> None:
    live, pooled = FinishedChain(tmp_path / "a", *ON_THE_FLY), FinishedChain(tmp_path / "b", *FLOW, "regime=replace")
    assert fitted(live, 0) == fitted(pooled, 0)
    assert fitted(live, 1) != fitted(pooled, 1)


def test_a_conditional_model_asks_for_the_classes_of_its_parent(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *ON_THE_FLY, "generator.conditional=true")
    shares = [load_file(chain.run_dir.generation(t) / "fitted.safetensors")["label_shares"] for t in range(3)]
    real = chain.parts.setting.real.labels.bincount(minlength=10) / 64
    assert len(real.unique()) > 1
    for share in shares:
        torch.testing.assert_close(share, real.double(), rtol=1e-12, atol=0)


def test_a_resumed_chain_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = FinishedChain(tmp_path / "whole", *ON_THE_FLY)
    setting = replace(whole.parts.setting, store=Store(tmp_path / "empty"))
    short = replace(setting, budget=replace(setting.budget, num_generations=1))
    records = ()
    for part in (short, setting):
        with opened_run_dir(tmp_path / "run") as run_dir:
            records = run_generations(replace(whole.parts, setting=part), 0, run_dir)
    assert [r.deterministic for r in records] == [r.deterministic for r in whole.records]
    assert (run_dir.generation(2) / "fitted.safetensors").read_bytes() == fitted(whole, 2)


class _AnyWeigher(Weigher):
    def weigh(self, train, now):
        raise AssertionError("it was asked")


def test_a_mitigation_is_refused_because_there_is_no_pool_to_act_on(tmp_path: Path) -> None:
    config = composed(*ON_THE_FLY)
    parts = {name: build(config[name], name) for name in ("generator", "sampler", "regime", "mitigation", "encoder")}
    parts["mitigation"] = replace(parts["mitigation"], weigher=_AnyWeigher())
    with pytest.raises(ConfigError, match=r"ReplaceOnTheFly trains on no pool .* mitigation=control"):
        assemble(
            data=build(config["dataset"], "dataset").load(),
            store=Store(tmp_path),
            seed=0,
            **parts,
            **{name: build(config[name], name) for name in ("metrics", "budget", "trainer")},
        )


def test_a_generator_without_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ReplaceOnTheFly draws every batch anew, and Gaussian is fitted without"):
        parts_of(composed(*TINY_GAUSSIAN, "regime=replace_on_the_fly"), tmp_path)
