import pytest
import scipy.stats
import torch

from collapse_bench.metrics.copies import Duplicates, RealCopies, TrainingCopies
from collapse_bench.metrics.functional.copies import num_copies, num_repeats
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.types import to_float


def scored(metric, **sides):
    """The one estimate of a metric for these images."""
    for side, images in sides.items():
        metric.update(ImageSet(images=images), side=side)
    (estimate,) = metric.compute().values()
    return estimate


@pytest.fixture
def images(rng):
    return torch.randint(256, (20, 1, 4, 4), generator=rng, dtype=torch.uint8)


def test_repeats_and_copies_by_hand():
    hashes = torch.tensor([[1, 2], [1, 3], [1, 2], [1, 2], [0, 3]])
    assert num_repeats(hashes) == 2
    assert num_copies(hashes, torch.tensor([[1, 2], [0, 2], [1, 2]])) == 3
    assert num_copies(hashes, torch.tensor([[2, 1], [3, 0]])) == 0


def test_copies_equal_those_counted_with_sets(rng):
    few = torch.randint(4, (2, 60, 1, 2, 2), generator=rng, dtype=torch.uint8)
    generated, originals = ([image.numpy().tobytes() for image in side] for side in few)
    hashes = [ImageSet(images=side).hashes for side in few]
    assert num_copies(*hashes) == sum(image in set(originals) for image in generated)
    assert num_repeats(hashes[0]) == 60 - len(set(generated))


def test_duplicates_are_one_less_the_share_of_different_images(images):
    assert scored(Duplicates(), generated=images).value == 0
    assert scored(Duplicates(), generated=torch.cat([images, images[:5]])).value == 5 / 25
    assert scored(Duplicates(), generated=images[:1].repeat(10, 1, 1, 1)).value == 9 / 10


@pytest.mark.parametrize(("metric", "side"), [(TrainingCopies, "training"), (RealCopies, "real")])
def test_copies_are_counted_with_a_wilson_interval(images, metric, side):
    generated, pool = images[:12], images[9:]
    estimate = scored(metric(), generated=generated, **{side: pool})
    expected = scipy.stats.binomtest(3, 12).proportion_ci(method="wilson")
    assert estimate.value == 3 / 12
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_float_images_that_have_grey_levels_equal_those(images):
    assert scored(RealCopies(), generated=to_float(images), real=images[:5]).value == 5 / 20
    assert scored(RealCopies(), generated=images, real=to_float(images)).value == 1
    between = to_float(images)
    between[:, 0, 1, 2] += 1e-3
    assert scored(RealCopies(), generated=between, real=images).value == 0
    assert scored(RealCopies(), generated=between, real=between[:5]).value == 5 / 20


def test_one_grey_level_of_difference_is_no_copy(images):
    changed = images.clone()
    changed[:, 0, 1, 2] ^= 1
    assert scored(TrainingCopies(), generated=changed, training=images).value == 0


def test_every_image_of_a_copier_is_a_copy_however_often_it_comes(images):
    estimate = scored(RealCopies(), generated=images[:2].repeat(6, 1, 1, 1), real=images)
    assert estimate.value == estimate.high == 1


def test_images_without_grey_levels_are_compared_bit_by_bit(rng):
    points = torch.randn(8, 1, 1, 3, generator=rng)
    assert scored(TrainingCopies(), generated=points, training=points.flip(0)).value == 1
    assert scored(TrainingCopies(), generated=points * (1 + 1e-6), training=points).value == 0


def test_another_training_pool_replaces_the_one_before(images):
    metric = TrainingCopies()
    assert scored(metric, generated=images[:10], training=images[:10]).value == 1
    metric.forget("training")
    metric.update(ImageSet(images=images[10:]), side="training")
    assert metric.compute()["copies_of_training"].value == 0


def test_numbers_do_not_depend_on_the_order_and_are_the_same_twice(images):
    first = scored(TrainingCopies(), generated=images[:12], training=images[9:])
    assert scored(TrainingCopies(), generated=images[:12], training=images[9:]) == first
    assert scored(TrainingCopies(), generated=images[:12].flip(0), training=images[9:].flip(0)) == first
