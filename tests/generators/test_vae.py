"""Classes, guidance and layouts of variational autoencoders."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from chains import composed
from torch import Tensor, nn

from collapse_bench.cli.config import build
from collapse_bench.errors import ConfigError
from collapse_bench.generators.vae import VAE, VAEModel
from collapse_bench.networks.autoencoder import ConvAutoencoder
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.samplers.decoder import DecoderSampler
from collapse_bench.seeding import isolated_rng
from collapse_bench.training import FitJob, TrainerOptions
from collapse_bench.types import ImageSpec, to_float

SPEC = ImageSpec(1, 8, 8, ("a", "b", "c"))
SMALL = ("generator.num_latents=4",)
CVAE = ("generator=cvae", "generator.network.width=32", "generator.condition_dropout=0.1", *SMALL)
CONV_CVAE = (
    "generator=vae_conv",
    "generator.network.channels=8",
    "generator.conditional=true",
    "generator.encoder_sees_class=true",
    "generator.condition_dropout=0.1",
    *SMALL,
)


def recipe(*overrides: str) -> VAE:
    return build(composed(*overrides)["generator"], "generator")


def model_of(generator: VAE, seed: int = 0) -> VAEModel:
    with isolated_rng(seed):
        return generator.empty_model(SPEC).eval()


def sampler(**options: Any) -> DecoderSampler:
    plain: dict[str, Any] = {"temperature": 1.0, "truncation": None, "guidance": 0.0, "quantize": False}
    return DecoderSampler(**{**plain, "batch_size": 100, "output": "mean", **options})


def noise(count: int) -> Tensor:
    return 2 * torch.rand(count, *SPEC.shape, generator=torch.Generator().manual_seed(3)) - 1


LABELS = torch.tensor([0, 1, 2, UNLABELLED])


@pytest.mark.parametrize("options", [CVAE, CONV_CVAE], ids=["mlp", "conv"])
def test_the_encoder_of_a_conditional_vae_sees_the_class_where_it_is_told_to(options: tuple[str, ...]) -> None:
    seeing, blind = model_of(recipe(*options)), model_of(replace(recipe(*options), encoder_sees_class=False))
    image = noise(1).expand(4, -1, -1, -1)
    assert len(seeing.posterior(image, LABELS)[0].unique(dim=0)) == 4
    assert len(blind.posterior(image, LABELS)[0].unique(dim=0)) == 1
    num_added = 3 * (32 if options is CVAE else 8)  # 3 classes into the layer after the images are flattened
    assert seeing.num_parameters - blind.num_parameters == num_added


@pytest.mark.parametrize("options", [CVAE, CONV_CVAE], ids=["mlp", "conv"])
def test_no_class_is_all_zeros(options: tuple[str, ...]) -> None:
    model, latents = model_of(recipe(*options)), torch.randn(4, 4)
    output = model.output(latents, LABELS)
    by_hand = model.decoder(torch.cat([latents, torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])], dim=1))
    assert torch.equal(output, by_hand)
    assert len(model.output(latents[:1].expand(4, -1), LABELS).unique(dim=0)) == 4


def test_an_unconditional_vae_ignores_labels() -> None:
    model, images = model_of(recipe("generator=vae", *SMALL)), noise(4)
    torch.manual_seed(0)
    first = model.loss(images, LABELS)
    torch.manual_seed(0)
    assert torch.equal(model.loss(images, LABELS.flip(0)), first)
    assert not model.has_guidance


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "discretised_logistic"])
def test_guidance_moves_the_output_away_from_that_without_a_class(likelihood: str) -> None:
    model, seeds = model_of(recipe(*CVAE, f"generator.likelihood={likelihood}")), torch.arange(30)
    images, labels = sampler(guidance=1.5).sample(model, seeds)
    with torch.no_grad():
        latents = sampler().noise(seeds, (4,), draw=0)
        with_class, without = (model.output(latents, of) for of in (labels, torch.full_like(labels, UNLABELLED)))
        expected = model.likelihood.mean(with_class + 1.5 * (with_class - without))
        plain = model.likelihood.mean(with_class)
    assert set(labels.tolist()) == {0, 1, 2}
    torch.testing.assert_close(images, expected)
    torch.testing.assert_close(sampler().sample(model, seeds)[0], plain)
    assert not torch.allclose(images, plain)


def test_guidance_costs_two_passes_and_needs_a_model_that_knows_both() -> None:
    guided = sampler(guidance=0.5)
    assert (guided.num_evaluations, sampler().num_evaluations) == (2, 1)
    model = model_of(recipe(*CVAE))
    guided.check(model)
    assert model.has_guidance
    for other in (replace(recipe(*CVAE), condition_dropout=0.0), recipe("generator=vae")):
        with pytest.raises(ConfigError, match=r"needs a model that knows images with and without a class"):
            guided.check(model_of(other))


def test_temperature_and_truncation_are_those_of_latents_and_of_the_draw_of_an_image() -> None:
    model = model_of(recipe(*CVAE, "generator.likelihood=gaussian", "generator.decoder_scale=0.1"))

    def drawn(**bias: float) -> tuple[Tensor, Tensor]:
        images, labels = sampler(output="draw", **bias).sample(model, torch.arange(2000))
        latents = sampler(**bias).noise(torch.arange(2000), (4,), draw=0)
        return latents, images - model.decode(latents, labels)

    for temperature in (0.0, 0.5, 1.0):
        latents, noise = drawn(temperature=temperature)
        assert latents.std().item() == pytest.approx(temperature, rel=0.02)
        assert noise.std().item() == pytest.approx(0.1 * temperature, rel=0.02, abs=1e-6)
    latents, noise = drawn(truncation=1.5)
    assert latents.abs().max() <= 1.5
    assert noise.abs().max() <= 0.1 * 1.5 + 1e-6


def test_training_leaves_the_class_out_as_often_as_it_is_told_to_and_judging_never() -> None:
    seen: list[Tensor] = []
    model = model_of(replace(recipe(*CVAE), condition_dropout=0.25))
    encode = model.encoder.forward

    def watched(images: Tensor, condition: Tensor) -> Tensor:
        seen.append(condition)
        return encode(images, condition)

    model.encoder.forward = watched  # type: ignore[method-assign]
    images, labels = noise(4000), torch.arange(4000) % 3
    for training in (True, False):
        torch.manual_seed(0)
        model.train(training).loss(images, labels)
    without = [(condition.sum(1) == 0).float().mean().item() for condition in seen]
    assert without[0] == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / 4000) ** 0.5)
    assert without[1] == 0


def test_a_conditional_vae_makes_the_class_that_it_is_asked_for_and_guidance_sharpens_it() -> None:
    classes, labels = (noise(3) > 0).to(torch.uint8) * 255, torch.arange(48) % 3
    pool = Pool.real(classes[labels], labels, "three")

    def shares_as_asked(condition_dropout: float, *guidance: float) -> list[float]:
        generator = replace(
            recipe(*CVAE, "generator.optimisation.learning_rate=1e-2"), condition_dropout=condition_dropout
        )
        model = model_of(generator)
        generator.fit_model(model, pool, torch.ones(48), FitJob(400, 0, TrainerOptions(num_threads=1), "generation 0"))
        shares = []
        for weight in guidance:
            images, asked = sampler(guidance=weight).sample(model.eval(), torch.arange(300))
            distance = torch.cdist(images.flatten(1), to_float(classes).flatten(1))
            shares.append((distance.argmin(1) == asked).float().mean().item())
        return shares

    assert shares_as_asked(0.0, 0.0)[0] > 0.95
    # Without a class the latents must say which image it is, so with one they still say some of it.
    unguided, guided = shares_as_asked(0.1, 0.0, 1.0)
    assert guided > unguided


def test_a_stated_standard_deviation_makes_the_loss_a_squared_error() -> None:
    options = ("generator=vae", *SMALL, "generator.likelihood=gaussian", "generator.beta=0.0")
    model, images = model_of(recipe(*options, "generator.decoder_scale=0.5")), noise(4)
    torch.manual_seed(0)
    loss = model.loss(images, LABELS)
    torch.manual_seed(0)
    mean, log_variance = model.posterior(images, LABELS)
    again = model.decode(mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean), LABELS)
    constant = 64 * (0.918938533 - 0.693147181)
    torch.testing.assert_close(loss, 2.0 * (again - images).square().flatten(1).sum(1) + constant)


def test_the_options_of_the_convolutional_layout() -> None:
    with isolated_rng(0):
        plain, _ = ConvAutoencoder(channels=4).build(SPEC, 3, 0, 0)
    with isolated_rng(0):
        unit, decoder = ConvAutoencoder(channels=4, unit_input=True, latent_relu=False).build(SPEC, 3, 0, 0)
    images, nothing = noise(5), torch.zeros(5, 0)
    torch.testing.assert_close(unit(images, nothing), plain((images + 1) / 2, nothing))
    assert [type(layer) for layer in decoder][:2] == [nn.Linear, nn.Unflatten]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("generator=vae", "generator.encoder_sees_class=true"), "encoder_sees_class needs a class"),
        (("generator=vae", "generator.condition_dropout=0.1"), "leaves out the class, and generator.conditional is"),
        (("generator=cvae", "generator.condition_dropout=1.0"), r"must lie in \[0, 1\), got 1.0"),
        (("generator=vae", "generator.decoder_scale=0.1"), "likelihood=bernoulli has none"),
        (("generator=vae", "generator.likelihood=gaussian", "generator.decoder_scale=-1"), "must be above 0"),
        (("generator=vae", "generator.likelihood=poisson"), "must be one of bernoulli, gaussian, discretised_logistic"),
    ],
)
def test_options_that_make_no_sense_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(*overrides)


def test_in_bfloat16_the_divergence_of_a_posterior_near_the_prior_is_not_rounded_away() -> None:
    model = model_of(recipe("generator=vae", "generator.network.width=32", *SMALL))
    images, labels = noise(64), torch.full((64,), UNLABELLED)
    last = [module for module in model.encoder.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(0.05)

    def divergence() -> Tensor:
        mean, log_variance = model.posterior(images, labels)
        assert mean.dtype == log_variance.dtype == torch.float32
        return 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(1).mean()

    with torch.no_grad():
        exact = divergence()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = divergence()
    assert 0 < exact < 0.05
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0)
