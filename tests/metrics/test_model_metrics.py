"""Numbers of the model itself: held-out loss, reconstruction error, latent spread."""

import math

import pytest
import torch
from chains import composed
from torch.distributions import MultivariateNormal

from collapse_bench.cli.config import build
from collapse_bench.errors import ConfigError, MetricError
from collapse_bench.generators.gaussian import GaussianModel
from collapse_bench.generators.vae import VAEModel
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.metrics.model import HeldOutLoss, LatentSpread, ReconstructionError
from collapse_bench.seeding import isolated_rng
from collapse_bench.types import ImageSpec

SPEC = ImageSpec(1, 8, 8, ("a", "b"))


@pytest.fixture
def images() -> ImageSet:
    rng = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (700, 1, 8, 8), generator=rng, dtype=torch.uint8)
    return ImageSet(images=pixels, labels=torch.arange(700) % 2)


@pytest.fixture(scope="module")
def vae() -> VAEModel:
    with isolated_rng(3):
        model = build(composed("generator=vae")["generator"], "generator").empty_model(SPEC)
    assert isinstance(model, VAEModel)
    return model.eval()


def gaussian(factor: torch.Tensor) -> GaussianModel:
    model = GaussianModel(ImageSpec(1, 1, 3, ("a",), "float32"), full=factor.ndim == 2)
    model.mean.data = torch.tensor([1.0, 2.0, 3.0]).double()
    model.factor.data = factor.double()
    return model


def scored(metric, images, model, first=None):
    metric.update(images, model=model, first=model if first is None else first)
    return metric.compute()


@pytest.mark.parametrize(
    "factor", [torch.tensor([1.0, 0.5, 2.0]), torch.tensor([[1.0, 0, 0], [0.3, 1, 0], [0, 0.2, 2]])]
)
def test_the_gaussian_loss_is_the_negative_log_likelihood(factor):
    model = gaussian(factor)
    matrix = (factor.diag() if factor.ndim == 1 else factor).double()
    points = torch.randn(40, 1, 1, 3, generator=torch.Generator().manual_seed(0))
    expected = -MultivariateNormal(model.mean.data, matrix @ matrix.T).log_prob(points.flatten(1).double())
    images = ImageSet(images=points, labels=torch.zeros(40).long())
    estimate = scored(HeldOutLoss(num_draws=1), images, model)["held_out_loss"]
    assert estimate.value == pytest.approx(expected.mean().item(), rel=1e-10)
    assert estimate.low < estimate.value < estimate.high


def test_a_gaussian_that_has_lost_a_dimension_has_an_infinite_loss():
    model = gaussian(torch.tensor([1.0, 0.0, 1.0]))
    images = ImageSet(images=torch.zeros(5, 1, 1, 3), labels=torch.zeros(5).long())
    assert scored(HeldOutLoss(), images, model)["held_out_loss"].value == math.inf


def test_the_held_out_loss_draws_the_same_noise_every_time_and_leaves_the_global_random_state(vae, images):
    before = torch.get_rng_state()
    first, second = (scored(HeldOutLoss(), images, vae)["held_out_loss"] for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)


def test_more_draws_bring_the_loss_of_an_image_nearer_to_its_mean(vae, images):
    values = {n: scored(HeldOutLoss(num_draws=n), images, vae)["held_out_loss"].value for n in (1, 4, 64)}
    assert abs(values[4] - values[64]) < 0.02 * abs(values[64])
    assert len(set(values.values())) == 3


def test_the_reconstruction_error_is_that_of_the_mean_code(vae, images):
    pixels = images.images.float() / 127.5 - 1
    with torch.no_grad():
        mean, _ = vae.posterior(pixels, images.labels)
        expected = (vae.decode(mean, images.labels) - pixels).square().mean().item()
    assert scored(ReconstructionError(), images, vae)["reconstruction_error"].value == pytest.approx(expected, rel=1e-5)


def test_latent_spread_is_measured_by_the_first_model(vae, images):
    with isolated_rng(9):
        later = build(composed("generator=vae")["generator"], "generator").empty_model(SPEC)
    with torch.no_grad():
        latents = vae.posterior(images.images.float() / 127.5 - 1, images.labels)[0].double()
    expected = latents.var(0).mean().sqrt().item()
    scores = scored(LatentSpread(), images, later, first=vae)
    assert scores["latent_sd"].value == pytest.approx(expected, rel=1e-5)
    assert scores["latent_mean"].value == pytest.approx(latents.mean(0).square().mean().sqrt().item(), rel=1e-5)


def test_latents_by_hand():
    # Two dimensions, with means 3 and 4 and variances 2 and 0.
    scores = LatentSpread().score(torch.tensor([[2.0, 4.0], [4.0, 4.0]]).double())
    assert scores["latent_sd"].value == 1.0
    assert scores["latent_mean"].value == pytest.approx(12.5**0.5)


def test_as_many_images_are_encoded_as_are_asked_for():
    assert LatentSpread().num_images is None
    assert LatentSpread(num_images=100).num_images == 100
    with pytest.raises(ConfigError, match="num_images must be at least 2"):
        LatentSpread(num_images=1)


def test_families_without_latents_have_no_numbers_of_latents(images):
    flow = build(composed("generator=flow")["generator"], "generator").empty_model(SPEC)
    assert scored(ReconstructionError(), images, flow) == {}
    assert scored(LatentSpread(), images, flow) == {}
    assert scored(HeldOutLoss(), images, flow)["held_out_loss"].value > 0


def test_a_model_that_gives_nan_is_named(vae, images):
    broken = build(composed("generator=vae")["generator"], "generator").empty_model(SPEC)
    next(broken.parameters()).data.fill_(math.nan)
    with pytest.raises(MetricError, match="HeldOutLoss: the model gives NaN"):
        HeldOutLoss().update(images, model=broken, first=broken)


def test_no_draws_are_refused():
    with pytest.raises(ConfigError, match="num_draws"):
        HeldOutLoss(num_draws=0)
