from pathlib import Path

import pytest
from chains import TINY, composed, parts_of
from curating import Bench, noise

from collapse_bench.errors import ConfigError, SelectionError
from collapse_bench.mitigations.random_subset import RandomSubset


def test_every_candidate_is_kept_equally_often(tmp_path: Path) -> None:
    counts = [0] * 10
    for generation in range(200):
        for position in Bench(tmp_path, noise(10), generation=generation).kept(RandomSubset(candidates_per_kept=2), 5):
            counts[position] += 1
    # 200 draws with probability 1/2: the standard deviation is 7.1.
    assert all(abs(count - 100) < 4 * 7.1 for count in counts), counts


def test_kept_images_are_distinct_and_in_the_order_drawn(tmp_path: Path) -> None:
    kept = Bench(tmp_path, noise(30)).kept(RandomSubset(candidates_per_kept=3), 10)
    assert kept == sorted(set(kept))
    assert kept != list(range(10))


def test_with_no_more_candidates_than_needed_it_is_the_control(tmp_path: Path) -> None:
    Bench(tmp_path, noise(10)).assert_equals_control(RandomSubset(candidates_per_kept=1), 10)


def test_candidates_are_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(25))
    bench.curate(RandomSubset(candidates_per_kept=2.5), 10)
    assert (bench.now.spent.candidates, bench.now.spent.kept) == (25, 10)


def test_more_candidates_than_the_budget_allows_are_refused_before_and_while_drawing(tmp_path: Path) -> None:
    bench, curator = Bench(tmp_path, noise(25), max_candidates=2), RandomSubset(candidates_per_kept=2.5)
    with pytest.raises(ConfigError, match=r"2\.5 is more than budget\.max_candidates=2"):
        curator.check(bench.setting)
    with pytest.raises(SelectionError, match=r"generation 0.*25 candidates.*allows 20.*max_candidates"):
        bench.curate(curator, 10)


def test_a_chain_that_could_not_fill_its_quota_is_refused_before_it_begins(tmp_path: Path) -> None:
    changes = ("mitigation=random_subset", "mitigation.curator.candidates_per_kept=1000")
    with pytest.raises(ConfigError, match="candidates_per_kept=1000 is more than"):
        parts_of(composed(*TINY, *changes), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_fewer_candidates_than_needed_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"candidates_per_kept must be at least 1, got 0\.5"):
        RandomSubset(candidates_per_kept=0.5)
