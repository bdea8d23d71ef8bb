from pathlib import Path

import pytest
import torch
from chains import (
    TINY,
    TINY_FLOW,
    TINY_GAUSSIAN,
    FinishedChain,
    assert_equal_chains,
    composed,
    opened_run_dir,
    parts_of,
)

from collapse_bench.errors import ConfigError
from collapse_bench.loop import run_generations
from collapse_bench.pool import REAL
from collapse_bench.regimes.fresh import Fresh

FRESH = (*TINY_GAUSSIAN, "regime=fresh")


def real_ids(chain: FinishedChain, generation: int) -> list[int]:
    pool = chain.pool(generation)
    return pool.image_id[pool.born == REAL].tolist()


def test_new_real_images_come_every_generation_beside_the_samples(tmp_path: Path) -> None:
    overrides = ("regime.num_initial=10", "regime.num_fresh=4", "budget.num_synthetic=7")
    assert FinishedChain(tmp_path, *FRESH, *overrides).train_pools == [
        {"real": 10},
        {"real": 4, "gen_000": 7},
        {"real": 4, "gen_001": 7},
        {"real": 4, "gen_002": 7},
    ]


def test_no_real_image_is_trained_on_in_two_generations(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *FRESH, "regime.num_initial=10", "regime.num_fresh=4")
    seen = [image for t in range(4) for image in real_ids(chain, t)]
    assert sorted(seen) == sorted(chain.parts.setting.real.image_id.tolist())


def test_deciding_parts_know_the_images_of_generation_0_and_none_that_arrive_later(tmp_path: Path) -> None:
    for seed in (0, 1):
        chain = FinishedChain(tmp_path / str(seed), *FRESH, "regime.num_initial=10", seed=seed)
        assert chain.parts.setting.trusted.image_id.tolist() == real_ids(chain, 0)
    verifier = (
        "mitigation=verifier",
        "generator.conditional=true",
        "mitigation.curator.discriminator.num_steps=4",
        "budget.num_generations=1",
    )
    tiny = (*TINY, *TINY_FLOW, *verifier, "regime=fresh", "regime.num_initial=32")
    chain = FinishedChain(tmp_path / "verified", *tiny, seed=1)
    spent = chain.records[0].spent
    assert spent.real_images["verifier"] == spent.real_images["generator"]
    assert spent.real_images_seen["verifier"] == 32


def test_what_deciding_parts_know_is_a_matter_of_the_seed_that_runs(tmp_path: Path) -> None:
    seen = []
    for seed in (0, 1):  # the parts of one seed, run with another
        parts = parts_of(composed(*TINY, *TINY_FLOW, "regime=fresh", "mitigation=watermark"), tmp_path / "store")
        with opened_run_dir(tmp_path / str(seed)) as run_dir:
            spent = run_generations(parts, seed, run_dir)[0].spent
        assert spent.real_images["watermark_0_0.4"] == spent.real_images["generator"]
        seen.append(spent.real_images["watermark_0_0.4"])
    assert seen[0] != seen[1]


def test_more_real_images_than_have_arrived_are_refused(tmp_path: Path) -> None:
    cell = (
        *TINY,
        *TINY_FLOW,
        "regime=fresh",
        "mitigation=verifier",
        "generator.conditional=true",
        "mitigation.curator.num_real=33",
    )
    with pytest.raises(ConfigError, match="looks at 33 real images, and 32 are known to be real"):
        parts_of(composed(*cell), tmp_path)


def test_the_order_of_the_real_images_is_the_runs_own(tmp_path: Path) -> None:
    overrides = (*FRESH, "regime.num_initial=10", "regime.num_fresh=4")
    chains = [FinishedChain(tmp_path / name, *overrides, seed=seed) for name, seed in (("a", 0), ("b", 1))]
    assert real_ids(chains[0], 1) != real_ids(chains[1], 1)
    # With fewer fresh images the initial ones are the same.
    fewer = FinishedChain(tmp_path / "c", *FRESH, "regime.num_initial=10", "regime.num_fresh=2")
    assert real_ids(fewer, 0) == real_ids(chains[0], 0)
    assert sorted(real_ids(fewer, 1) + real_ids(fewer, 2)) == sorted(real_ids(chains[0], 1))


def test_by_default_half_is_initial_and_the_rest_is_dealt_equally(tmp_path: Path) -> None:
    # 22 = 11 + 3 * 3 + 2 that are never seen.
    chain = FinishedChain(tmp_path, *FRESH)
    assert [pool["real"] for pool in chain.train_pools] == [11, 3, 3, 3]


def test_the_whole_pool_at_first_and_nothing_fresh_is_replace(tmp_path: Path) -> None:
    fresh = FinishedChain(tmp_path / "a", *FRESH, "regime.num_initial=22", "regime.num_fresh=0")
    assert_equal_chains(fresh, FinishedChain(tmp_path / "b", *TINY_GAUSSIAN, "regime=replace"))


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (("regime.num_initial=10", "regime.num_fresh=5"), "10 real images at generation 0 and 5 new ones in each of 3"),
        (
            ("regime.num_initial=22",),
            "22 real images at generation 0 and 1 new ones in each of 3",
        ),
        (("regime.num_initial=30", "regime.num_fresh=0"), "30 in all, and the real pool has 22"),
    ],
)
def test_a_real_pool_that_would_run_out_is_refused_before_anything_is_trained(
    arguments: tuple[str, ...], needs: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refusal:
        parts_of(composed(*FRESH, *arguments), tmp_path / "store")
    assert needs in str(refusal.value)
    for remedy in ("regime.num_initial", "regime.num_fresh", "budget.num_generations", "dataset.num_real"):
        assert remedy in str(refusal.value)
    assert not (tmp_path / "store").exists()


def test_a_pool_that_is_used_up_to_the_last_image_is_enough(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *FRESH, "regime.num_initial=4", "regime.num_fresh=6")
    assert torch.cat([chain.pool(t).born for t in range(4)]).eq(REAL).sum() == 22


@pytest.mark.parametrize(
    ("num_initial", "num_fresh", "words"),
    [(0, 1, "regime.num_initial must be at least 1"), (1, -1, "regime.num_fresh must not be negative")],
)
def test_arguments_out_of_range_are_refused(num_initial: int, num_fresh: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Fresh(num_initial, num_fresh)
