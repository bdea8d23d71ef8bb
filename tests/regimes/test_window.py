from pathlib import Path

import pytest
from chains import TINY_GAUSSIAN, FinishedChain, assert_equal_chains, composed, opened_run_dir, parts_of

from collapse_bench.errors import ConfigError
from collapse_bench.loop import run_generations
from collapse_bench.regimes.window import Window

WINDOW = (*TINY_GAUSSIAN, "regime=window")


def test_the_last_pools_are_trained_on_the_oldest_first(tmp_path: Path) -> None:
    assert FinishedChain(tmp_path, *WINDOW, "regime.num_pools=2").train_pools == [
        {"real": 22},
        {"gen_000": 22},
        {"gen_000": 22, "gen_001": 22},
        {"gen_001": 22, "gen_002": 22},
    ]


def test_the_order_is_that_of_the_generations(tmp_path: Path) -> None:
    born = FinishedChain(tmp_path, *WINDOW, "regime.num_pools=2").pool(3).born
    assert born.tolist() == [1] * 22 + [2] * 22


def test_a_window_of_one_is_replace(tmp_path: Path) -> None:
    window = FinishedChain(tmp_path / "a", *WINDOW, "regime.num_pools=1")
    assert_equal_chains(window, FinishedChain(tmp_path / "b", *TINY_GAUSSIAN, "regime=replace"))


def test_no_more_pools_stay_on_the_disk_than_the_window_is_wide(tmp_path: Path) -> None:
    parts = parts_of(composed(*WINDOW, "regime.num_pools=2"), tmp_path / "store")
    with opened_run_dir(tmp_path / "run") as run_dir:
        run_generations(parts, 0, run_dir, keep="last")
    assert [t for t in range(4) if (run_dir.generation(t) / "kept.safetensors").exists()] == [2, 3]


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"regime\.num_pools must be at least 1, got 0"):
        Window(num_pools=0)
