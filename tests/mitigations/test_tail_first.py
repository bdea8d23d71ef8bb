from pathlib import Path

import pytest
import torch
from curating import PIXELS, Bench, noise, points

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.tail_first import TailFirst, neighbour_distances


def curator(candidates_per_kept: float = 2.0, num_neighbours: int = 1) -> TailFirst:
    return TailFirst(candidates_per_kept=candidates_per_kept, features=PIXELS, num_neighbours=num_neighbours)


def test_distances_to_the_kth_neighbour_by_hand() -> None:
    line = torch.tensor([[0.0], [1.0], [5.0]])
    assert neighbour_distances(line, 1).tolist() == [1.0, 1.0, 4.0]
    assert neighbour_distances(line, 2).tolist() == [5.0, 4.0, 5.0]
    assert neighbour_distances(line, 9).tolist() == [5.0, 4.0, 5.0]


def test_the_rarest_are_kept(tmp_path: Path) -> None:
    assert Bench(tmp_path, points(100, 0, 101, 102, 200, 50, 103, 104)).kept(curator(), 4) == [0, 1, 4, 5]


def test_a_pair_of_copies_is_rare_by_a_later_neighbour_only(tmp_path: Path) -> None:
    images = points(250, 250, 100, 102, 104, 106)
    assert not {0, 1} & set(Bench(tmp_path, images).kept(curator(num_neighbours=1), 3))
    assert {0, 1} < set(Bench(tmp_path, images).kept(curator(num_neighbours=2), 3))


def test_with_no_more_candidates_than_needed_it_is_the_control(tmp_path: Path) -> None:
    Bench(tmp_path, noise(10)).assert_equals_control(curator(1), 10)
    Bench(tmp_path, noise(1)).assert_equals_control(curator(1), 1)


def test_no_neighbour_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_neighbours"):
        curator(num_neighbours=0)
