from pathlib import Path

from chains import TINY_GAUSSIAN, FinishedChain

from collapse_bench.regimes.replace_multiple import ReplaceMultiple


def sizes(chain: FinishedChain) -> list[int]:
    return [sum(pool.values()) for pool in chain.train_pools]


def test_all_images_are_of_the_previous_generation(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *TINY_GAUSSIAN, "regime=replace_multiple")
    assert chain.train_pools == [{"real": 22}, {"gen_000": 44}, {"gen_001": 66}, {"gen_002": 88}]


def test_no_image_is_there_twice(tmp_path: Path) -> None:
    pool = FinishedChain(tmp_path, *TINY_GAUSSIAN, "regime=replace_multiple").pool(3)
    assert len(pool.image_id.unique()) == len(pool.images.unique(dim=0)) == 88


def test_there_are_as_many_images_as_under_accumulate_whatever_a_generation_hands_on(tmp_path: Path) -> None:
    for number in ("null", "5", "30"):
        overrides = (*TINY_GAUSSIAN, f"budget.num_synthetic={number}")
        replaced = FinishedChain(tmp_path / number / "replaced", *overrides, "regime=replace_multiple")
        accumulated = FinishedChain(tmp_path / number / "accumulated", *overrides, "regime=accumulate")
        assert sizes(replaced) == sizes(accumulated)


def test_it_looks_at_one_pool() -> None:
    assert ReplaceMultiple().num_pools_needed == 1
