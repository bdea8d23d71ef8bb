"""Centre matching and covariance matching."""

from pathlib import Path

import pytest
import torch
from curating import PIXELS, Bench, noise, points

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.centre_matching import CentreMatching
from collapse_bench.mitigations.covariance_matching import CovarianceMatching
from collapse_bench.mitigations.matching import match_moments

BOTH = pytest.mark.parametrize("kind", [CentreMatching, CovarianceMatching])
Kind = type[CentreMatching] | type[CovarianceMatching]


def curator(
    kind: Kind, candidates_per_kept: float = 2.0, reference_classes: tuple[int, ...] | None = None
) -> CentreMatching | CovarianceMatching:
    return kind(candidates_per_kept=candidates_per_kept, features=PIXELS, reference_classes=reference_classes)


def greedy(moments: torch.Tensor, wanted: torch.Tensor, num: int) -> list[int]:
    """The definition: always the point whose addition brings the mean moment nearest."""
    chosen: list[int] = []
    while len(chosen) < num:
        left = [k for k in range(len(moments)) if k not in chosen]
        chosen.append(min(left, key=lambda k: float((moments[[*chosen, k]].mean(0) - wanted).norm())))
    return chosen


@pytest.mark.parametrize("power", [1, 2])
def test_greedy_matching_agrees_with_its_definition(power: int) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(25, 3, generator=rng, dtype=torch.float64)
    wanted = torch.randn(3, generator=rng, dtype=torch.float64)
    moments = x
    if power == 2:
        wanted = torch.diag(wanted.abs())
        moments = x.unsqueeze(2) * x.unsqueeze(1)
    target = (moments * wanted).flatten(1).sum(1)
    assert match_moments(x, power, target, 12).tolist() == greedy(moments, wanted, 12)


def test_the_centre_by_hand(tmp_path: Path) -> None:
    # The real mean is 100. First 99; then 102 makes the mean 100.5 (90: 94.5); then 90 makes it 97 (150: 117).
    bench = Bench(tmp_path, points(150, 90, 99, 220, 102, 0), real=points(80, 120))
    assert bench.kept(curator(CentreMatching), 3) == [1, 2, 4]


def test_the_covariance_by_hand(tmp_path: Path) -> None:
    # The real variance is 20^2 about 100. First 119 (19^2); 79 makes the mean square 20.02^2, 100 would make it 13.4^2.
    bench = Bench(tmp_path, points(100, 119, 101, 79), real=points(80, 120))
    assert bench.kept(curator(CovarianceMatching), 2) == [1, 3]


@BOTH
def test_it_brings_the_statistic_nearer_than_chance(kind: Kind, tmp_path: Path) -> None:
    real = noise(200, size=2, seed=1)
    candidates = noise(80, size=2)
    kept = Bench(tmp_path, candidates, real=real).curate(curator(kind), 40).images

    def gap(images: torch.Tensor) -> float:
        x, y = images.float().flatten(1), real.float().flatten(1)
        if kind is CentreMatching:
            return float((x.mean(0) - y.mean(0)).norm())
        return float(
            ((x - y.mean(0)).T @ (x - y.mean(0)) / len(x) - (y - y.mean(0)).T @ (y - y.mean(0)) / len(y)).norm()
        )

    assert gap(kept) < 0.5 * gap(candidates[:40])


@BOTH
def test_a_biased_reference_pulls_toward_itself(kind: Kind, tmp_path: Path) -> None:
    real, classes = points(10, 20, 30, 220, 230, 240), [0, 0, 0, 1, 1, 1]
    bench = Bench(tmp_path, points(15, 20, 25, 225, 230, 235), real=real, real_labels=classes)
    assert bench.kept(curator(kind, reference_classes=(1,)), 3) == [3, 4, 5]
    assert bench.now.spent.real_images_seen["reference"] == 3
    assert bench.kept(curator(kind, reference_classes=(0,)), 3) == [0, 1, 2]


@BOTH
def test_with_no_more_candidates_than_needed_it_is_the_control(kind: Kind, tmp_path: Path) -> None:
    Bench(tmp_path, noise(10)).assert_equals_control(curator(kind, candidates_per_kept=1), 10)


@BOTH
def test_a_reference_class_without_images_is_refused(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no real image has the class 3; classes: \[0\]"):
        curator(kind, reference_classes=(0, 3)).check(Bench(tmp_path, noise(4)).setting)
