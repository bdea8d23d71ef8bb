import pytest
import torch

from collapse_bench.datasets.split import draw, long_tailed, quotas


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("class_sizes", "count", "expected"),
    [
        ([10, 10], 4, [2, 2]),
        ([10, 10], 5, [3, 2]),
        ([1, 1, 1], 2, [1, 1, 0]),
        ([6, 3, 1], 5, [3, 2, 0]),
        ([100, 0, 1], 101, [100, 0, 1]),
        ([5], 3, [3]),
    ],
)
def test_quotas_follow_the_largest_remainder(class_sizes: list[int], count: int, expected: list[int]) -> None:
    assert quotas(torch.tensor(class_sizes), count).tolist() == expected


def test_quotas_add_up_and_never_exceed_a_class() -> None:
    generator = rng()
    for _ in range(200):
        sizes = torch.randint(0, 50, (7,), generator=generator) + torch.tensor([1, 0, 0, 0, 0, 0, 0])
        count = int(torch.randint(1, int(sizes.sum()) + 1, (), generator=generator))
        shares = quotas(sizes, count)
        assert shares.sum() == count
        assert (shares <= sizes).all()
        assert ((shares - sizes * count / sizes.sum()).abs() < 1).all()


def test_a_draw_and_its_rest_are_a_partition() -> None:
    labels = torch.arange(100) % 3
    among = torch.arange(20, 90)
    drawn, left = draw(labels, among, 33, rng())
    assert len(drawn) == 33
    assert torch.cat((drawn, left)).sort().values.tolist() == among.tolist()


def test_a_draw_is_not_grouped_by_class() -> None:
    labels = torch.arange(3000) // 1000
    drawn, _ = draw(labels, torch.arange(3000), 600, rng())
    even, odd = labels[drawn[::2]].bincount(), labels[drawn[1::2]].bincount()
    # Hypergeometric: 100 per class and half expected, standard deviation 8.2.
    assert ((even - 100).abs() < 5 * 8.2).all()
    assert ((odd - 100).abs() < 5 * 8.2).all()
    assert (labels[drawn].diff() != 0).float().mean() > 0.5


def test_every_image_is_equally_likely() -> None:
    labels = torch.tensor([0] * 4 + [1] * 8)
    generator = rng()
    hits = torch.zeros(12)
    for _ in range(2000):
        hits[draw(labels, torch.arange(12), 6, generator)[0]] += 1
    # Binomial with p = 1/2: standard deviation 22.4.
    assert ((hits - 1000).abs() < 5 * 22.4).all()


@pytest.mark.parametrize(
    ("class_sizes", "ratio", "expected"),
    [
        ([100, 100, 100], 0.01, [100, 10, 1]),
        ([100, 100, 100], 1.0, [100, 100, 100]),
        ([50, 100, 100], 1.0, [50, 50, 50]),
        ([100, 100, 10], 0.25, [40, 20, 10]),  # the last class decides
        ([7], 0.1, [7]),
        ([4, 4], 0.1, [4, 0]),
    ],
)
def test_long_tailed_sizes_fall_geometrically_within_what_there_is(
    class_sizes: list[int], ratio: float, expected: list[int]
) -> None:
    assert long_tailed(torch.tensor(class_sizes), ratio).tolist() == expected
