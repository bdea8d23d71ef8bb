"""The real loop on the closed-form Gaussian, against formulas.

One run has many independent dimensions, each of which is a chain of its own, so every mean over dimensions comes
with a standard error. Tolerances are four of them: a right program fails one of these tests about once in 10,000.
G counts fits: with generation 0 fitted on real images, G = t + 1.
"""

from pathlib import Path

import numpy as np
import pytest
from chains import composed, opened_run_dir, parts_of
from safetensors.numpy import load_file
from scipy.special import digamma, gammaln

from collapse_bench.loop import run_generations

NUM_IMAGES = 20
NUM_CHAINS = 3000
NUM_GENERATIONS = 8


def run_chains(tmp_path: Path, *overrides: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of the models, [generation, chain]."""
    config = composed(
        *("dataset=gaussian", f"dataset.num_values={NUM_CHAINS}", f"dataset.num_images={NUM_IMAGES + 4}"),
        *("dataset.num_real=null", "dataset.num_reference=2", "dataset.num_control=2"),
        *("generator=gaussian", "generator.covariance=diagonal", "encoder=pixels", "metrics=features"),
        f"budget.num_generations={NUM_GENERATIONS}",
        *overrides,
    )
    config["metrics"] = {}  # nothing to measure here: the models themselves are looked at
    with opened_run_dir(tmp_path / "run") as run_dir:
        run_generations(parts_of(config, tmp_path / "store"), seed, run_dir, keep="all")
    models = [load_file(run_dir.generation(t) / "fitted.safetensors") for t in range(NUM_GENERATIONS + 1)]
    return np.stack([m["mean"] for m in models]), np.stack([m["factor"] for m in models])


def assert_mean_is(samples: np.ndarray, expected: float) -> None:
    """The mean over chains is the expected value within four standard errors."""
    standard_error = samples.std(ddof=1) / np.sqrt(samples.size)
    assert abs(samples.mean() - expected) < 4 * standard_error


@pytest.mark.parametrize("t", [0, 1, 4, 8])
def test_variance_decays_geometrically_under_replace(t: int, replace_chains: tuple[np.ndarray, np.ndarray]) -> None:
    _, sd = replace_chains
    assert_mean_is(sd[t] ** 2, ((NUM_IMAGES - 1) / NUM_IMAGES) ** (t + 1))


@pytest.fixture(scope="module")
def replace_chains(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    return run_chains(tmp_path_factory.mktemp("replace"), "regime=replace")


@pytest.fixture(scope="module")
def unbiased_chains(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    return run_chains(tmp_path_factory.mktemp("unbiased"), "regime=replace", "generator.unbiased=true")


@pytest.mark.parametrize("t", [0, 1, 4, 8])
def test_standard_deviation_decays_by_c4_when_the_variance_is_unbiased(
    t: int, unbiased_chains: tuple[np.ndarray, np.ndarray]
) -> None:
    n = NUM_IMAGES
    c4 = np.sqrt(2 / (n - 1)) * np.exp(gammaln(n / 2) - gammaln((n - 1) / 2))
    assert_mean_is(unbiased_chains[1][t], c4 ** (t + 1))


@pytest.mark.parametrize("t", [0, 1, 4, 8])
def test_log_variance_drifts_by_the_digamma_law(t: int, unbiased_chains: tuple[np.ndarray, np.ndarray]) -> None:
    half = (NUM_IMAGES - 1) / 2
    assert_mean_is(np.log(unbiased_chains[1][t] ** 2), (t + 1) * (digamma(half) - np.log(half)))


def test_mean_wanders_linearly_under_replace(tmp_path: Path) -> None:
    mean, _ = run_chains(tmp_path, "regime=replace", "generator.covariance=identity")
    for t in (0, 3, 8):
        assert_mean_is(mean[t] ** 2, (t + 1) / NUM_IMAGES)


def test_mean_wanders_logarithmically_under_replace_multiple(tmp_path: Path) -> None:
    mean, _ = run_chains(tmp_path, "regime=replace_multiple", "generator.covariance=identity")
    for t in (0, 3, 8):
        assert_mean_is(mean[t] ** 2, sum(1 / i for i in range(1, t + 2)) / NUM_IMAGES)


@pytest.mark.parametrize("num_initial", [5, 80])
def test_fresh_images_make_the_chain_forget_its_first_ones(num_initial: int, tmp_path: Path) -> None:
    # m_t is the mean of n fresh images and n samples around m_(t-1), so V_t = 1/(4n) + (V_(t-1) + 1/n) / 4, which goes
    # to 2/(3n) wherever it began.
    n = NUM_IMAGES
    num_images = num_initial + NUM_GENERATIONS * n + 4
    options = (f"regime.num_initial={num_initial}", f"regime.num_fresh={n}", f"budget.num_synthetic={n}")
    images = f"dataset.num_images={num_images}"
    mean, _ = run_chains(tmp_path, "regime=fresh", "generator.covariance=identity", *options, images)
    for t in (0, 1, 3, 8):
        assert_mean_is(mean[t] ** 2, 2 / (3 * n) + (1 / num_initial - 2 / (3 * n)) / 4**t)


def test_mean_stays_bounded_under_accumulate(tmp_path: Path) -> None:
    mean, _ = run_chains(tmp_path, "regime=accumulate", "generator.covariance=identity")
    for t in (0, 3, 8):
        assert_mean_is(mean[t] ** 2, sum(1 / i**2 for i in range(1, t + 2)) / NUM_IMAGES)


def test_mean_stays_bounded_under_augment(tmp_path: Path) -> None:
    # With m0 fitted on R, the deviation e_t = m_t - m0 obeys e_t = (e_(t-1) + noise) / 2, noise of variance 1/n, so
    # Var(m_t) = 1/n + (1 - 4^-t) / (3n).
    mean, _ = run_chains(tmp_path, "regime=augment", "generator.covariance=identity")
    for t in (0, 1, 3, 8):
        assert_mean_is(mean[t] ** 2, (1 + (1 - 4.0**-t) / 3) / NUM_IMAGES)


def test_nothing_changes_under_real(tmp_path: Path) -> None:
    mean, sd = run_chains(tmp_path, "regime=real")
    assert np.array_equal(mean, np.tile(mean[0], (NUM_GENERATIONS + 1, 1)))
    assert np.array_equal(sd, np.tile(sd[0], (NUM_GENERATIONS + 1, 1)))


def test_temperature_multiplies_the_variance_by_its_square_every_generation(tmp_path: Path) -> None:
    _, sd = run_chains(tmp_path, "regime=replace", "sampler.temperature=0.9")
    for t in (0, 1, 4):
        assert_mean_is(sd[t] ** 2, ((NUM_IMAGES - 1) / NUM_IMAGES) ** (t + 1) * 0.9 ** (2 * t))


def test_full_covariance_decays_as_fast_as_its_diagonal(tmp_path: Path) -> None:
    config = composed(
        *("dataset=gaussian", "dataset.num_values=60", "dataset.num_images=24", "dataset.num_real=null"),
        *("dataset.num_reference=2", "dataset.num_control=2", "generator=gaussian", "generator.covariance=full"),
        *("encoder=pixels", "metrics=features", "budget.num_generations=3"),
    )
    config["metrics"] = {}
    final = []
    for seed in range(8):
        with opened_run_dir(tmp_path / str(seed)) as run_dir:
            run_generations(parts_of(config, tmp_path / "store"), seed, run_dir, keep="all")
        factor = load_file(run_dir.generation(3) / "fitted.safetensors")["factor"]
        first = load_file(run_dir.generation(0) / "fitted.safetensors")["factor"]
        final.append(np.trace(factor @ factor.T) / np.trace(first @ first.T))
    # All seeds share the real images, so generation 0 is divided out and three fits on samples remain.
    assert_mean_is(np.array(final), ((NUM_IMAGES - 1) / NUM_IMAGES) ** 3)
