from pathlib import Path

import pytest
import torch
from curating import PIXELS, Bench, noise, points

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.threshold_decay import ThresholdDecay, accept_far


def curator(candidates_per_kept: float = 2.0, start_quantile: float = 0.5, decay: float = 0.9) -> ThresholdDecay:
    return ThresholdDecay(
        candidates_per_kept=candidates_per_kept, features=PIXELS, start_quantile=start_quantile, decay=decay
    )


def test_passes_by_hand() -> None:
    line = torch.tensor([[0.0], [3.0], [5.0], [20.0], [4.0]])
    # Above 4: 0, 5, 20. Second pass above 2: 3 is 2 from 5, so no; 4 no. Third pass above 1: 3; then 4 is 1 away, no.
    assert accept_far(line, 3, threshold=4.0, decay=0.5).tolist() == [0, 2, 3]
    assert accept_far(line, 4, threshold=4.0, decay=0.5).tolist() == [0, 2, 3, 1]
    assert accept_far(line, 5, threshold=4.0, decay=0.5).tolist() == [0, 2, 3, 1, 4]


def test_it_agrees_with_the_definition() -> None:
    cloud = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distances, chosen, threshold = torch.cdist(cloud, cloud), [], 3.0
    while len(chosen) < 40:
        for k in range(60):
            if len(chosen) < 40 and k not in chosen and all(distances[k, j] > threshold for j in chosen):
                chosen.append(k)
        threshold *= 0.8
    assert accept_far(cloud, 40, threshold=3.0, decay=0.8).tolist() == chosen


def test_a_lower_start_accepts_in_order_and_a_higher_one_is_choosy(tmp_path: Path) -> None:
    images = points(*[0] * 10, *range(10, 250, 24))
    choosy = Bench(tmp_path, images).curate(curator(start_quantile=1.0), 10).images
    lax = Bench(tmp_path, images).curate(curator(start_quantile=0.0), 10).images
    assert len(choosy.unique()) == 10
    # A threshold of 0 accepts all but exact copies.
    assert len(lax.unique()) == 10
    assert torch.pdist(choosy.float().flatten(1)).min() >= torch.pdist(lax.float().flatten(1)).min()


def test_copies_are_accepted_when_nothing_else_is_left(tmp_path: Path) -> None:
    kept = Bench(tmp_path, points(7, 7, 7, 7, 7, 9)).kept(curator(), 3)
    assert 5 in kept
    assert len(set(kept)) == 3


def test_with_no_more_candidates_than_needed_it_is_the_control(tmp_path: Path) -> None:
    Bench(tmp_path, noise(10)).assert_equals_control(curator(candidates_per_kept=1), 10)
    Bench(tmp_path, noise(1)).assert_equals_control(curator(candidates_per_kept=1), 1)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="start_quantile"):
        curator(start_quantile=1.5)
    with pytest.raises(ConfigError, match="decay"):
        curator(decay=1.0)
