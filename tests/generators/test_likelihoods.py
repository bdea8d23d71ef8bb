"""The three likelihoods of a decoder, against values by hand and scipy."""

import math

import pytest
import scipy.stats
import torch
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.likelihoods import (
    Bernoulli,
    DiscretisedLogistic,
    Gaussian,
    Likelihood,
    ScaledLikelihood,
    make_likelihood,
)
from collapse_bench.seeding import image_normal
from collapse_bench.types import to_float, to_uint8

LEVELS = torch.arange(256) / 127.5 - 1.0
SCALES = [0.003, 0.02, 0.13, 1.0, 10.0]
LOCATIONS = [-3.0, -1.0, -0.2, 0.004, 1.0, 2.0]


def images(*values: float) -> Tensor:
    """One image of these values."""
    return torch.tensor(values).view(1, 1, 1, -1)


def each(values: Tensor) -> Tensor:
    """An image of one value for each."""
    return values.view(-1, 1, 1, 1)


def test_the_bernoulli_likelihood_by_hand() -> None:
    # White with probability 3/4: of white, of black and of the middle grey, which counts half as each.
    logits = torch.full((3, 1, 1, 1), math.log(3.0))
    expected = [math.log(0.75), math.log(0.25), 0.5 * math.log(0.75 * 0.25)]
    assert Bernoulli().log_prob(logits, each(torch.tensor([1.0, -1.0, 0.0]))).tolist() == pytest.approx(expected)
    assert Bernoulli().mean(logits)[0].item() == pytest.approx(0.5)
    assert Bernoulli().log_prob(torch.zeros(1, 2, 3, 4), torch.rand(1, 2, 3, 4)).item() == pytest.approx(
        -24 * math.log(2.0)
    )


def normal(count: int) -> torch.Tensor:
    return image_normal(torch.arange(count), (1, 1, 1), draw=1)


def test_bernoulli_draws_are_black_or_white_with_the_mean_as_probability() -> None:
    logits = torch.full((20_000, 1, 1, 1), math.log(3.0))
    drawn = Bernoulli().draw(logits, normal(20_000))
    assert set(drawn.flatten().tolist()) == {-1.0, 1.0}
    # Binomial: standard deviation 0.0031.
    assert (drawn == 1).float().mean().item() == pytest.approx(0.75, abs=5 * 0.0031)


def test_the_gaussian_likelihood_by_hand() -> None:
    gaussian = Gaussian(0.5)
    # One standard deviation off: -1/2 + log 2 - log(2 pi) / 2.
    assert gaussian.log_prob(images(0.25), images(0.75)).item() == pytest.approx(-0.5 + math.log(2) - 0.918938533)
    output, values = torch.randn(5, 1, 3, 3), torch.rand(5, 1, 3, 3)
    expected = scipy.stats.norm.logpdf(values.double(), output.double(), 0.5).reshape(5, -1).sum(1)
    assert gaussian.log_prob(output, values).tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert torch.equal(gaussian.mean(output), output)


def test_gaussian_draws_have_their_standard_deviation_and_may_leave_the_range() -> None:
    drawn = Gaussian(0.5).draw(torch.full((20_000, 1, 1, 1), 0.9), normal(20_000))
    assert drawn.mean().item() == pytest.approx(0.9, abs=5 * 0.5 / 20_000**0.5)
    assert drawn.std().item() == pytest.approx(0.5, rel=5 / 40_000**0.5)
    assert drawn.max() > 1
    assert to_uint8(drawn).max() == 255


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("location", LOCATIONS)
def test_the_probabilities_of_the_256_levels_are_those_of_the_logistic_and_sum_to_1(
    location: float, scale: float
) -> None:
    output = torch.full((256, 1, 1, 1), location)
    log_prob = DiscretisedLogistic(scale).log_prob(output, each(LEVELS)).double()
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-4)
    edges = (torch.arange(255).double() + 0.5) / 127.5 - 1.0
    upper = scipy.stats.logistic.cdf(edges, location, scale)
    expected = torch.from_numpy(upper).diff(prepend=torch.zeros(1), append=torch.ones(1))
    likely = expected > 1e-9  # below that, differences of the cumulative distribution are rounding
    assert log_prob[likely].tolist() == pytest.approx(expected[likely].log().tolist(), abs=2e-3)
    assert torch.isfinite(log_prob).all()


def test_the_discretised_logistic_by_hand() -> None:
    # Level 127 reaches from -2/255 to 0, and 2/255 is log 3 scales: 1/2 - 1/4.
    scale = 2 / 255 / math.log(3.0)
    assert DiscretisedLogistic(scale).log_prob(images(0.0), images(127 / 127.5 - 1)).item() == pytest.approx(
        math.log(0.25), rel=1e-4
    )
    # Half of the distribution lies below the upper edge of level 0, and above the lower edge of level 255.
    for edge in (-1.0, 1.0):
        assert DiscretisedLogistic(0.3).log_prob(images(edge * (1 - 1 / 255)), images(edge)).item() == pytest.approx(
            math.log(0.5), rel=1e-4
        )


def test_between_two_levels_the_nearest_one_counts() -> None:
    logistic = DiscretisedLogistic(0.1)
    exact = logistic.log_prob(images(0.2), images(200 / 127.5 - 1))
    assert torch.equal(logistic.log_prob(images(0.2), images(200.4 / 127.5 - 1)), exact)
    assert torch.equal(logistic.log_prob(images(0.2), images(1.3)), logistic.log_prob(images(0.2), images(1.0)))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("location", LOCATIONS)
def test_the_mean_of_the_discretised_logistic_is_within_half_a_level_of_that_of_its_levels(
    location: float, scale: float
) -> None:
    logistic = DiscretisedLogistic(scale)
    probabilities = logistic.log_prob(torch.full((256, 1, 1, 1), location), each(LEVELS)).double().exp()
    mean = logistic.mean(images(location)).item()
    assert abs(mean - (probabilities * LEVELS).sum().item()) < (1.001 / 255 if scale < 0.01 else 0.05 / 255)
    assert -1 - 1e-5 <= mean <= 1 + 1e-5


def test_draws_of_the_discretised_logistic_are_levels_with_their_probabilities() -> None:
    logistic, count = DiscretisedLogistic(0.4), 50_000
    drawn = logistic.draw(torch.full((count, 1, 1, 1), 0.3), normal(count)).flatten()
    levels = to_uint8(drawn)
    assert torch.equal(to_float(levels), drawn)
    expected = logistic.log_prob(torch.full((256, 1, 1, 1), 0.3), each(LEVELS)).double().exp()
    counts = levels.long().bincount(minlength=256)
    assert scipy.stats.chisquare(counts, expected / expected.sum() * count).pvalue > 1e-3
    assert counts[0] > 500  # the edges hold what lies beyond them
    assert counts[255] > 500


def test_a_gaussian_density_and_the_probability_of_grey_levels_differ_by_the_width_of_a_level() -> None:
    output, values = images(0.1), images(200 / 127.5 - 1)
    edges = [(200 + side) / 127.5 - 1 for side in (-0.5, 0.5)]
    low, high = scipy.stats.norm.cdf(edges, 0.1, 0.3)
    density = Gaussian(0.3).log_prob(output, values).item()
    assert density + math.log(2 / 255) == pytest.approx(math.log(high - low), abs=1e-3)


@pytest.mark.parametrize("kind", [Gaussian, DiscretisedLogistic])
def test_a_learnt_scale_is_one_parameter_with_a_floor_and_a_stated_one_is_none(kind: type[ScaledLikelihood]) -> None:
    learnt, stated = kind(None), kind(0.25)
    assert [p.shape for p in learnt.parameters()] == [()]
    assert list(stated.parameters()) == []
    assert stated.log_scale.exp().item() == pytest.approx(0.25)
    assert stated.state_dict().keys() == {"stated_log_scale"}
    assert learnt.log_scale.item() == pytest.approx(-2.0, abs=0.02)
    learnt.load_state_dict({"free_log_scale": torch.tensor(-1000.0)})
    assert learnt.log_scale.item() == -6.0
    assert torch.isfinite(learnt.log_prob(images(0.0), images(1.0))).all()


def test_the_likelihood_is_highest_where_the_learnt_standard_deviation_is_that_of_the_errors() -> None:
    gaussian, errors = Gaussian(None), 0.3 * torch.randn(1, 1, 50, 50, generator=torch.Generator().manual_seed(0))
    best = errors.square().mean().sqrt().log().item()
    free = math.log(math.expm1(best + 6.0)) - 6.0  # undoes the floor
    gaussian.load_state_dict({"free_log_scale": torch.tensor(free)})
    gaussian.log_prob(torch.zeros_like(errors), errors).backward()
    gradient = next(gaussian.parameters()).grad
    assert gradient is not None
    assert abs(gradient.item()) < 1e-4 * errors.numel()


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(0.2), DiscretisedLogistic(0.1)])
def test_a_draw_depends_on_its_noise_alone(likelihood: Likelihood) -> None:
    output, noise = 0.3 * torch.randn(6, 1, 4, 4), torch.randn(6, 1, 4, 4)
    state = torch.get_rng_state()
    whole = likelihood.draw(output, noise)
    assert torch.equal(torch.cat([likelihood.draw(output[k : k + 1], noise[k : k + 1]) for k in range(6)]), whole)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(likelihood.draw(output[:1].expand(2, -1, -1, -1), noise[:2])[0], whole[1])
    broken = likelihood.draw(torch.full((1, 1, 4, 4), math.nan), noise[:1])
    assert broken.isnan().all(), "black pixels would hide a broken model"


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(0.2), DiscretisedLogistic(0.1)])
def test_narrower_noise_draws_nearer_to_the_likeliest_image(likelihood: Likelihood) -> None:
    output, noise = torch.full((20_000, 1, 1, 1), 0.6), normal(20_000)
    spreads = [likelihood.draw(output, temperature * noise).double().std().item() for temperature in (0.0, 0.5, 1.0)]
    assert spreads[0] == 0.0
    assert 0.0 < spreads[1] < 0.9 * spreads[2]


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"decoder_scale must be above 0 .* got 0.0"):
        make_likelihood("gaussian", 0.0)
    with pytest.raises(ConfigError, match=r"likelihood=bernoulli has none; set it to null"):
        make_likelihood("bernoulli", 0.1)
    kinds = [type(make_likelihood(name, None)) for name in ("bernoulli", "gaussian", "discretised_logistic")]
    assert kinds == [Bernoulli, Gaussian, DiscretisedLogistic]
