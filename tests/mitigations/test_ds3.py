from pathlib import Path

import pytest
import torch
from curating import PIXELS, Bench, noise, points

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.ds3 import DS3, nearest_clusters


def curator(
    candidates_per_kept: float = 2.0, num_clusters: int = 3, reference_classes: tuple[int, ...] | None = None
) -> DS3:
    return DS3(
        candidates_per_kept=candidates_per_kept,
        features=PIXELS,
        reference_classes=reference_classes,
        num_clusters=num_clusters,
    )


def test_nearest_clusters_by_hand() -> None:
    line = torch.tensor([[0.0], [2.0], [10.0], [13.0], [30.0]])
    centres, real = torch.tensor([[1.0], [11.0], [30.0]]), torch.tensor([[12.0], [27.0]])
    # Clusters lie 11, 1 and 3 from a real image: the second one first, then the third, then the first.
    assert nearest_clusters(line, centres, real, 5).tolist() == [2, 3, 4, 0, 1]
    # Of a cluster that is kept in part, the nearest to its centre.
    assert nearest_clusters(line, centres, real, 1).tolist() == [2]


def test_whole_clusters_near_real_images_are_kept(tmp_path: Path) -> None:
    images = points(1, 2, 3, 100, 101, 102, 200, 201, 202)
    bench = Bench(tmp_path, images, real=points(2, 204), real_labels=[0, 1])
    assert bench.kept(curator(1.5), 6) == [0, 1, 2, 6, 7, 8]
    assert bench.kept(curator(3.0, reference_classes=(1,)), 3) == [6, 7, 8]
    assert bench.now.spent.real_images_seen["reference"] == 1


def test_with_no_more_candidates_than_needed_it_is_the_control(tmp_path: Path) -> None:
    Bench(tmp_path, noise(10), real=noise(30, seed=1)).assert_equals_control(curator(1), 10)


def test_no_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_clusters"):
        curator(num_clusters=0)
