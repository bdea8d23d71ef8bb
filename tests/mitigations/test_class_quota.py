from pathlib import Path

import pytest
from curating import PIXELS, Bench, noise, points

from collapse_bench.errors import ConfigError, SelectionError
from collapse_bench.mitigations.class_quota import ClassQuota
from collapse_bench.mitigations.probe import Probe
from collapse_bench.pool import UNLABELLED

CURATOR = ClassQuota(probe=Probe(features=PIXELS, ridge=1e-3))
REAL = {"real": points(0, 5, 250, 255), "real_labels": [0, 0, 1, 1]}


def test_every_class_gets_its_quota_from_the_first_candidates(tmp_path: Path) -> None:
    labels = [0, 0, 0, 0, 0, 1, 0, 2, 0, 0] * 4
    bench = Bench(tmp_path, noise(40), labels)
    kept = bench.curate(CURATOR, 7)
    assert kept.labels.bincount().tolist() == [3, 2, 2]
    assert (kept.seed - bench.model.first_seed).tolist() == [0, 1, 2, 5, 7, 15, 17]
    assert bench.now.spent.real_images_seen == {}, "conditions need no probe"


def test_without_conditions_the_probe_says_the_class(tmp_path: Path) -> None:
    bench = Bench(tmp_path, points(*[3] * 9, 252), [UNLABELLED] * 10, **REAL)
    kept = bench.curate(CURATOR, 6)
    assert ((kept.images > 128).sum(), (kept.images < 128).sum()) == (3, 3)
    assert (kept.labels == UNLABELLED).all(), "a guess is no label"
    assert bench.now.spent.real_images_seen["probe"] == 4


def test_a_lost_class_stops_the_run_and_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(10), [0, 2] * 5, max_candidates=4)
    with pytest.raises(SelectionError, match=r"generation 0: 4 of 24 .*missing by class: class1 2; raise budget"):
        bench.curate(CURATOR, 6)


def test_with_a_single_class_it_is_the_control(tmp_path: Path) -> None:
    Bench(tmp_path, noise(10), [0] * 10).assert_equals_control(CURATOR, 10)


def test_the_same_ones_are_kept_again(tmp_path: Path) -> None:
    assert len(Bench(tmp_path, noise(40), [0, 1, 1, 1] * 10).kept(CURATOR, 10)) == 10


def test_real_images_without_labels_are_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, points(1, 2), real=points(1, 2), real_labels=[0, UNLABELLED])
    with pytest.raises(ConfigError, match="labelled real images"):
        CURATOR.check(bench.setting)
