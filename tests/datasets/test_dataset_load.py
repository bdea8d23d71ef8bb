"""The split, the classes and the sizes, on data sets made for the purpose."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from collapse_bench.datasets.base import Dataset, RawImages, RealImages
from collapse_bench.errors import ConfigError
from collapse_bench.pool import REAL

CLASS_NAMES = ("ant", "bee", "cow")


def numbered(start: int, count: int, size: int = 6) -> Tensor:
    """Images that all differ: each carries its number in its first two grey levels."""
    images = torch.randint(0, 256, (count, 1, size, size), generator=torch.Generator().manual_seed(start)).byte()
    number = torch.arange(start, start + count)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = (number // 256).byte(), (number % 256).byte()
    return images


def unequal_labels(count: int) -> Tensor:
    """Half ants, a third bees, a sixth cows, in blocks."""
    return torch.tensor([0, 0, 0, 1, 1, 2])[torch.arange(count) * 6 // count]


@dataclass(frozen=True, kw_only=True)
class Numbered(Dataset):
    name: str = "numbered"
    num_test: int = 0

    def read(self) -> RawImages:
        test = (numbered(600, self.num_test), unequal_labels(self.num_test)) if self.num_test else ()
        return RawImages(numbered(0, 600), unequal_labels(600), CLASS_NAMES, *test)


def sets(data: RealImages) -> dict[str, Any]:
    return {"pool": data.pool, "reference": data.held_out.reference, "control": data.held_out.control}


@pytest.mark.parametrize("num_test", [0, 120])
def test_no_image_is_in_two_sets_and_none_is_lost(num_test: int) -> None:
    data = Numbered(num_test=num_test).load()
    ids = torch.cat([pool.image_id for pool in sets(data).values()])
    pixels = {image.numpy().tobytes() for pool in sets(data).values() for image in pool.images}
    assert sorted(ids.tolist()) == list(range(600 + num_test))
    assert len(pixels) == 600 + num_test


@pytest.mark.parametrize("control_from", ["train", "test"])
def test_pools_of_all_sizes_have_one_ruler_which_sees_no_held_out_image(control_from: Any) -> None:
    whole = Numbered(num_test=120, control_from=control_from).load()
    assert whole.not_held_out is whole.pool
    for num_real in (10, 200):
        data = Numbered(num_test=120, control_from=control_from, num_real=num_real).load()
        assert data.not_held_out.content_hash == whole.pool.content_hash
        assert set(data.pool.image_id.tolist()) < set(data.not_held_out.image_id.tolist())
        assert len(data.pool) == num_real


@pytest.mark.parametrize("num_test", [0, 120])
def test_ids_images_and_labels_stay_together(num_test: int) -> None:
    found = torch.cat((numbered(0, 600), numbered(600, num_test)))
    labels = torch.cat((unequal_labels(600), unequal_labels(num_test) if num_test else torch.empty(0).long()))
    for pool in sets(Numbered(num_test=num_test).load()).values():
        assert torch.equal(pool.images, found[pool.image_id])
        assert torch.equal(pool.labels, labels[pool.image_id])
        assert torch.equal(pool.seed, pool.image_id)
        assert (pool.born == REAL).all()
        assert pool.sources == ("numbered",)


def test_the_published_test_images_are_the_reference_and_nothing_else() -> None:
    data = Numbered(num_test=120).load()
    assert sorted(data.held_out.reference.image_id.tolist()) == list(range(600, 720))
    assert data.pool.image_id.max() < 600
    assert data.held_out.control.image_id.max() < 600


def test_defaults_without_a_test_split_are_two_quarters() -> None:
    data = Numbered().load()
    assert {name: len(pool) for name, pool in sets(data).items()} == {"pool": 300, "reference": 150, "control": 150}


def test_defaults_with_a_test_split_keep_the_control_no_larger_than_the_reference() -> None:
    data = Numbered(num_test=120).load()
    assert {name: len(pool) for name, pool in sets(data).items()} == {"pool": 480, "reference": 120, "control": 120}
    data = Numbered(num_test=120, num_reference=60).load()
    assert {name: len(pool) for name, pool in sets(data).items()} == {"pool": 540, "reference": 60, "control": 60}


def test_a_protocol_that_trains_on_all_training_images_halves_the_test_images() -> None:
    data = Numbered(num_test=120, control_from="test").load()
    assert {name: len(pool) for name, pool in sets(data).items()} == {"pool": 600, "reference": 60, "control": 60}
    assert sorted(data.pool.image_id.tolist()) == list(range(600))
    held_out = torch.cat((data.held_out.reference.image_id, data.held_out.control.image_id))
    assert sorted(held_out.tolist()) == list(range(600, 720))
    assert data.held_out.control.labels.bincount().tolist() == [30, 20, 10]


def test_sizes_are_kept_where_the_control_set_is_of_test_images() -> None:
    data = Numbered(num_test=120, control_from="test", num_real=42, num_reference=80).load()
    assert {name: len(pool) for name, pool in sets(data).items()} == {"pool": 42, "reference": 80, "control": 40}
    data = Numbered(num_test=120, control_from="test", num_reference=30).load()
    assert len(data.held_out.control) == 30
    data = Numbered(num_test=120, control_from="test", num_control=50).load()
    assert {name: len(pool) for name, pool in sets(data).items()} == {"pool": 600, "reference": 60, "control": 50}


@pytest.mark.parametrize("num_test", [0, 120])
def test_every_set_has_every_class_in_its_share(num_test: int) -> None:
    data = Numbered(num_test=num_test, num_real=120, num_reference=60, num_control=30).load()
    assert {name: pool.labels.bincount().tolist() for name, pool in sets(data).items()} == {
        "pool": [60, 40, 20],
        "reference": [30, 20, 10],
        "control": [15, 10, 5],
    }


def test_order_is_not_grouped_by_class() -> None:
    for pool in sets(Numbered().load()).values():
        # A random order of shares 1/2, 1/3, 1/6 changes class at 61 % of the steps; a sorted one twice.
        assert (pool.labels.diff() != 0).float().mean() > 0.4


def test_one_split_seed_is_one_split() -> None:
    for pool, again in zip(sets(Numbered().load()).values(), sets(Numbered().load()).values(), strict=True):
        assert torch.equal(pool.image_id, again.image_id)
    assert not torch.equal(Numbered().load().pool.image_id, Numbered(split_seed=1).load().pool.image_id)


def test_global_random_state_has_no_part_in_the_split() -> None:
    torch.manual_seed(1)
    first = Numbered().load().pool.image_id
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(Numbered().load().pool.image_id, first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_smaller_real_pool_leaves_the_held_out_sets_as_they_are() -> None:
    full, small = Numbered().load(), Numbered(num_real=42).load()
    assert len(small.pool) == 42
    assert torch.equal(full.held_out.reference.image_id, small.held_out.reference.image_id)
    assert torch.equal(full.held_out.control.image_id, small.held_out.control.image_id)
    assert set(small.pool.image_id.tolist()) < set(full.pool.image_id.tolist())


def test_chosen_classes_are_renumbered_in_the_order_asked_for_also_in_the_test_split() -> None:
    data = Numbered(num_test=120, classes=["cow", "ant"]).load()
    assert data.spec.class_names == ("cow", "ant")
    found = torch.cat((unequal_labels(600), unequal_labels(120)))
    for pool in sets(data).values():
        assert torch.equal(torch.tensor([2, 0])[pool.labels], found[pool.image_id])
        assert sorted(set(pool.labels.tolist())) == [0, 1]
    assert sum(len(pool) for pool in sets(data).values()) == 400 + 80


def test_images_are_resized_to_uint8_squares_with_antialiasing() -> None:
    data = Numbered(num_test=120, image_size=4).load()
    assert data.spec.shape == (1, 4, 4)
    for pool in sets(data).values():
        assert pool.images.shape[1:] == (1, 4, 4)
        assert pool.images.dtype == torch.uint8
    found = numbered(0, 600).float()
    expected = torch.nn.functional.interpolate(found, size=(4, 4), mode="bilinear", antialias=True)
    assert (data.pool.images - expected[data.pool.image_id]).abs().max() <= 1.0


def test_the_size_as_found_changes_no_pixel() -> None:
    same = Numbered(image_size=6).load()
    assert torch.equal(same.pool.images, Numbered().load().pool.images)


def test_resizing_does_not_move_images_between_sets() -> None:
    assert torch.equal(Numbered(image_size=4).load().pool.image_id, Numbered().load().pool.image_id)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 3}, ["dataset.image_size", "at least 4", "null", "got 3"]),
        ({"num_real": 0}, ["dataset.num_real", "at least 1", "null", "got 0"]),
        ({"num_reference": -1}, ["dataset.num_reference", "at least 1", "got -1"]),
        ({"num_control": 0}, ["dataset.num_control", "at least 1", "got 0"]),
        ({"long_tail": 0.0}, ["dataset.long_tail", "(0, 1]", "null", "got 0.0"]),
        ({"long_tail": 1.5}, ["dataset.long_tail", "(0, 1]", "got 1.5"]),
        ({"long_tail": 0.001}, ["dataset.long_tail=0.001", "no image of the class 'cow' of numbered", "raise"]),
        ({"classes": []}, ["dataset.classes", "at least one class name", "null"]),
        ({"classes": "bee"}, ["dataset.classes", "a list", "'bee'"]),
        ({"classes": ["bea"]}, ["numbered has no class 'bea'", "did you mean 'bee'?", "ant, bee, cow"]),
        ({"classes": ["zzzzz"]}, ["numbered has no class 'zzzzz'", "ant, bee, cow"]),
        ({"classes": ["ant", "ant"]}, ["dataset.classes", "twice", "once"]),
        ({"num_reference": 599}, ["dataset.num_reference is 599", "numbered has 598", "smaller"]),
        ({"num_test": 120, "num_reference": 121}, ["dataset.num_reference is 121", "has 120 published test images"]),
        ({"num_test": 120, "num_control": 600}, ["dataset.num_control is 600", "has 599", "smaller"]),
        ({"num_reference": 500, "num_control": 100}, ["dataset.num_control is 100", "has 99"]),
        ({"num_reference": 500}, ["dataset.num_control is 150 by default", "has 99"]),
        ({"control_from": "test"}, ["dataset.control_from=test", "numbered has no published test images", "train"]),
        (
            {"num_test": 120, "control_from": "test", "num_reference": 120},
            ["dataset.num_reference is 120", "has 119 published test images"],
        ),
        (
            {"num_test": 120, "control_from": "test", "num_control": 61},
            ["dataset.num_control is 61", "has 60 published test images that are not in the reference"],
        ),
        ({"num_test": 120, "control_from": "test", "num_real": 601}, ["num_real is 601", "has 600 training images"]),
        ({"num_real": 301}, ["dataset.num_real is 301", "has 300", "not held out", "smaller"]),
    ],
)
def test_an_option_that_cannot_be_met_is_refused_with_its_name_and_the_remedy(
    options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        Numbered(**options).load()
    for word in words:
        assert word in str(caught.value)


@dataclass(frozen=True, kw_only=True)
class Unreadable(Dataset):
    name: str = "unreadable"

    def read(self) -> RawImages:
        raise AssertionError("read before the options were checked")


def test_options_are_checked_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match=r"dataset\.image_size"):
        Unreadable(image_size=1).load()


def test_three_images_are_enough_and_two_are_not() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Few(Dataset):
        name: str = "few"
        count: int

        def read(self) -> RawImages:
            return RawImages(numbered(0, self.count), torch.zeros(self.count, dtype=torch.int64), ("all",))

    assert [len(pool) for pool in sets(Few(count=3).load()).values()] == [1, 1, 1]
    with pytest.raises(ConfigError, match="few has 0 images"):
        Few(count=2).load()


def test_a_long_tail_falls_geometrically_in_all_three_sets() -> None:
    # 300 ants, 200 bees and 100 cows: with 1/4 of the first class in the last one, 300 : 150 : 75.
    data = Numbered(long_tail=0.25, num_real=210, num_reference=210, num_control=105).load()
    assert {name: pool.labels.bincount().tolist() for name, pool in sets(data).items()} == {
        "pool": [120, 60, 30],
        "reference": [120, 60, 30],
        "control": [60, 30, 15],
    }


def test_a_long_tail_keeps_as_many_images_as_there_are_for_it() -> None:
    # With equal shares the class with the fewest images decides.
    assert sum(len(pool) for pool in sets(Numbered(long_tail=1.0).load()).values()) == 300
    assert sum(len(pool) for pool in sets(Numbered(long_tail=0.25).load()).values()) == 525


def test_the_published_test_images_have_the_same_long_tail() -> None:
    data = Numbered(num_test=120, long_tail=0.25).load()
    assert data.held_out.reference.labels.bincount().tolist() == [60, 30, 15]
    assert data.held_out.reference.image_id.min() >= 600


def test_the_order_of_the_classes_says_which_is_rare() -> None:
    data = Numbered(long_tail=0.5, classes=["cow", "ant"]).load()
    counts = sum(pool.labels.bincount() for pool in sets(data).values())
    assert torch.equal(torch.as_tensor(counts), torch.tensor([100, 50]))


def test_which_images_a_long_tail_keeps_depends_on_the_split_seed_alone() -> None:
    def kept(seed: int) -> list[int]:
        return sorted(
            torch.cat([p.image_id for p in sets(Numbered(long_tail=0.25, split_seed=seed).load()).values()]).tolist()
        )

    torch.manual_seed(1)
    first = kept(0)
    torch.manual_seed(2)
    assert kept(0) == first
    assert kept(1) != first
