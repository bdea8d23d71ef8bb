"""The self-test: how effects are judged, and that each damage is what it says."""

import math

import pytest
import torch
from torch import Tensor

from collapse_bench.encoders.base import Encoded, FittedEncoder
from collapse_bench.errors import ConfigError
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.pool import REAL
from collapse_bench.ruler import Ruler
from collapse_bench.selftest import GROSS, SUBTLE, Effect, Supply, power_study, self_test
from collapse_bench.store import Store


def effect(better, fresh, damaged, spread=1.0):
    return Effect("x", "d", better, fresh, spread, damaged, 5)


@pytest.mark.parametrize(
    ("better", "fresh", "damaged", "sight"),
    [
        ("lower", 0.0, 3.0, "sees"),
        ("lower", 0.0, 2.9, "blind"),
        ("lower", 0.0, -3.0, "inverted"),
        ("higher", 0.0, -3.0, "sees"),
        ("higher", 0.0, 3.0, "inverted"),
        ("one", 1.0, 5.0, "sees"),
        ("one", 1.0, -3.0, "sees"),
        ("one", 5.0, 1.0, "inverted"),
        ("floor", 0.0, 3.0, "sees"),
        ("floor", 0.0, -3.0, "sees"),
        ("floor", 0.0, 1.0, "blind"),
        ("lower", 0.0, math.nan, "undefined"),
    ],
)
def test_a_number_sees_what_makes_it_worse_by_three_deviations(better, fresh, damaged, sight):
    assert effect(better, fresh, damaged).sight == sight


def test_a_number_that_never_varies_sees_any_shift():
    assert effect("lower", 0.0, 1e-6, spread=0.0).z == math.inf
    assert effect("lower", 0.0, 0.0, spread=0.0).sight == "blind"


class Corner(FittedEncoder):
    """The first pixel as the only feature."""

    def forward(self, images: Tensor) -> Encoded:
        return Encoded(images[:, 0, 0, :1].float())


class MeanOfCorner(GenerativeMetric):
    """The mean feature of the samples."""

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        return {"mean": Estimate(generated.features.mean().item(), "floor")}


def supply(count=200, seed=0):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    fresh = ImageSet(
        images=torch.randint(0, 256, (count, 1, 8, 8), generator=rng, dtype=torch.uint8),
        labels=labels,
        features=torch.randn(count, 3, generator=rng),
        born=torch.full((count,), REAL),
    )
    return Supply(fresh, dict.fromkeys((*GROSS, *SUBTLE), fresh), fresh.take(slice(80)), rng)


@pytest.mark.parametrize("name", [*GROSS, *SUBTLE])
def test_every_damage_makes_as_many_images_as_asked(name):
    damaged = {**GROSS, **SUBTLE}[name](supply(), 60)
    assert abs(len(damaged) - 60) <= 4
    assert "images" in damaged


def test_a_missing_class_is_the_commonest_and_a_dropped_one_the_rarest():
    images = supply()
    labels = torch.cat([torch.full((120,), 2), torch.full((70,), 1), torch.full((10,), 0)])
    images = Supply(images.fresh.with_columns(labels=labels), images.changed, images.training, images.rng)
    assert 2 not in GROSS["one class missing"](images, 60).labels
    assert 0 not in SUBTLE["a 1 % class dropped"](images, 190).labels


def test_tempering_raises_shares_to_the_power_of_three_halves():
    images = supply(300)
    labels = torch.cat([torch.zeros(200), torch.ones(100)]).long()
    images = Supply(images.fresh.with_columns(labels=labels), images.changed, images.training, images.rng)
    counts = SUBTLE["classes tempered p^1.5"](images, 100).labels.bincount()
    assert (counts[0] / counts[1]).item() == pytest.approx(2**1.5, rel=0.03)


def test_cut_tails_are_far_from_the_training_images():
    images = supply()
    kept = SUBTLE["tails cut at 95 %"](images, 190)
    distances = torch.cdist(images.fresh.features.double(), images.training.features.double()).amin(1)
    kept_distances = torch.cdist(kept.features.double(), images.training.features.double()).amin(1)
    assert kept_distances.max() <= distances.quantile(0.95)


def test_duplicates_and_copies_are_exact():
    images = supply()
    assert len(SUBTLE["half of the samples duplicated"](images, 60).hashes.unique(dim=0)) == 30
    training = {tuple(row) for row in images.training.hashes.tolist()}
    copies = [tuple(row) in training for row in GROSS["copies of training"](images, 40).hashes.tolist()]
    assert all(copies)


def test_the_self_test_reports_shifts_in_units_of_the_noise_of_fresh_draws(tmp_path):
    fresh = supply(400).fresh
    ruler = Ruler(Corner(), "", [MeanOfCorner()], Store(tmp_path))
    counts = {"num_samples": 60, "num_reference": 60, "num_replicates": 12}
    effects = {e.damage: e for e in self_test([ruler], fresh, fresh.take(slice(80)), **counts)}
    assert set(effects) == set(GROSS)
    # Pixels are uniform on 0..255: a mean of 60 of them has a standard deviation of 74 / sqrt(60).
    assert effects["fresh real draw"].spread == pytest.approx(74 / 60**0.5, rel=0.5)
    assert effects["fresh real draw"].sight == "blind"
    assert effects["one point repeated"].num_replicates == 12


def test_too_few_held_out_images_are_refused(tmp_path):
    ruler = Ruler(Corner(), "", [MeanOfCorner()], Store(tmp_path))
    with pytest.raises(ConfigError, match="more than the 100 held-out images"):
        self_test([ruler], supply(100).fresh, supply(50).fresh, num_samples=40, num_reference=40, num_replicates=2)


def test_the_power_study_needs_a_classifier(tmp_path):
    ruler = Ruler(Corner(), "", [MeanOfCorner()], Store(tmp_path))
    with pytest.raises(ConfigError, match="encoder=classifier"):
        power_study(ruler, supply().fresh, supply().fresh, num_samples=20, num_reference=20, num_replicates=2)


def test_too_few_images_for_a_damage_are_refused(tmp_path):
    ruler = Ruler(Corner(), "", [MeanOfCorner()], Store(tmp_path))
    with pytest.raises(ConfigError, match="only 30 images are left for the damage 'copies of training'"):
        self_test([ruler], supply(300).fresh, supply(30).fresh, num_samples=60, num_reference=60, num_replicates=2)


def test_the_order_of_images_follows_from_their_pixels_and_not_from_the_last_digits_of_features():
    images = supply(60).fresh
    nudged = images.with_columns(features=images.features * (1 + 1e-6))
    assert torch.equal(images.order_keys, nudged.order_keys)
    shuffled = images.take(torch.randperm(60, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(shuffled.order_keys.sort().values, images.order_keys.sort().values)
    assert len(images.order_keys.unique()) == 60
    # Without pixels the features decide; no two of these rows are the same.
    pairs = torch.eye(6).unsqueeze(0) + torch.eye(6).unsqueeze(1)
    assert len(ImageSet(features=pairs.flatten(0, 1)).order_keys.unique()) == 21
