from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, FinishedChain
from curating import Bench, noise

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.anchoring import Anchoring, local_moments, match_locally


def curator(strength: float = 1.0, num_anchors: int = 4, num_neighbours: int = 2) -> Anchoring:
    return Anchoring(strength=strength, num_anchors=num_anchors, num_neighbours=num_neighbours)


def test_local_moments_by_hand() -> None:
    mean, spread = local_moments(torch.tensor([[1.0], [9.0]]), torch.tensor([[0.0], [4.0], [8.0], [20.0]]), 2)
    assert mean.flatten().tolist() == [2.0, 6.0]
    assert spread.flatten().tolist() == [2.0, 2.0]


def test_matching_by_hand() -> None:
    # 10 and 12 have mean 11 and deviation 1; the two nearest anchors of both, 0 and 8, have mean 4 and deviation 4.
    values, anchors = torch.tensor([[10.0], [12.0]]), torch.tensor([[0.0], [8.0], [90.0]])
    assert match_locally(values, anchors, 2).flatten().tolist() == [0.0, 8.0]


def test_collapsed_samples_get_the_mean_of_the_anchors() -> None:
    values = torch.full((5, 3), 7.0)
    assert torch.equal(
        match_locally(values, torch.tensor([[0.0, 2.0, 4.0], [2.0, 4.0, 6.0]]), 2),
        values - 7 + torch.tensor([1.0, 3.0, 5.0]),
    )


def test_shrunk_samples_regain_the_spread_of_the_anchors(tmp_path: Path) -> None:
    real = noise(200, seed=1)
    shrunk = (128 + (noise(60).float() - 128) / 4).to(torch.uint8)
    kept = Bench(tmp_path, shrunk, real=real).curate(curator(num_anchors=200, num_neighbours=20), 60)
    before, after, wanted = (images.float().std(0).mean() for images in (shrunk, kept.images, real))
    assert before < 0.3 * wanted
    assert 0.6 * wanted < after < 1.1 * wanted


def test_half_the_strength_goes_half_the_way(tmp_path: Path) -> None:
    images = noise(10) / 255
    bench = Bench(tmp_path, images, real=noise(20, seed=1) / 255)
    full, half = (bench.curate(curator(strength), 10).images for strength in (1.0, 0.5))
    torch.testing.assert_close(half, (images + full) / 2)


def test_without_strength_it_is_the_control(tmp_path: Path) -> None:
    Bench(tmp_path, noise(10)).assert_equals_control(curator(strength=0.0), 10)


def test_the_anchors_are_the_same_at_every_generation_and_metered(tmp_path: Path) -> None:
    benches = [Bench(tmp_path, noise(10), real=noise(50, seed=1), generation=t) for t in (0, 4)]
    kept = [bench.curate(curator(), 10).images for bench in benches]
    assert torch.equal(*kept)
    assert benches[0].now.spent.real_images_seen == {"anchors": 4}


def test_the_replay_control_trains_on_exactly_the_anchors(tmp_path: Path) -> None:
    """8 anchors of 64 real images, and mix with an eighth of its pool real and always the same."""
    tiny = (*TINY, *TINY_FLOW, "budget.num_generations=1")
    anchored = FinishedChain(tmp_path / "a", *tiny, "mitigation=anchoring", "mitigation.curator.num_anchors=8")
    mix = ("regime=mix", "regime.redraw_real=false", "regime.frac_real=0.125")
    replayed = FinishedChain(tmp_path / "b", *tiny, *mix)
    anchors = anchored.records[0].spent.real_images["anchors"]
    assert replayed.records[1].spent.real_images["generator"] == anchors
    assert replayed.records[1].train_pool["real"] == 8
    assert anchors != FinishedChain(tmp_path / "c", *tiny, *mix, seed=1).records[1].spent.real_images["generator"]


def test_options_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="looks at 11 real images, and 10"):
        curator(num_anchors=11).check(Bench(tmp_path, noise(10)).setting)
    with pytest.raises(ConfigError, match="num_neighbours"):
        curator(num_neighbours=0)
