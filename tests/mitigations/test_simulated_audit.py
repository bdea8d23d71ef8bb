import math
from dataclasses import replace
from pathlib import Path

import pytest
from curating import PIXELS, Bench, noise, points

from collapse_bench.errors import ConfigError, SelectionError
from collapse_bench.mitigations.probe import Probe
from collapse_bench.mitigations.simulated_audit import SimulatedAudit

CURATOR = SimulatedAudit(
    probe=Probe(features=PIXELS, ridge=1e-3), min_confidence=0.5, error_rate=0.0, num_reviewed=10_000
)
REAL = {"real": points(0, 5, 250, 255), "real_labels": [0, 0, 1, 1]}


def every_second_is_wrong(tmp_path: Path, count: int = 40) -> Bench:
    """Dark images of class 0, every second one labelled 1."""
    return Bench(tmp_path, points(*[3] * count), [0, 1] * (count // 2), **REAL)


def test_what_does_not_look_like_its_class_is_replaced_by_the_next(tmp_path: Path) -> None:
    bench = every_second_is_wrong(tmp_path)
    assert bench.kept(CURATOR, 10) == list(range(0, 20, 2))


def test_without_classes_she_asks_whether_it_looks_like_any_by_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path, points(3, 127, 252, 3), [1, 1, 1, -1], **REAL)
    assert bench.kept(replace(CURATOR, per_class=False, min_confidence=0.9), 3) == [0, 2, 3]


def test_reviews_end_with_the_quota(tmp_path: Path) -> None:
    """One wrong image of a hundred costs one more, and nobody looks at what is not needed."""
    bench = Bench(tmp_path, points(*[3] * 200), [1] + [0] * 199, **REAL)
    assert bench.kept(CURATOR, 100) == list(range(1, 101))
    assert bench.now.spent.candidates == 101


def test_beyond_the_budget_all_pass(tmp_path: Path) -> None:
    bench = every_second_is_wrong(tmp_path)
    assert bench.kept(replace(CURATOR, num_reviewed=6), 10) == [0, 2, 4, 6, 7, 8, 9, 10, 11, 12]


def test_an_auditor_who_always_errs_keeps_what_is_wrong(tmp_path: Path) -> None:
    assert every_second_is_wrong(tmp_path).kept(replace(CURATOR, error_rate=1.0), 10) == list(range(1, 21, 2))


def test_errors_have_the_stated_rate(tmp_path: Path) -> None:
    kept = every_second_is_wrong(tmp_path, 4000).curate(replace(CURATOR, error_rate=0.2), 1000)
    share = (kept.labels == 1).double().mean().item()
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 1000)


def test_without_reviews_it_is_the_control(tmp_path: Path) -> None:
    every_second_is_wrong(tmp_path).assert_equals_control(replace(CURATOR, num_reviewed=0), 20)


def test_rejecting_everything_stops_the_run(tmp_path: Path) -> None:
    bench = Bench(tmp_path, points(3, 3), [1, 1], max_candidates=3, **REAL)
    with pytest.raises(SelectionError, match=r"0 of 30 candidates were kept, 10 are needed.*min_confidence"):
        bench.curate(CURATOR, 10)


def test_options_out_of_range_are_refused(tmp_path: Path) -> None:
    for change in ({"error_rate": 1.5}, {"min_confidence": -0.1}, {"num_reviewed": -1}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            replace(CURATOR, **change)
    with pytest.raises(ConfigError, match="labelled real images"):
        CURATOR.check(Bench(tmp_path, noise(2), real=noise(2), real_labels=[0, -1]).setting)
