"""What the selecting curators share."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from curating import PIXELS, Bench, noise

from collapse_bench.encoders.base import Encoder, FittedEncoder
from collapse_bench.encoders.pixels import Pixels
from collapse_bench.errors import ConfigError, SelectionError
from collapse_bench.mitigations.centre_matching import CentreMatching
from collapse_bench.mitigations.farthest_point import FarthestPoint
from collapse_bench.mitigations.selection import (
    check_real,
    draw_until,
    highest,
    k_means,
    nearest,
    real_subset,
    shares,
)
from collapse_bench.pool import Pool
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec


def test_shares_by_hand() -> None:
    assert shares(torch.tensor([50, 30, 20]), 10).tolist() == [5, 3, 2]
    # 3.33 each: the first one gets the image that is left.
    assert shares(torch.tensor([7, 7, 7]), 10).tolist() == [4, 3, 3]
    # 0.9, 4.5 and 3.6 of 9: remainders 0.9 and 0.6 get the two that are left.
    assert shares(torch.tensor([1, 5, 4]), 9).tolist() == [1, 4, 4]


def test_shares_never_exceed_what_there_is() -> None:
    rng = torch.Generator().manual_seed(0)
    for _ in range(100):
        counts = torch.randint(0, 9, (6,), generator=rng) + torch.tensor([1, 0, 0, 0, 0, 0])
        total = int(torch.randint(0, int(counts.sum()) + 1, (), generator=rng))
        quotas = shares(counts, total)
        assert quotas.sum() == total
        assert (quotas <= counts).all()


def test_of_equal_scores_the_first_are_highest() -> None:
    assert highest(torch.tensor([1.0, 3.0, 3.0, 3.0, 2.0]), 3).tolist() == [1, 2, 3]


def test_k_means_finds_clusters_and_never_more_than_there_are_points() -> None:
    line = torch.tensor([[0.0], [1.0], [10.0], [11.0], [12.0]])
    assert sorted(k_means(line, 2, seed=0).flatten().tolist()) == [0.5, 11.0]
    assert len(k_means(torch.zeros(5, 2), 3, seed=0)) == 1
    assert torch.equal(k_means(line, 3, seed=2**61), k_means(line, 3, seed=2**61))


def test_nearest_by_hand() -> None:
    distances, positions = nearest(torch.tensor([[0.0], [7.0]]), torch.tensor([[1.0], [5.0]]))
    assert distances.tolist() == [1.0, 2.0]
    assert positions.tolist() == [0, 1]


@dataclass(frozen=True)
class Network(Encoder):
    """Pixels, as a network would see them."""

    def fit(self, real: Pool, spec: ImageSpec, options: TrainerOptions, store: Store) -> FittedEncoder:
        fitted = PIXELS.fit(real, spec, options, store)
        fitted.num_networks = 1
        return fitted


@pytest.mark.parametrize(("encoder", "per_candidate"), [(PIXELS, 0), (Network(), 1)], ids=["pixels", "network"])
def test_networks_that_look_at_candidates_are_metered(encoder: Encoder, per_candidate: int, tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(20), real=noise(7, seed=1))
    curator = CentreMatching(candidates_per_kept=2, features=encoder, reference_classes=None)
    bench.curate(curator, 10)
    assert bench.now.spent.judging_evaluations == 20 * per_candidate


@pytest.mark.parametrize(("num_components", "num_seen"), [(2, 7), (None, 0)])
def test_real_images_are_metered_where_features_are_learnt_from_them(
    num_components: int | None, num_seen: int, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, noise(20), real=noise(7, seed=1))
    bench.curate(FarthestPoint(candidates_per_kept=2, features=Pixels(num_components)), 10)
    assert bench.now.spent.real_images_seen["encoder"] == num_seen


def test_what_is_learnt_of_a_slice_is_another_where_the_features_are(tmp_path: Path) -> None:
    """Features are learnt from all trusted images, which differ here outside the class that is the reference."""
    curator = CentreMatching(candidates_per_kept=2, features=Pixels(2), reference_classes=(0,))
    keys = []
    for other in (1, 2):
        real = torch.cat([noise(10, seed=0), noise(10, seed=other)])
        bench = Bench(tmp_path, noise(20), real=real, real_labels=[0] * 10 + [1] * 10)
        bench.curate(curator, 10)
        keys.append(bench.now.spent.artefact_keys["reference"])
    assert keys[0] != keys[1]


def test_a_real_subset_is_the_same_at_every_generation(tmp_path: Path) -> None:
    subsets = [real_subset(5, "verifier", Bench(tmp_path, noise(20), generation=t).now).image_id for t in (0, 3)]
    assert torch.equal(*subsets)
    now = Bench(tmp_path, noise(20)).now
    assert not torch.equal(subsets[0], real_subset(5, "anchors", now).image_id)
    assert len(real_subset(None, "anchors", now)) == 20


def test_more_real_images_than_are_known_to_be_real_are_refused(tmp_path: Path) -> None:
    setting = Bench(tmp_path, noise(20)).setting
    check_real(setting, 20)
    with pytest.raises(ConfigError, match="looks at 21 real images, and 20 are known"):
        check_real(setting, 21)


def test_one_rejection_costs_one_candidate(tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(200))
    draw = bench.setting.sampler.stream(bench.model, bench.now, 100)  # type: ignore[attr-defined]

    def all_but_the_third(pool: Pool) -> torch.Tensor:
        return (pool.seed != bench.model.first_seed + 2).nonzero().flatten()

    kept = draw_until(100, all_but_the_third, "good", lambda: "", draw, bench.now)
    assert (kept.seed - bench.model.first_seed).tolist() == [0, 1, *range(3, 101)]
    assert draw.num_drawn == 101


def test_what_is_rare_is_looked_for_in_growing_draws(tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(200), max_candidates=200)
    draw = bench.setting.sampler.stream(bench.model, bench.now, 1)  # type: ignore[attr-defined]
    looks = []

    def the_last(pool: Pool) -> torch.Tensor:
        looks.append(len(pool))
        return (pool.seed == bench.model.first_seed + 199).nonzero().flatten()

    assert len(draw_until(1, the_last, "rare", lambda: "", draw, bench.now)) == 1
    assert looks == [1, 2, 4, 8, 16, 32, 64, 73], "the last one is what the budget leaves of 128"


def test_drawing_until_the_quota_is_met_stops_there_or_says_why_it_cannot(tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(40), max_candidates=4)
    draw = bench.setting.sampler.stream(bench.model, bench.now, 10)  # type: ignore[attr-defined]
    kept = draw_until(10, lambda pool: (pool.seed % 2 == 0).nonzero().flatten(), "even", lambda: "", draw, bench.now)
    assert len(kept) == 10
    assert (kept.seed % 2 == 0).all()
    assert draw.num_drawn <= 22
    draw = bench.setting.sampler.stream(bench.model, bench.now, 10)  # type: ignore[attr-defined]
    with pytest.raises(SelectionError, match=r"generation 0: 0 of 40 candidates were kept, 10 are needed.*do this"):
        draw_until(10, lambda pool: torch.tensor([], dtype=torch.int64), "none", lambda: "do this", draw, bench.now)
