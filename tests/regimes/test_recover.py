from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain, assert_equal_chains

from collapse_bench.errors import ConfigError
from collapse_bench.regimes.recover import Recover

RECOVER = (*TINY_GAUSSIAN, "regime=recover")


def test_real_images_come_back_after_the_collapse(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *RECOVER, "regime.num_collapsing=2")
    assert chain.train_pools == [{"real": 22}, {"gen_000": 22}, {"gen_001": 22}, {"real": 22}]
    assert torch.equal(chain.pool(3).images, chain.parts.setting.real.images)


def test_a_fraction_of_them_comes_back_beside_samples(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *RECOVER, "regime.num_collapsing=1", "regime.frac_real=0.25")
    # 22 / 4 is 5.5, which rounds to the even number.
    assert chain.train_pools[2:] == [{"real": 6, "gen_001": 16}, {"real": 6, "gen_002": 16}]


def test_the_pool_after_the_collapse_has_the_size_of_the_real_pool(tmp_path: Path) -> None:
    few = ("budget.num_synthetic=4", "regime.num_collapsing=1", "regime.frac_real=0.5")
    chain = FinishedChain(tmp_path, *RECOVER, *few)
    assert chain.train_pools[1:] == [{"gen_000": 4}, {"real": 11, "gen_001": 11}, {"real": 11, "gen_002": 11}]


def test_without_a_collapse_it_is_mix(tmp_path: Path) -> None:
    recovered = FinishedChain(tmp_path / "a", *RECOVER, "regime.num_collapsing=0", "regime.frac_real=0.5")
    assert_equal_chains(recovered, FinishedChain(tmp_path / "b", *TINY_GAUSSIAN, "regime=mix"))


def test_without_a_recovery_it_is_replace(tmp_path: Path) -> None:
    recovered = FinishedChain(tmp_path / "a", *RECOVER, "regime.num_collapsing=3")
    assert_equal_chains(recovered, FinishedChain(tmp_path / "b", *TINY_GAUSSIAN, "regime=replace"))


def test_a_warm_model_recovers_from_the_collapsed_one_and_a_model_from_scratch_from_nothing(tmp_path: Path) -> None:
    models = {}
    for start in ("warm", "scratch"):
        overrides = (*TINY, *TINY_FLOW, "regime=recover", "regime.num_collapsing=1", f"generator.start={start}")
        chain = FinishedChain(tmp_path / start, *overrides)
        assert chain.train_pools == [{"real": 64}, {"gen_000": 40}, {"real": 64}]
        models[start] = (chain.run_dir.generation(2) / "fitted.safetensors").read_bytes()
    assert models["warm"] != models["scratch"]


@pytest.mark.parametrize(
    ("num_collapsing", "frac_real", "words"),
    [(-1, 1.0, "regime.num_collapsing must not be negative, got -1"), (1, 1.5, "regime.frac_real must lie in")],
)
def test_arguments_out_of_range_are_refused(num_collapsing: int, frac_real: float, words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Recover(num_collapsing, frac_real)
    assert words in str(refusal.value)
