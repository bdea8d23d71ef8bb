import itertools
import math
import random

import pytest
import scipy.stats
import torch

from collapse_bench import seeding
from collapse_bench.seeding import RUN_LEVEL, Role, Stream, image_normal, image_uniform, isolated_rng, philox

SEEDS = Stream(run_seed=3, generation=2, role=Role.SAMPLE).image_seeds(0, 200)
SHAPE = (1, 28, 28)


def words_of(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


def philox_words(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    c0, c1, c2, c3 = (torch.tensor([word]) for word in counter)
    k0, k1 = (torch.tensor([word]) for word in key)
    return tuple(int(word) for word in philox((c0, c1, c2, c3), (k0, k1)))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter: str, key: str, expected: str) -> None:
    assert philox_words(words_of(counter), words_of(key)) == words_of(expected)


def test_philox_agrees_with_integers_that_cannot_overflow() -> None:
    def reference(counter: list[int], key: list[int]) -> tuple[int, ...]:
        (c0, c1, c2, c3), (k0, k1) = counter, key
        for _ in range(10):
            high0, low0 = divmod(0xD2511F53 * c0, 2**32)
            high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
            c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
            k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
        return c0, c1, c2, c3

    rng = random.Random(0)
    cases = [([rng.getrandbits(32) for _ in range(4)], [rng.getrandbits(32) for _ in range(2)]) for _ in range(100)]
    assert [philox_words(tuple(c), tuple(k)) for c, k in cases] == [reference(c, k) for c, k in cases]


@pytest.mark.parametrize("noise", [image_uniform, image_normal])
def test_noise_of_an_image_does_not_depend_on_its_batch(noise) -> None:
    whole = noise(SEEDS, SHAPE, 0)
    for batch_size in (1, 7, 199):
        assert torch.equal(torch.cat([noise(batch, SHAPE, 0) for batch in SEEDS.split(batch_size)]), whole)
    order = torch.randperm(len(SEEDS), generator=torch.Generator().manual_seed(0))
    assert torch.equal(noise(SEEDS[order], SHAPE, 0), whole[order])


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5), (3, 4, 4)])
def test_noise_has_the_shape_of_the_images(shape: tuple[int, ...]) -> None:
    uniform, normal = image_uniform(SEEDS, shape, 0), image_normal(SEEDS, shape, 0)
    assert uniform.shape == normal.shape == (len(SEEDS), *shape)
    assert (uniform.dtype, normal.dtype) == (torch.float64, torch.float32)
    assert image_normal(SEEDS[:0], shape, 0).shape == (0, *shape)


def test_uniform_noise_is_uniform() -> None:
    values = image_uniform(SEEDS, SHAPE, 0).flatten()
    assert scipy.stats.kstest(values.numpy(), "uniform").pvalue > 1e-3


def test_normal_noise_is_normal() -> None:
    values = image_normal(SEEDS, SHAPE, 0).flatten().double()
    assert scipy.stats.kstest(values.numpy(), "norm").pvalue > 1e-3
    # Standard errors of the first four moments of a normal sample.
    num = len(values)
    for power, expected, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs(values.pow(power).mean() - expected) < 5 * math.sqrt(variance / num)


def test_every_pixel_and_every_image_is_normal() -> None:
    values = image_normal(SEEDS, SHAPE, 0).flatten(1).double()
    for means in (values.mean(0) * math.sqrt(values.shape[0]), values.mean(1) * math.sqrt(values.shape[1])):
        assert scipy.stats.kstest(means.numpy(), "norm").pvalue > 1e-3


def pairs(which: str) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = (image_normal(SEEDS, SHAPE, draw).flatten(1).double() for draw in (0, 1))
    return {
        "neighbouring images": (first[1:], first[:-1]),
        "draws of one image": (first, second),
        "an image's second draw and the next image's first": (second[:-1], first[1:]),
        "neighbouring pixels": (first[:, 1:], first[:, :-1]),
        "neighbouring blocks of four": (first[:, 4:], first[:, :-4]),
        "the two halves of a pair": (first[:, ::2], first[:, 1::2]),
    }[which]


@pytest.mark.parametrize(
    "which",
    [
        "neighbouring images",
        "draws of one image",
        "an image's second draw and the next image's first",
        "neighbouring pixels",
        "neighbouring blocks of four",
        "the two halves of a pair",
    ],
)
def test_noise_is_uncorrelated_between(which: str) -> None:
    first, second = pairs(which)
    # The mean product of n independent pairs has standard error 1 / sqrt(n); that of their squares, 2 / sqrt(n).
    assert abs((first * second).mean()) < 5 / math.sqrt(first.numel())
    assert abs(((first**2 - 1) * (second**2 - 1)).mean()) < 5 * 2 / math.sqrt(first.numel())


def test_no_two_images_share_their_noise() -> None:
    correlation = torch.corrcoef(image_normal(SEEDS, SHAPE, 0).flatten(1).double()).fill_diagonal_(0.0)
    # About 20,000 pairs: the largest of them is expected near 4 standard errors.
    assert correlation.abs().max() < 6 / math.sqrt(math.prod(SHAPE))


def test_extreme_words_give_finite_noise_within_the_open_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in (0, 2**32 - 1):
        monkeypatch.setattr(seeding, "_words", lambda seeds, num, draw, word=word: torch.full((len(seeds), num), word))
        uniform = image_uniform(SEEDS[:2], (4,), 0)
        assert ((uniform > 0) & (uniform < 1)).all()
        assert image_normal(SEEDS[:2], (4,), 0).isfinite().all()


def test_streams_differ_by_seed_generation_and_role() -> None:
    streams = [
        Stream(seed, generation, role) for seed in range(12) for generation in range(RUN_LEVEL, 12) for role in Role
    ]
    seeds = {stream.seed for stream in streams}
    assert len(seeds) == len(streams)
    assert all(0 <= seed < 2**62 for seed in seeds)


def test_images_of_two_streams_have_no_seed_in_common() -> None:
    starts = sorted(Stream(seed, t, role).seed for seed in range(5) for t in range(20) for role in Role)
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert min(gaps) > 10**9


def test_streams_are_the_same_numbers_for_ever() -> None:
    # Pinned: another value makes every stored record irreproducible.
    stream = Stream(run_seed=7, generation=3, role=Role.FIT)
    assert stream.seed == 2186993578517650536
    assert torch.rand(2, generator=stream.generator(), dtype=torch.float64).tolist() == [
        0.340707961183626,
        0.10034259706276027,
    ]
    seeds = stream.image_seeds(0, 1)
    assert image_uniform(seeds, (3,), 0).mul(2**32).sub(0.5).tolist() == [[1404208220, 1405767743, 675049284]]
    # Logarithm and cosine may differ in the last bit between machines.
    assert image_normal(seeds, (3,), 0).tolist()[0] == pytest.approx([-0.6980854, 1.322353, 0.8037969], rel=1e-6)


def test_a_stream_starts_anew_every_time() -> None:
    stream = Stream(0, 0, Role.MIX)
    first, second = (torch.rand(5, generator=stream.generator()) for _ in range(2))
    assert torch.equal(first, second)


def test_image_seeds_do_not_depend_on_how_many_are_asked_for() -> None:
    stream = Stream(0, 4, Role.SAMPLE)
    chunks = torch.cat([stream.image_seeds(0, 3), stream.image_seeds(3, 1), stream.image_seeds(4, 6)])
    assert torch.equal(chunks, stream.image_seeds(0, 10))
    assert len(chunks.unique()) == 10


def test_isolated_rng_leaves_the_global_state_untouched() -> None:
    before = torch.get_rng_state()
    with isolated_rng(5):
        torch.rand(100)
    assert torch.equal(torch.get_rng_state(), before)

    with pytest.raises(ZeroDivisionError), isolated_rng(5):
        1 / torch.rand(100).mul(0).long().sum().item()
    assert torch.equal(torch.get_rng_state(), before)


def test_isolated_rng_gives_numbers_that_depend_on_its_seed_only() -> None:
    def draw(seed: int, before: int) -> torch.Tensor:
        with isolated_rng(before):
            torch.rand(before)
            with isolated_rng(seed):
                return torch.rand(5)

    assert torch.equal(draw(1, before=2), draw(1, before=3))
    assert not torch.equal(draw(1, before=2), draw(2, before=2))
