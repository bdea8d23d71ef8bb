from dataclasses import replace
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
from jaxtyping import Float
from torch import Tensor

from collapse_bench.errors import ConfigError, HiddenColumnError
from collapse_bench.loop import run_generations
from collapse_bench.mitigations.base import Weigher
from collapse_bench.now import Now
from collapse_bench.pool import PROVENANCE, REAL, UNLABELLED, VisiblePool
from collapse_bench.regimes.contaminate import Contaminate

CONTAMINATE = (*TINY_GAUSSIAN, "regime=contaminate")


@pytest.mark.parametrize(("fraction", "num_synthetic"), [(0.1, 2), (0.5, 11), (1.0, 22)])
def test_a_fraction_of_the_real_images_is_replaced(fraction: float, num_synthetic: int, tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *CONTAMINATE, f"regime.frac_synthetic={fraction}", "budget.num_synthetic=3")
    for t in (1, 2, 3):
        expected = {"real": 22 - num_synthetic, f"gen_{t - 1:03d}": num_synthetic}
        assert chain.train_pools[t] == {name: count for name, count in expected.items() if count}


def test_nothing_that_tells_origin_is_visible_in_any_generation(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *CONTAMINATE)
    for t in range(4):
        visible = chain.pool(t).visible()
        assert len(visible.images) == len(visible.labels) == 22
        for column in PROVENANCE:
            with pytest.raises(HiddenColumnError, match=column):
                getattr(visible, column)


def test_samples_stand_in_random_places_and_real_images_in_their_own(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *CONTAMINATE)
    pools = [chain.pool(t) for t in (1, 2)]
    places = [(pool.born != REAL).nonzero().flatten().tolist() for pool in pools]
    assert places[0] != places[1]
    assert all(place not in (list(range(11)), list(range(11, 22))) for place in places)
    real = chain.parts.setting.real
    for pool in pools:
        is_real = pool.born == REAL
        assert torch.equal(pool.images[is_real], real.images[is_real])
        assert len(pool.image_id.unique()) == 22


def test_the_real_images_that_stay_are_drawn_anew_or_are_the_same_ones(tmp_path: Path) -> None:
    for redraw in (True, False):
        chain = FinishedChain(tmp_path / str(redraw), *CONTAMINATE, f"regime.redraw_real={redraw}")
        kept = [set(pool.image_id[pool.born == REAL].tolist()) for pool in (chain.pool(t) for t in (1, 2, 3))]
        assert [len(ids) for ids in kept] == [11, 11, 11]
        assert (kept[0] == kept[1] == kept[2]) is not redraw


def test_labels_stay_where_samples_have_them_and_otherwise_tell_nothing(tmp_path: Path) -> None:
    flow = (*TINY, *TINY_FLOW, "regime=contaminate", "budget.num_generations=1")
    conditional = FinishedChain(tmp_path / "a", *flow, "generator.conditional=true")
    assert (conditional.pool(1).labels != UNLABELLED).all()
    unconditional = FinishedChain(tmp_path / "b", *flow, "generator.conditional=false")
    assert (unconditional.pool(1).labels == UNLABELLED).all()


def test_a_clean_pool_is_the_real_arm(tmp_path: Path) -> None:
    contaminated = FinishedChain(tmp_path / "a", *CONTAMINATE, "regime.frac_synthetic=0.0")
    assert_equal_chains(contaminated, FinishedChain(tmp_path / "b", *TINY_GAUSSIAN, "regime=real"))


class _KeepReal(Weigher):
    def weigh(self, train: VisiblePool, now: Now) -> Float[Tensor, " n"]:
        return (train.born == REAL).double()


def test_a_weigher_that_asks_for_origin_fails_in_generation_0(tmp_path: Path) -> None:
    parts = parts_of(composed(*CONTAMINATE), tmp_path / "store")
    parts = replace(parts, mitigation=replace(parts.mitigation, weigher=_KeepReal()))
    with opened_run_dir(tmp_path / "run") as run_dir, pytest.raises(HiddenColumnError, match="born"):
        run_generations(parts, 0, run_dir)
    assert run_dir.generations() == []


def test_trusted_images_are_real_and_as_many_as_said(tmp_path: Path) -> None:
    parts = parts_of(composed(*CONTAMINATE, "regime.num_trusted=5"), tmp_path / "store")
    assert parts.setting.trusted.image_id.tolist() == parts.setting.real.image_id[:5].tolist()
    none = parts_of(composed(*CONTAMINATE), tmp_path / "store")
    assert len(none.setting.trusted) == 0


def test_other_regimes_trust_the_whole_real_pool(tmp_path: Path) -> None:
    parts = parts_of(composed(*TINY_GAUSSIAN, "regime=mix"), tmp_path / "store")
    assert parts.setting.trusted is parts.setting.real


def test_more_trusted_images_than_real_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"regime\.num_trusted is 23 and the real pool has 22 .* dataset\.num_real"):
        parts_of(composed(*CONTAMINATE, "regime.num_trusted=23"), tmp_path / "store")


@pytest.mark.parametrize(
    ("fraction", "num_trusted", "words"),
    [(1.5, 0, "regime.frac_synthetic must lie in"), (0.5, -1, "regime.num_trusted must not be negative")],
)
def test_arguments_out_of_range_are_refused(fraction: float, num_trusted: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Contaminate(fraction, redraw_real=True, num_trusted=num_trusted)


def test_samples_that_are_told_by_their_fractions_of_grey_levels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Contaminate hides which images are real.*sampler.quantize=false"):
        parts_of(composed(*TINY, *TINY_FLOW, "regime=contaminate", "sampler.quantize=false"), tmp_path)
