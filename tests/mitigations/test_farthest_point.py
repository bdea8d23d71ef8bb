from pathlib import Path

import torch
from curating import PIXELS, Bench, noise, points

from collapse_bench.mitigations.farthest_point import FarthestPoint, farthest_points


def test_each_point_is_the_farthest_from_those_chosen_before() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0], [6.0], [10.0]])
    # From 2 the farthest is 10, then 6 (4 away; 0 is 2 away), then 0 (2 away), then 1.
    assert farthest_points(line, 5, start=2).tolist() == [2, 4, 3, 0, 1]


def test_it_agrees_with_the_definition_over_all_pairs() -> None:
    cloud = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = [7]
    while len(chosen) < 20:
        chosen.append(int(torch.cdist(cloud, cloud[chosen]).min(1).values.argmax()))
    assert farthest_points(cloud, 20, start=7).tolist() == chosen


def test_copies_are_kept_last_and_none_twice(tmp_path: Path) -> None:
    kept = Bench(tmp_path, points(0, 0, 0, 0, 90, 200)).kept(FarthestPoint(candidates_per_kept=2, features=PIXELS), 3)
    assert len({0, 1, 2, 3} & set(kept)) == 1
    assert {4, 5} < set(kept)
    assert sorted(farthest_points(torch.zeros(6, 2), 6, start=3).tolist()) == list(range(6))


def test_kept_images_are_more_spread_out_than_random_ones(tmp_path: Path) -> None:
    kept = Bench(tmp_path, noise(60)).curate(FarthestPoint(candidates_per_kept=2, features=PIXELS), 30)
    gaps = [torch.pdist(images.float().flatten(1)).sort().values[:10].mean() for images in (kept.images, noise(30))]
    assert gaps[0] > 1.1 * gaps[1]


def test_with_no_more_candidates_than_needed_it_is_the_control(tmp_path: Path) -> None:
    Bench(tmp_path, noise(10)).assert_equals_control(FarthestPoint(candidates_per_kept=1, features=PIXELS), 10)


def test_the_start_depends_on_the_generation(tmp_path: Path) -> None:
    curator = FarthestPoint(candidates_per_kept=10, features=PIXELS)
    assert len({tuple(Bench(tmp_path, noise(10), generation=t).kept(curator, 1)) for t in range(8)}) > 1
