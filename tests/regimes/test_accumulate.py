from pathlib import Path

import torch
from chains import TINY_GAUSSIAN, FinishedChain

ACCUMULATE = (*TINY_GAUSSIAN, "regime=accumulate")


def test_nothing_is_ever_left_out(tmp_path: Path) -> None:
    assert FinishedChain(tmp_path, *ACCUMULATE, "budget.num_synthetic=5").train_pools == [
        {"real": 22},
        {"real": 22, "gen_000": 5},
        {"real": 22, "gen_000": 5, "gen_001": 5},
        {"real": 22, "gen_000": 5, "gen_001": 5, "gen_002": 5},
    ]


def test_a_pool_is_the_one_before_and_what_was_handed_on_since(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *ACCUMULATE)
    before, pool = chain.pool(2), chain.pool(3)
    assert torch.equal(pool.images, torch.cat([before.images, chain.now(3).chain.kept(2).images]))
    assert pool.born.tolist() == [-1] * 22 + [0] * 22 + [1] * 22 + [2] * 22


def test_in_the_first_generation_it_is_augment(tmp_path: Path) -> None:
    chains = [
        FinishedChain(tmp_path / regime, *TINY_GAUSSIAN, f"regime={regime}", "budget.num_generations=1")
        for regime in ("accumulate", "augment")
    ]
    of_accumulate, of_augment = (chain.pool(1) for chain in chains)
    assert sorted(of_accumulate.image_id.tolist()) == sorted(of_augment.image_id.tolist())
