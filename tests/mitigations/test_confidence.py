from dataclasses import replace
from pathlib import Path

import pytest
from curating import PIXELS, Bench, points

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.confidence import Confidence
from collapse_bench.mitigations.probe import Probe
from collapse_bench.pool import UNLABELLED

REAL = {"real": points(0, 40, 80, 170, 210, 250), "real_labels": [0, 0, 0, 1, 1, 1]}


def curator(candidates_per_kept: float = 2.0) -> Confidence:
    return Confidence(candidates_per_kept=candidates_per_kept, probe=Probe(features=PIXELS, ridge=1e-2))


def test_it_keeps_what_looks_most_like_its_own_class(tmp_path: Path) -> None:
    # The border is at 125: the third and the last image do not look like their class at all, the fifth hardly.
    bench = Bench(tmp_path, points(0, 255, 255, 110, 130, 0), [0, 1, 0, 0, 1, 1], **REAL)
    assert bench.kept(curator(), 3) == [0, 1, 3]
    assert bench.kept(curator(6 / 4), 4) == [0, 1, 3, 4]


@pytest.mark.parametrize("label", [UNLABELLED, 0])
def test_without_classes_the_most_probable_one_judges_by_name(label: int, tmp_path: Path) -> None:
    bench = Bench(tmp_path, points(0, 120, 255, 130), [label] * 4, **REAL)
    assert bench.kept(replace(curator(), per_class=False), 2) == [0, 2]


def test_with_no_more_candidates_than_needed_it_is_the_control(tmp_path: Path) -> None:
    Bench(tmp_path, points(0, 120, 255, 130), [0, 0, 0, 1], **REAL).assert_equals_control(curator(1), 4)


def test_real_images_without_labels_are_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, points(1, 2), real=points(1, 2), real_labels=[0, UNLABELLED])
    with pytest.raises(ConfigError, match="labelled real images"):
        curator().check(bench.setting)
