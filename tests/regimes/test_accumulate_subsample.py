from pathlib import Path

import pytest
import torch
from chains import TINY_GAUSSIAN, FinishedChain, assert_equal_chains

from collapse_bench.errors import ConfigError
from collapse_bench.regimes.accumulate_subsample import AccumulateSubsample

SUBSAMPLE = (*TINY_GAUSSIAN, "regime=accumulate_subsample")


def test_the_size_stays_and_every_generation_may_be_in_it(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *SUBSAMPLE)
    assert [sum(pool.values()) for pool in chain.train_pools] == [22, 22, 22, 22]
    assert list(chain.train_pools[3]) == ["real", "gen_000", "gen_001", "gen_002"]


def test_images_are_a_part_of_what_accumulate_has_without_repetition(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *SUBSAMPLE)
    now = chain.now(3)
    everything = torch.cat([now.setting.real.image_id, *(now.chain.kept(t).image_id for t in range(3))])
    chosen = chain.pool(3).image_id
    assert len(chosen.unique()) == 22
    assert torch.isin(chosen, everything).all()


@pytest.mark.slow
def test_every_image_is_drawn_as_often_as_any_other(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *SUBSAMPLE)
    num_draws = 600
    counts: dict[str, int] = {}
    for seed in range(num_draws):
        now = chain.now(3)
        now.seed = seed
        for name, count in chain.parts.regime.mix(now).counts_by_birth().items():
            counts[name] = counts.get(name, 0) + count
    # The count of a quarter is hypergeometric: 22 of 88, of which 22 count.
    deviation = (22 * 0.25 * 0.75 * 66 / 87 * num_draws) ** 0.5
    assert len(counts) == 4
    assert all(abs(count - num_draws * 22 / 4) < 4 * deviation for count in counts.values())


def test_every_generation_draws_anew(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *SUBSAMPLE)
    real = [pool.image_id[pool.born == -1].tolist() for pool in (chain.pool(1), chain.pool(2))]
    assert real[0] != real[1]


def test_a_size_that_nothing_exceeds_is_accumulate(tmp_path: Path) -> None:
    subsampled = FinishedChain(tmp_path / "a", *SUBSAMPLE, "regime.num_images=88")
    accumulated = FinishedChain(tmp_path / "b", *TINY_GAUSSIAN, "regime=accumulate")
    assert_equal_chains(subsampled, accumulated)


def test_the_size_can_be_chosen_and_generation_0_has_all_real_images(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *SUBSAMPLE, "regime.num_images=5")
    assert [sum(pool.values()) for pool in chain.train_pools] == [22, 5, 5, 5]


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"regime\.num_images must be at least 1 .* got 0"):
        AccumulateSubsample(num_images=0)
