import itertools
import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch

from collapse_bench.errors import HiddenColumnError, RunDirError
from collapse_bench.pool import PROVENANCE, REAL, UNLABELLED, Pool, birth_name
from collapse_bench.store import write_tensors
from collapse_bench.types import to_float

COLUMNS = ("images", "labels", *PROVENANCE)


def images(count: int, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 2, 3), generator=rng, dtype=torch.uint8)


def real(count: int = 4) -> Pool:
    return Pool.real(images(count), torch.arange(count) % 3, source="digits")


def sampled(count: int = 3, *, born: int = 0, start: int = 0, source: str = "flow") -> Pool:
    seeds = torch.arange(start, start + count) + 1000 * (born + 1)
    return Pool.sampled(images(count, seed=born + 1), seeds % 3, seeds, start=start, born=born, source=source)


def mixed() -> Pool:
    chosen = sampled(5, born=1, source="vae").take(torch.tensor([4, 2]), because="verified")
    return Pool.concat([real(), sampled(), chosen])


def rows(pool: Pool) -> list[tuple]:
    """Everything that the pool says about each of its images, with names instead of codes."""
    names = [(pool.sources[s], pool.reasons[r]) for s, r in zip(pool.source, pool.kept_because, strict=True)]
    numbers = zip(*(getattr(pool, name).tolist() for name in ("labels", "image_id", "born", "seed")), strict=True)
    pixels = (tuple(image.flatten().tolist()) for image in pool.images)
    return list(zip(pixels, numbers, names, strict=True))


def equal(first: Pool, second: Pool) -> bool:
    return (first.sources, first.reasons, first.hidden) == (second.sources, second.reasons, second.hidden) and all(
        getattr(first, name).dtype == getattr(second, name).dtype
        and torch.equal(getattr(first, name), getattr(second, name))
        for name in COLUMNS
    )


def test_real_images_say_that_no_model_made_them() -> None:
    pool = real(4)
    assert pool.born.tolist() == [REAL] * 4
    assert pool.image_id.tolist() == pool.seed.tolist() == [0, 1, 2, 3]
    assert {names for _, _, names in rows(pool)} == {("digits", "real")}


def test_sampled_images_say_which_model_made_them_and_from_which_seed() -> None:
    pool = sampled(3, born=2, start=10)
    assert pool.born.tolist() == [2, 2, 2]
    assert pool.seed.tolist() == [3010, 3011, 3012]
    assert {names for _, _, names in rows(pool)} == {("flow", "candidate")}


def test_image_ids_are_unique_within_a_run() -> None:
    pools = [real(50), *(sampled(50, born=t, start=start) for t in range(4) for start in (0, 50))]
    ids = Pool.concat(pools).image_id
    assert len(ids.unique()) == len(ids) == 450


def test_image_ids_do_not_collide_between_generations_with_very_many_candidates() -> None:
    last, first = sampled(1, born=0, start=2**40 - 1), sampled(1, born=1, start=0)
    assert last.image_id < first.image_id


def test_concat_keeps_order_and_provenance() -> None:
    parts = [sampled(), real(), sampled(2, born=3, source="vae").take(torch.tensor([1]), because="verified")]
    whole = Pool.concat(parts)
    assert rows(whole) == [row for part in parts for row in rows(part)]
    assert whole.sources == ("flow", "digits", "vae")
    assert whole.reasons == ("candidate", "real", "verified")


def test_concat_of_any_order_and_nesting_says_the_same() -> None:
    parts = [real(), sampled(), mixed()]
    for order in itertools.permutations(parts):
        first, second, third = order
        nested = Pool.concat([Pool.concat([first, second]), third])
        assert rows(nested) == rows(Pool.concat(order)) == [row for part in order for row in rows(part)]


def test_concat_hides_what_any_part_hides() -> None:
    whole = Pool.concat([real(), sampled().hide("born"), sampled(born=1).hide("source", "born")])
    assert whole.hidden == {"born", "source"}


def test_take_keeps_what_is_said_about_each_image() -> None:
    pool = mixed().hide("seed")
    index = torch.tensor([8, 0, 0, 5])
    taken = pool.take(index)
    assert rows(taken) == [rows(pool)[i] for i in index]
    assert taken.hidden == pool.hidden
    assert len(pool.take(index[:0])) == 0


def test_take_can_say_why() -> None:
    pool = mixed()
    taken = pool.take(torch.tensor([7, 1]), because="sharp")
    assert [(pixels, numbers, source) for pixels, numbers, (source, _) in rows(taken)] == [
        (pixels, numbers, source) for pixels, numbers, (source, _) in (rows(pool)[7], rows(pool)[1])
    ]
    assert {reason for _, _, (_, reason) in rows(taken)} == {"sharp"}


def test_what_a_fit_sees_is_what_it_can_draw_at_some_noise_level() -> None:
    pool = mixed()
    ones = torch.ones(len(pool))
    assert pool.trained_on(ones) is pool
    weights, gate = ones.clone(), torch.full((len(pool),), -1.0)
    weights[2], gate[5], gate[6] = 0, -math.inf, math.inf
    index = torch.arange(len(pool))
    assert rows(pool.trained_on(weights)) == rows(pool.take(index[index != 2]))
    assert rows(pool.trained_on(weights, gate)) == rows(pool.take(index[(index != 2) & (index != 5)]))


def test_taking_concatenating_and_hiding_leave_the_pool_as_it_was() -> None:
    pool, again = mixed(), mixed()
    pool.take(torch.tensor([0]), because="x")
    pool.hide("born")
    Pool.concat([pool, real()])
    assert equal(pool, again)
    with pytest.raises(FrozenInstanceError):
        pool.images = images(9)  # type: ignore[misc]


@pytest.mark.parametrize(
    "pool",
    [
        real(),
        sampled(),
        mixed(),
        mixed().hide("born", "source"),
        mixed().take(torch.empty(0, dtype=torch.int64)),
        Pool.real(torch.randn(3, 2, 1, 1) * 1e6, torch.full((3,), UNLABELLED), source="gaussian, with a comma"),
    ],
    ids=["real", "sampled", "mixed", "hidden", "empty", "float"],
)
def test_a_pool_survives_the_disk(tmp_path: Path, pool: Pool) -> None:
    pool.save(tmp_path / "kept.safetensors")
    assert equal(Pool.load(tmp_path / "kept.safetensors"), pool)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.safetensors"]


def test_a_damaged_pool_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    with pytest.raises(RunDirError, match=r"kept\.safetensors"):
        Pool.load(path)
    mixed().save(path)
    content = path.read_bytes()
    for length in (0, 4, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(RunDirError, match=r"kept\.safetensors.*delete its generation folder"):
            Pool.load(path)
    path.write_bytes(content)
    assert equal(Pool.load(path), mixed())


def test_a_pool_that_cannot_be_written_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"nowhere.kept\.safetensors"):
        mixed().save(tmp_path / "nowhere" / "kept.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("column", COLUMNS)
def test_columns_of_different_lengths_are_refused(column: str) -> None:
    pool = mixed()
    columns = {name: getattr(pool, name) for name in COLUMNS}
    columns[column] = columns[column][:-1]
    with pytest.raises(ValueError, match=f"'{column}': {len(pool) - 1}"):
        Pool(**columns, sources=pool.sources, reasons=pool.reasons)


@pytest.mark.parametrize("column", ["images", "labels", "colour"])
def test_only_provenance_can_be_hidden(column: str) -> None:
    with pytest.raises(ValueError, match=column):
        mixed().hide(column)


@pytest.mark.parametrize("column", PROVENANCE)
def test_a_hidden_column_does_not_answer(column: str) -> None:
    pool = mixed().hide(column)
    visible = pool.visible()
    with pytest.raises(HiddenColumnError, match=column):
        getattr(visible, column)
    # Records still see the truth, and all other columns answer.
    assert torch.equal(getattr(pool, column), getattr(mixed(), column))
    assert all(torch.equal(getattr(visible, name), getattr(pool, name)) for name in COLUMNS if name != column)
    assert len(visible) == len(pool)


@pytest.mark.parametrize("name", ["sources", "reasons", "hidden", "counts_by_birth", "content_hash", "take", "colour"])
def test_a_visible_pool_offers_nothing_but_images_labels_and_provenance(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(mixed().visible(), name)
    assert len(mixed().visible()) == len(mixed())


def test_hidden_columns_stay_hidden_through_the_disk(tmp_path: Path) -> None:
    mixed().hide("born").save(tmp_path / "pool.safetensors")
    visible = Pool.load(tmp_path / "pool.safetensors").visible()
    with pytest.raises(HiddenColumnError):
        visible.born  # noqa: B018
    assert torch.equal(visible.seed, mixed().seed)


def test_images_are_counted_by_birth_in_order() -> None:
    pool = Pool.concat([sampled(2, born=10), sampled(3, born=9), real(4)])
    assert list(pool.counts_by_birth().items()) == [("real", 4), ("gen_009", 3), ("gen_010", 2)]


def test_births_have_names() -> None:
    assert [birth_name(born) for born in (REAL, 0, 7, 123, 1000)] == [
        "real",
        "gen_000",
        "gen_007",
        "gen_123",
        "gen_1000",
    ]


def test_the_content_hash_follows_images_and_labels_only() -> None:
    pool = real()
    same = Pool.sampled(pool.images, pool.labels, pool.seed + 9, start=3, born=5, source="flow").hide("born")
    assert same.content_hash == pool.content_hash
    others = [
        Pool.real(pool.images, pool.labels + 1, "digits"),
        Pool.real(255 - pool.images, pool.labels, "digits"),
        Pool.real(pool.images.float(), pool.labels, "digits"),
        pool.take(torch.tensor([1, 0, 2, 3])),
    ]
    assert len({pool.content_hash, *(other.content_hash for other in others)}) == 5


def test_columns_do_not_share_memory() -> None:
    # safetensors refuses to write tensors that do, so a pool could not be saved.
    for pool in (real(), sampled(), mixed(), mixed().take(torch.arange(3)), mixed().take(torch.arange(3), "x")):
        addresses = [getattr(pool, name).untyped_storage().data_ptr() for name in COLUMNS]
        assert len(set(addresses)) == len(addresses)


def test_a_file_of_other_tensors_is_not_taken_for_a_pool(tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    write_tensors(path, {"weight": torch.zeros(2)})
    with pytest.raises(RunDirError, match=r"kept\.safetensors"):
        Pool.load(path)
    assert path.exists()


def test_unquantised_and_quantised_images_are_put_on_one_scale() -> None:
    unquantised = replace(sampled(2), images=torch.full((2, 1, 2, 3), 0.1))
    pool = Pool.concat([real(3), unquantised])
    assert torch.equal(pool.images, torch.cat([to_float(images(3)), unquantised.images]))
    assert Pool.concat([unquantised, unquantised]).images.dtype == torch.float32
    assert Pool.concat([real(3), sampled(2)]).images.dtype == torch.uint8


def test_class_weights_are_summed_over_the_images_that_have_a_label() -> None:
    pool = replace(real(5), labels=torch.tensor([2, 0, UNLABELLED, 2, 0]))
    weights = torch.tensor([1.0, 0.5, 7.0, 2.0, 0.0])
    assert pool.class_weights(weights, num_classes=4).tolist() == [0.5, 0.0, 3.0, 0.0]
