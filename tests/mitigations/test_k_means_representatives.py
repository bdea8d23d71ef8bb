from pathlib import Path

import pytest
import torch
from curating import PIXELS, Bench, noise, points

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.k_means_representatives import KMeansRepresentatives, representatives


def curator(candidates_per_kept: float = 2.0, num_clusters: int = 2) -> KMeansRepresentatives:
    return KMeansRepresentatives(
        candidates_per_kept=candidates_per_kept, features=PIXELS, reference_classes=None, num_clusters=num_clusters
    )


def test_quotas_first_then_the_nearest_of_the_rest_by_hand() -> None:
    distances = torch.tensor([5.0, 1.0, 3.0, 0.5, 4.0])
    clusters = torch.tensor([0, 0, 0, 1, 0])
    # Cluster 0 gives its nearest one; cluster 1 its only one of two; the last place goes to the next nearest.
    assert sorted(representatives(distances, clusters, torch.tensor([1, 2])).tolist()) == [1, 2, 3]


def test_clusters_get_the_share_of_their_real_images(tmp_path: Path) -> None:
    # Three quarters of the real images are around 20, one quarter around 200.
    bench = Bench(
        tmp_path, points(*range(10, 34, 3), *range(190, 214, 3)), real=points(19, 20, 21, 20, 20, 20, 200, 200)
    )
    kept = bench.kept(curator(), 8)
    assert len([k for k in kept if k < 8]) == 6
    # 196, 199, 202 and 205 are the candidates around 200: two of the nearest are kept.
    assert kept[-2:] == [11, 12]


def test_with_no_more_candidates_than_needed_it_is_the_control(tmp_path: Path) -> None:
    Bench(tmp_path, noise(10), real=noise(30, seed=1)).assert_equals_control(curator(1, num_clusters=4), 10)


def test_no_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_clusters"):
        curator(num_clusters=0)
