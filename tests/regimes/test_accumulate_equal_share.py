from pathlib import Path

import torch
from chains import TINY_GAUSSIAN, FinishedChain, assert_equal_chains

EQUAL_SHARE = (*TINY_GAUSSIAN, "regime=accumulate_equal_share")


def test_shares_are_equal_and_the_remainder_goes_to_the_oldest(tmp_path: Path) -> None:
    # 22 = 11 + 11 = 8 + 7 + 7 = 6 + 6 + 5 + 5.
    assert FinishedChain(tmp_path, *EQUAL_SHARE).train_pools == [
        {"real": 22},
        {"real": 11, "gen_000": 11},
        {"real": 8, "gen_000": 7, "gen_001": 7},
        {"real": 6, "gen_000": 6, "gen_001": 5, "gen_002": 5},
    ]


def test_every_generation_draws_anew_and_nothing_twice(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *EQUAL_SHARE)
    pools = [chain.pool(t) for t in (2, 3)]
    assert all(len(pool.image_id.unique()) == 22 for pool in pools)
    first, second = (set(pool.image_id[pool.born == 0].tolist()) for pool in pools)
    assert not second <= first, "6 of 22 that are all among 7 of 22 would be chance of one in 10,000"


def test_a_generation_hands_on_no_less_than_its_first_share(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *EQUAL_SHARE, "budget.num_synthetic=2")
    assert [record.spent.kept for record in chain.records] == [11, 7, 5, 4]
    assert [sum(pool.values()) for pool in chain.train_pools] == [22, 22, 22, 22]


def test_more_generations_than_images_leave_the_youngest_out(tmp_path: Path) -> None:
    overrides = ("dataset.num_real=3", "budget.num_generations=4", "budget.num_synthetic=3")
    chain = FinishedChain(tmp_path, *EQUAL_SHARE, *overrides)
    assert chain.train_pools[4] == {"real": 1, "gen_000": 1, "gen_001": 1}


def test_up_to_generation_1_it_is_mix_with_half_of_the_images_real(tmp_path: Path) -> None:
    one = (*TINY_GAUSSIAN, "budget.num_generations=1")
    shared = FinishedChain(tmp_path / "a", *one, "regime=accumulate_equal_share")
    mixed = FinishedChain(tmp_path / "b", *one, "regime=mix", "regime.frac_real=0.5")
    # What is handed on at the end is for generation 2, which is not there; under both it is the same.
    assert_equal_chains(shared, mixed)
    assert torch.equal(shared.pool(1).image_id, mixed.pool(1).image_id)
