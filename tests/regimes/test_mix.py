from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain, assert_equal_chains, composed, parts_of

from collapse_bench.errors import ConfigError
from collapse_bench.pool import REAL
from collapse_bench.regimes.mix import Mix

MIX = (*TINY_GAUSSIAN, "regime=mix")


def real_ids(chain: FinishedChain, generation: int) -> list[int]:
    pool = chain.pool(generation)
    return pool.image_id[pool.born == REAL].tolist()


@pytest.mark.parametrize(("fraction", "num_real"), [(0.0, 0), (0.1, 2), (0.5, 11), (1.0, 22)])
def test_a_fraction_is_real_and_the_rest_is_of_the_previous_generation(
    fraction: float, num_real: int, tmp_path: Path
) -> None:
    chain = FinishedChain(tmp_path, *MIX, f"regime.frac_real={fraction}")
    for t in (1, 2, 3):
        expected = {"real": num_real, f"gen_{t - 1:03d}": 22 - num_real}
        assert chain.train_pools[t] == {name: count for name, count in expected.items() if count}


def test_the_size_is_that_of_the_real_pool_whatever_a_generation_hands_on(tmp_path: Path) -> None:
    for number in (3, 100):
        chain = FinishedChain(tmp_path / str(number), *MIX, f"budget.num_synthetic={number}")
        assert chain.train_pools[1:] == [{"real": 11, f"gen_{t:03d}": 11} for t in range(3)]


def test_real_images_are_drawn_anew_every_generation(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *MIX)
    drawn = [real_ids(chain, t) for t in (1, 2, 3)]
    assert len({tuple(ids) for ids in drawn}) == 3
    assert all(len(set(ids)) == 11 for ids in drawn)


def test_real_images_stay_where_they_are_not_redrawn_and_depend_on_the_seed(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path / "a", *MIX, "regime.redraw_real=false")
    assert real_ids(chain, 1) == real_ids(chain, 2) == real_ids(chain, 3)
    other = FinishedChain(tmp_path / "b", *MIX, "regime.redraw_real=false", seed=1)
    assert real_ids(chain, 1) != real_ids(other, 1)


def test_all_real_is_the_real_arm(tmp_path: Path) -> None:
    mixed = FinishedChain(tmp_path / "a", *MIX, "regime.frac_real=1.0")
    assert_equal_chains(mixed, FinishedChain(tmp_path / "b", *TINY_GAUSSIAN, "regime=real"))


def test_nothing_real_is_replace(tmp_path: Path) -> None:
    mixed = FinishedChain(tmp_path / "a", *MIX, "regime.frac_real=0.0")
    assert_equal_chains(mixed, FinishedChain(tmp_path / "b", *TINY_GAUSSIAN, "regime=replace"))


def test_unquantised_samples_are_mixed_with_real_images_on_one_scale(tmp_path: Path) -> None:
    pictures = ("dataset=digits", "dataset.num_real=22", "generator.covariance=diagonal", "budget.num_generations=1")
    chain = FinishedChain(tmp_path, *[o for o in MIX if "dataset." not in o], *pictures)
    pool = chain.pool(1)
    assert pool.images.dtype == torch.float32
    assert pool.images[pool.born == REAL].abs().max() == 1


@pytest.mark.parametrize(
    ("regime", "arguments"),
    [
        ("mix", ("regime.frac_real=0.005",)),
        ("recover", ("regime.frac_real=0.005", "regime.num_collapsing=0")),
        ("contaminate", ("regime.frac_synthetic=0.995", "regime.num_trusted=8")),
    ],
)
def test_a_fraction_that_rounds_to_no_real_image_keeps_none(
    regime: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """0.005 of 64 images are none, and what needs real images is refused before training."""
    cell = (*TINY, *TINY_FLOW, f"regime={regime}", *arguments)
    nothing_synthetic = ("mitigation=provenance_weight", "mitigation.weigher.synthetic_weight=0")
    with pytest.raises(ConfigError, match="leaves real images only, and this regime trains on none"):
        parts_of(composed(*cell, *nothing_synthetic), tmp_path)
    one = [option.replace("0.005", "0.01").replace("0.995", "0.99") for option in cell]
    assert parts_of(composed(*one, *nothing_synthetic), tmp_path).setting.keeps_real


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_outside_0_and_1_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"regime\.frac_real must lie in \[0, 1\]"):
        Mix(fraction, redraw_real=True)
