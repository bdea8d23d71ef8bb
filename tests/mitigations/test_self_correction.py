from pathlib import Path

import pytest
import torch
from curating import Bench, noise, points

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.self_correction import SelfCorrection, nearest_of_class
from collapse_bench.pool import UNLABELLED
from collapse_bench.types import to_float, to_uint8


def corrected(bench: Bench, strength: float, num_clusters: int, num: int) -> list[int]:
    return bench.curate(SelfCorrection(strength=strength, num_clusters=num_clusters), num).images.flatten().tolist()


def test_samples_move_to_the_centre_of_their_own_class_by_hand(tmp_path: Path) -> None:
    bench = Bench(tmp_path, points(12, 95), [0, 1], real=points(10, 20, 100, 120), real_labels=[0, 0, 1, 1])
    assert corrected(bench, 1.0, 1, 2) == [15, 110]
    assert corrected(bench, 0.5, 1, 2) == [14, 102]  # 13.5 and 102.5, rounded half to even
    assert corrected(bench, 1.0, 2, 2) == [10, 100]


def test_a_sample_of_the_other_class_goes_to_its_own_centre_however_far(tmp_path: Path) -> None:
    bench = Bench(tmp_path, points(12, 12), [1, 0], real=points(10, 100), real_labels=[0, 1])
    assert corrected(bench, 1.0, 1, 2) == [100, 10]


@pytest.mark.parametrize("label", [UNLABELLED, 1])
def test_without_classes_a_sample_goes_to_the_nearest_centre_of_all_by_name(label: int, tmp_path: Path) -> None:
    bench = Bench(tmp_path, points(12, 95), [label] * 2, real=points(10, 100), real_labels=[0, 1])
    curator = SelfCorrection(strength=1.0, num_clusters=1, per_class=False)
    assert bench.curate(curator, 2).images.flatten().tolist() == [10, 100]


def test_a_class_without_real_images_goes_to_the_nearest_centre_of_all() -> None:
    values, centres = torch.tensor([[3.0], [3.0]]), torch.tensor([[0.0], [10.0]])
    moved = nearest_of_class(values, torch.tensor([1, 5]), centres, torch.tensor([0, 1]))
    assert moved.flatten().tolist() == [10.0, 0.0]


def test_images_stay_grey_levels_or_numbers(tmp_path: Path) -> None:
    curator = SelfCorrection(strength=0.3, num_clusters=2)
    assert Bench(tmp_path, noise(10)).curate(curator, 10).images.dtype == torch.uint8
    assert Bench(tmp_path, noise(10) / 300).curate(curator, 10).images.dtype == torch.float32


def test_samples_that_are_not_rounded_are_corrected_as_those_that_are(tmp_path: Path) -> None:
    curator, real = SelfCorrection(strength=0.4, num_clusters=2), noise(40, seed=1)
    rounded = Bench(tmp_path / "a", noise(10), real=real).curate(curator, 10).images
    exact = Bench(tmp_path / "b", to_float(noise(10)), real=real).curate(curator, 10).images
    torch.testing.assert_close(to_uint8(exact), rounded, rtol=0, atol=1)


@pytest.mark.parametrize("images", [noise(10), noise(10) / 3.7], ids=["uint8", "float"])
def test_without_strength_it_is_the_control(images: torch.Tensor, tmp_path: Path) -> None:
    Bench(tmp_path, images).assert_equals_control(SelfCorrection(strength=0.0, num_clusters=4), 10)


def test_with_full_strength_only_centres_are_left(tmp_path: Path) -> None:
    kept = Bench(tmp_path, noise(50), real=noise(80, seed=1)).curate(SelfCorrection(strength=1.0, num_clusters=4), 50)
    assert len(kept.images.flatten(1).unique(dim=0)) <= 4
    assert kept.reasons == ("corrected toward a centre",)


def test_what_it_looks_at_is_metered(tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(10), real=noise(30))
    bench.kept(SelfCorrection(strength=1.0, num_clusters=4), 10)
    assert bench.now.spent.real_images_seen == {"centres": 30}
    assert bench.now.spent.networks_trained == 0


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="strength"):
        SelfCorrection(strength=1.1, num_clusters=4)
    with pytest.raises(ConfigError, match="num_clusters"):
        SelfCorrection(strength=1.0, num_clusters=0)
