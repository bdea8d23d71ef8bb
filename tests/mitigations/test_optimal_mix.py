from pathlib import Path

import pytest
from chains import TINY_GAUSSIAN, FinishedChain, assert_equal_chains, composed, parts_of
from weighing import AT_GENERATION_1, born

from collapse_bench.errors import ConfigError, SelectionError
from collapse_bench.mitigations.optimal_mix import OptimalMix, optimal_share


def weigh(frac_real: float | None, *births: int) -> list[float]:
    return OptimalMix(frac_real).weigh(born(*births).visible(), AT_GENERATION_1).tolist()  # type: ignore[arg-type]


def test_weights_by_hand() -> None:
    # One real image has 0.6 of the probability, four synthetic ones 0.1 each.
    weights = weigh(0.6, 0, 0, -1, 1, 1)
    assert [w / sum(weights) for w in weights] == pytest.approx([0.1, 0.1, 0.6, 0.1, 0.1])


def test_a_share_that_is_given_does_not_depend_on_the_pool(tmp_path: Path) -> None:
    given = ("mitigation=optimal_mix", "mitigation.weigher.frac_real=0.618")
    for regime in ("augment", "accumulate"):
        chain = FinishedChain(tmp_path / regime, *TINY_GAUSSIAN, f"regime={regime}", *given)
        assert [r.train_shares["real"] for r in chain.records] == pytest.approx([1.0, 0.618, 0.618, 0.618])


def test_the_best_share_follows_the_numbers_of_images(tmp_path: Path) -> None:
    # One real image beside two samples: (sqrt(1/4 + 2) - 1/2) / 2 = 1/2.
    weights = weigh(None, 0, -1, 0)
    assert [w / sum(weights) for w in weights] == pytest.approx([0.25, 0.5, 0.25])
    chain = FinishedChain(tmp_path, *TINY_GAUSSIAN, "regime=accumulate", "mitigation=optimal_mix")
    golden = (5**0.5 - 1) / 2
    assert [r.train_shares["real"] for r in chain.records[:3]] == pytest.approx([1.0, golden, 0.5])


@pytest.mark.parametrize(("num_real", "num_synthetic"), [(1, 1), (56, 897), (300, 100)])
def test_no_other_share_has_less_variance_in_the_long_run(num_real: int, num_synthetic: int) -> None:
    k, best = num_real / num_synthetic, optimal_share(num_real, num_synthetic)

    def variance(w: float) -> float:
        v = 1.0  # of a mean of the real images alone
        for _ in range(500):
            v = w * w + (1 - w) ** 2 * (v + k)
        return v

    assert all(variance(best) < variance(best + shift) for shift in (-0.02, 0.02))


def test_a_pool_of_real_images_alone_has_equal_weights() -> None:
    assert len(set(weigh(0.6, -1, -1, -1))) == 1


def test_a_pool_without_real_images_is_an_error_and_not_the_control() -> None:
    with pytest.raises(SelectionError, match="generation 1: mitigation=optimal_mix has no real image"):
        weigh(0.6, 0, 1, 0)


@pytest.mark.parametrize(("num_real", "num_synthetic"), [(897, 1794), (897, 299), (7, 12)])
def test_the_share_of_an_uneven_pool_gives_exactly_equal_weights(num_real: int, num_synthetic: int) -> None:
    weights = weigh(num_real / (num_real + num_synthetic), *num_real * [-1], *num_synthetic * [0])
    assert len(set(weights)) == 1


def test_the_share_of_the_pool_is_the_control(tmp_path: Path) -> None:
    options = ("mitigation=optimal_mix", "mitigation.weigher.frac_real=0.5")
    arm, control = (FinishedChain(tmp_path / str(k), *TINY_GAUSSIAN, "regime=augment", *options[:k]) for k in (2, 0))
    assert_equal_chains(arm, control)


@pytest.mark.parametrize(
    ("regime", "words"), [("replace", "trains on no real ones"), ("contaminate", "this regime hides it")]
)
def test_what_cannot_be_weighed_is_refused_before_training(regime: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        parts_of(composed(*TINY_GAUSSIAN, f"regime={regime}", "mitigation=optimal_mix"), tmp_path)


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_fractions_outside_the_range_are_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"frac_real must lie in \[0, 1\]"):
        OptimalMix(fraction)
