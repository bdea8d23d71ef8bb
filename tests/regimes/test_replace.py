from pathlib import Path

import torch
from chains import TINY_GAUSSIAN, FinishedChain
from safetensors.torch import load_file

REPLACE = (*TINY_GAUSSIAN, "regime=replace")


def test_only_the_last_samples_are_trained_on(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *REPLACE)
    assert chain.train_pools == [{"real": 22}, {"gen_000": 22}, {"gen_001": 22}, {"gen_002": 22}]
    assert torch.equal(chain.pool(3).images, chain.now(3).chain.kept(2).images)


def test_the_size_of_the_pool_is_that_of_the_samples(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *REPLACE, "budget.num_synthetic=5")
    assert [sum(pool.values()) for pool in chain.train_pools] == [22, 5, 5, 5]


def test_a_gaussian_by_hand(tmp_path: Path) -> None:
    """The mean of a generation is the mean of the samples before it."""
    chain = FinishedChain(tmp_path, *REPLACE)
    for t in (1, 2, 3):
        mean = load_file(chain.run_dir.generation(t) / "fitted.safetensors")["mean"]
        samples = chain.now(t).chain.kept(t - 1).images.flatten(1).double()
        torch.testing.assert_close(mean, samples.mean(0), rtol=1e-6, atol=1e-9)
