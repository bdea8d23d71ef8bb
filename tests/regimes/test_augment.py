from pathlib import Path

import pytest
import torch
from chains import TINY_GAUSSIAN, FinishedChain, assert_equal_chains

from collapse_bench.errors import ConfigError
from collapse_bench.pool import REAL
from collapse_bench.regimes.augment import Augment

AUGMENT = (*TINY_GAUSSIAN, "regime=augment")


@pytest.mark.parametrize(("per_real", "num_synthetic"), [(0.5, 11), (1.0, 22), (2.0, 44)])
def test_the_real_pool_and_so_many_samples_of_the_last_generation_alone(
    per_real: float, num_synthetic: int, tmp_path: Path
) -> None:
    chain = FinishedChain(tmp_path, *AUGMENT, f"regime.synthetic_per_real={per_real}")
    assert chain.train_pools == [
        {"real": 22},
        *({"real": 22, f"gen_{t:03d}": num_synthetic} for t in range(3)),
    ]


def test_the_whole_real_pool_comes_first_and_the_samples_are_those_handed_on(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *AUGMENT, "regime.synthetic_per_real=0.5")
    pool, handed_on = chain.pool(3), chain.now(3).chain.kept(2)
    assert torch.equal(pool.images[:22], chain.parts.setting.real.images)
    assert (pool.born == torch.tensor([REAL] * 22 + [2] * 11)).all()
    assert set(pool.image_id[22:].tolist()) < set(handed_on.image_id.tolist())


def test_without_samples_it_is_the_real_arm(tmp_path: Path) -> None:
    arm = FinishedChain(tmp_path / "a", *AUGMENT, "regime.synthetic_per_real=0")
    assert_equal_chains(arm, FinishedChain(tmp_path / "b", *TINY_GAUSSIAN, "regime=real"))


def test_fewer_than_no_samples_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"regime\.synthetic_per_real must not be negative, got -1"):
        Augment(synthetic_per_real=-1)
