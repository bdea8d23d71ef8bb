"""What every generator and its sampler promise."""

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chains import composed
from torch import nn

from collapse_bench.cli.config import build, conf_dir
from collapse_bench.errors import TrainingError
from collapse_bench.fingerprint import fingerprint
from collapse_bench.generators.base import Generator, Model
from collapse_bench.generators.diffusion import NoisyModel
from collapse_bench.generators.vae import VAEModel
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.samplers.base import Sampler
from collapse_bench.seeding import isolated_rng
from collapse_bench.training import FitJob, TrainerOptions
from collapse_bench.types import ImageSpec, to_float

LIKELIHOODS = ["bernoulli", "gaussian", "discretised_logistic"]
VARIANTS = {
    "vae drawn": ["sampler=decoder_draw"],
    **{f"vae {name}": [f"generator.likelihood={name}"] for name in LIKELIHOODS[1:]},
    **{f"vae {name} drawn": [f"generator.likelihood={name}", "sampler=decoder_draw"] for name in LIKELIHOODS[1:]},
    "cvae guided": ["generator.condition_dropout=0.2", "sampler.guidance=0.5"],
    "flow guided": ["generator.conditional=true", "generator.condition_dropout=0.2", "sampler.guidance=0.5"],
    "flow coupled": ["generator.process.coupling=minibatch_ot"],
    "flow coupled conditional": ["generator.process.coupling=minibatch_ot", "generator.conditional=true"],
    "edm churned": ["sampler.churn=10"],
}
OPTIONS_OF_THE_GROUP = sorted(path.stem for path in (Path(conf_dir()) / "generator").glob("*.yaml"))
GENERATORS = [*OPTIONS_OF_THE_GROUP, *VARIANTS]
TRAINED = [name for name in GENERATORS if name != "gaussian"]
CHEAP = {
    **{name: ["generator.network.width=32", "generator.network.num_blocks=1"] for name in ("flow", "ddpm", "edm")},
    "flow_unet": ["generator.network.channels=8"],
    "cvae": ["generator.network.width=32", "generator.num_latents=4"],
    "population": [f"generator.members.{name}.network.width=32" for name in ("vae", "flow", "ddpm")],
    "vae": ["generator.network.width=32", "generator.num_latents=4"],
    "vae_conv": ["generator.network.channels=8", "generator.num_latents=4"],
}
CONDITIONAL = {
    "population": [f"generator.members.{name}.conditional=true" for name in ("vae", "flow", "ddpm")],
}
SPEC = ImageSpec(1, 8, 8, ("a", "b", "c"))
OPTIONS = TrainerOptions(num_threads=1)


def make(name: str, *overrides: str) -> tuple[Generator, Sampler]:
    option = name.partition(" ")[0]
    config = composed(f"generator={option}", *CHEAP.get(option, []), *VARIANTS.get(name, []), *overrides)
    return build(config["generator"], "generator"), build(config["sampler"], "sampler")


def make_pool(count: int = 48, seed: int = 0) -> Pool:
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *SPEC.shape), generator=rng, dtype=torch.uint8)
    return Pool.real(images, torch.arange(count) % SPEC.num_classes, "random")


def fit(generator: Generator, pool: Pool, weights: torch.Tensor, num_steps: int = 6, seed: int = 1) -> Model:
    with isolated_rng(seed):
        model = generator.empty_model(SPEC)
    generator.fit_model(model, pool, weights, FitJob(num_steps, seed, OPTIONS, "generation 0"))
    return model.eval()


@functools.cache
def plain(name: str) -> Model:
    """The model of 48 images of equal weight, which several tests look at."""
    return fit(make(name)[0], make_pool(), torch.ones(48))


@pytest.mark.parametrize("name", GENERATORS)
def test_equal_seeds_give_equal_models_whatever_the_global_random_state(name: str) -> None:
    generator, _ = make(name)
    pool = make_pool()
    first = plain(name)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = fit(generator, pool, torch.ones(len(pool)))
    assert fingerprint(first) == fingerprint(second)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", GENERATORS)
def test_images_of_weight_zero_are_absent(name: str) -> None:
    generator, _ = make(name)
    small, foreign = make_pool(32), make_pool(16, seed=9)
    weights = torch.cat([torch.ones(32), torch.zeros(16)])
    assert fingerprint(fit(generator, Pool.concat([small, foreign]), weights)) == fingerprint(
        fit(generator, small, torch.ones(32))
    )


NOISY = ("ddpm", "edm", "flow", "flow_unet")


@pytest.mark.parametrize("name", TRAINED)
def test_diffusion_and_flow_alone_have_noise_levels(name: str) -> None:
    assert isinstance(make(name)[0].empty_model(SPEC), NoisyModel) == (name.partition(" ")[0] in NOISY)


@pytest.mark.parametrize("name", NOISY)
def test_a_family_with_noise_levels_leaves_images_out_above_their_own(name: str) -> None:
    pool = make_pool(1000)
    model = fit(make(name)[0], pool, torch.ones(len(pool)))
    assert isinstance(model, NoisyModel)

    def losses(*gate: float) -> torch.Tensor:
        with isolated_rng(0), torch.no_grad():
            return model.loss(to_float(pool.images), pool.labels, *(torch.full((1000,), level) for level in gate))

    assert torch.equal(losses(math.inf), losses())
    assert losses(-math.inf).abs().sum() == 0
    shares = [(losses(level) > 0).double().mean().item() for level in (-4.0, -2.0, 0.0, 2.0, 4.0)]
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < shares[-1], "levels are logarithms of signal-to-noise ratios"
    gated = losses(0.0)
    assert torch.equal(gated[gated > 0], losses()[gated > 0])


@pytest.mark.parametrize("name", GENERATORS)
def test_weights_are_probabilities_up_to_a_factor(name: str) -> None:
    generator, _ = make(name)
    pool = make_pool()
    weights = torch.linspace(0.5, 2, len(pool), dtype=torch.float64)
    # A power of two, so that the comparison can be exact.
    assert fingerprint(fit(generator, pool, weights)) == fingerprint(fit(generator, pool, 4.0 * weights))
    assert fingerprint(fit(generator, pool, weights)) != fingerprint(plain(name))


@pytest.mark.parametrize("name", GENERATORS)
def test_a_sample_depends_on_its_own_seed_only(name: str) -> None:
    _, sampler = make(name, "sampler.batch_size=7")
    _, whole = make(name, "sampler.batch_size=64")
    model = plain(name)
    seeds = torch.arange(20) + 1000
    some, _ = sampler.sample(model, seeds)
    all_at_once, _ = whole.sample(model, seeds)
    reordered, _ = whole.sample(model, seeds.flip(0))
    one_grey_level = 1 if some.dtype == torch.uint8 else 1e-5
    assert (some.double() - all_at_once.double()).abs().max() <= one_grey_level
    assert (reordered.flip(0).double() - all_at_once.double()).abs().max() <= one_grey_level
    assert not torch.equal(all_at_once[0], all_at_once[1])


@pytest.fixture(scope="module")
def fitted_models() -> Mapping[str, Model]:
    return {name: plain(name) for name in OPTIONS_OF_THE_GROUP}


SAMPLERS = sorted(path.stem for path in (Path(conf_dir()) / "sampler").glob("*.yaml"))


def make_sampler(option: str) -> Sampler:
    return build(composed(f"sampler={option}")["sampler"], "sampler")


@pytest.mark.parametrize("option", SAMPLERS)
def test_every_sampler_goes_with_all_models_that_it_fits(option: str, fitted_models: Mapping[str, Model]) -> None:
    sampler = make_sampler(option)
    pairs = [model for model in fitted_models.values() if sampler.fits(model)]
    assert pairs
    for model in pairs:
        sampler.check(model)
        fewer_steps: dict[str, Any] = {"num_steps": min(sampler.num_steps, 20)} if hasattr(sampler, "num_steps") else {}
        sampler = replace(sampler, **fewer_steps)
        seeds = torch.arange(6) + 1000
        images, labels = sampler.sample(model, seeds)
        again, labels_again = replace(sampler, batch_size=4).sample(model, seeds.flip(0))
        assert images.shape == (6, *SPEC.shape)
        assert images.dtype == (torch.uint8 if sampler.quantize else torch.float32)
        assert torch.equal(labels_again.flip(0), labels)
        one_grey_level = 1 if sampler.quantize else 1e-5
        assert (again.flip(0).double() - images.double()).abs().max() <= one_grey_level
        assert len(images.flatten(1).unique(dim=0)) > 1
        for name, value in {"temperature": 0.0, "truncation": 0.5}.items():
            narrower, _ = replace(sampler, **{name: value}).sample(model, seeds)
            assert not torch.equal(narrower, images), f"{name} matters to every family"


@pytest.mark.parametrize("name", GENERATORS)
def test_sampling_and_fitting_change_no_pool_and_sampling_no_model(name: str) -> None:
    generator, sampler = make(name)
    pool = make_pool()
    before = pool.content_hash
    model = fit(generator, pool, torch.ones(len(pool)))
    state = fingerprint(model)
    images, labels = sampler.sample(model, torch.arange(5))
    assert pool.content_hash == before
    assert fingerprint(model) == state
    assert images.shape == (5, *SPEC.shape)
    assert images.dtype == (torch.uint8 if sampler.quantize else torch.float32)
    assert (labels == UNLABELLED).tolist() == [not model.conditional] * 5


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("channels_last", [False, True])
def test_mixed_precision_fits_with_the_options_of_the_yaml(name: str, channels_last: bool) -> None:
    """Fused optimisers cannot be clipped in mixed precision, so this must run with each generator's own options."""
    generator, sampler = make(name)
    options = TrainerOptions(num_threads=1, precision="bf16-mixed", channels_last=channels_last)
    pool = make_pool()
    with isolated_rng(0):
        model, loaded = generator.empty_model(SPEC), generator.empty_model(SPEC)
    products: set[torch.dtype] = set()
    for layer in (module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))):
        layer.register_forward_hook(lambda layer, inputs, output: products.add(output.dtype))
    generator.fit_model(model, pool, torch.ones(len(pool)), FitJob(3, 0, options, "generation 0"))
    assert torch.bfloat16 in products, "it was trained in mixed precision"
    assert all(p.dtype == torch.float32 for p in model.parameters())
    products.clear()
    sampler.sample(model, torch.arange(8))
    assert products == {torch.float32}, "and is sampled in full precision"
    loaded.load_state_dict(model.state_dict())
    first, _ = sampler.sample(model, torch.arange(8))
    again, _ = sampler.sample(loaded.eval(), torch.arange(8))
    assert torch.equal(first, again), "a model is the same after it was stored"


@pytest.mark.parametrize("name", GENERATORS)
def test_samples_that_are_nan_are_an_error_and_not_black(name: str) -> None:
    generator, sampler = make(name)
    model = generator.empty_model(SPEC)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(TrainingError, match="NaN or infinite pixels"):
        sampler.sample(model, torch.arange(3))


@pytest.mark.parametrize("name", TRAINED)
def test_conditional_models_draw_the_classes_of_their_pool(name: str) -> None:
    generator, sampler = make(name, *CONDITIONAL.get(name, ["generator.conditional=true"]))
    pool = make_pool()
    model = fit(generator, pool, (pool.labels == 2).double() + 1e-9 * (pool.labels == 1))
    _, labels = sampler.sample(model, torch.arange(30))
    assert set(labels.tolist()) == {2}
    assert model.label_shares.tolist() == pytest.approx([0, 1e-9, 1], abs=1e-8)


LONG = ["optimisation.batch_size=64", "optimisation.learning_rate=2e-3"]
WIDE = ["network.width=128", "network.num_blocks=3", *LONG]
PLANE = ["num_latents=2", "network.width=256", *LONG]
COUPLED = ["conditional=true", "process.coupling=minibatch_ot"]
# Steps, and options, that learn eight images by heart. A DDPM's weights leave the last, nearly clean levels little of
# its loss, so that they are learnt late.
BY_HEART = {
    "flow": (1500, WIDE),
    "flow guided": (1500, [*WIDE, *COUPLED]),
    "flow_unet": (600, ["network.channels=16", *LONG]),
    "ddpm": (3000, WIDE),
    "edm": (1500, WIDE),
    "vae": (1500, PLANE),
    "vae_conv": (1500, ["num_latents=2", "network.channels=16", *LONG]),
    "cvae": (1500, PLANE),
    "population": (
        1500,
        [
            *(f"members.{name}.{option}" for name in ("flow", "ddpm") for option in WIDE),
            *(f"members.vae.{option}" for option in PLANE),
        ],
    ),
}


# DDIM's coarse steps stray between two images more often than others, and a VAE's prior covers the ways between them.
LEAST_COPIES = {"ddim_20": 0.6, "ddim_50": 0.65, "decoder_mean": 0.3, "decoder_draw": 0.15, "population": 0.5}


def test_every_family_learns_by_heart() -> None:
    assert {name.partition(" ")[0] for name in BY_HEART} == set(OPTIONS_OF_THE_GROUP) - {"gaussian"}


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_HEART)
def test_eight_images_learnt_by_heart_come_back_with_every_sampler_of_the_family(name: str) -> None:
    num_steps, options = BY_HEART[name]
    generator, own = make(name, *(f"generator.{option}" for option in options))
    pool = make_pool(8)
    pool = Pool.real((pool.images > 127).to(torch.uint8) * 255, pool.labels, "binary")
    model = fit(generator, pool, torch.ones(8), num_steps)
    fitting = [option for option in SAMPLERS if make_sampler(option).fits(model)]
    assert fitting
    for option in fitting:
        images, labels = replace(make_sampler(option), guidance=own.guidance).sample(model, torch.arange(200))
        distance = torch.cdist(images.flatten(1).float(), pool.images.flatten(1).float()) / 8.0  # root mean square
        # The eight are some 180 grey levels apart, so a sample within 20 is a copy of one of them.
        is_copy = distance.min(1).values < 20
        assert is_copy.double().mean() > LEAST_COPIES.get(option, 0.85), option
        nearest = distance.argmin(1)
        assert len(nearest[is_copy].unique()) == 8, option
        if model.conditional:
            assert (pool.labels[nearest] == labels)[is_copy].double().mean() > 0.95, option
        else:
            assert labels.unique().tolist() == [UNLABELLED]


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", LIKELIHOODS[1:])  # those that nothing above has learnt by heart
@pytest.mark.parametrize("name", ["vae", "vae_conv", "cvae"])
def test_a_vae_reconstructs_eight_images(name: str, likelihood: str) -> None:
    options = ["generator.num_latents=8", "generator.beta=0.01", "generator.optimisation.batch_size=32"]
    generator, _ = make(name, *options, f"generator.likelihood={likelihood}")
    pool = make_pool(8)
    pool = Pool.real((pool.images > 127).to(torch.uint8) * 255, pool.labels, "binary")
    model = fit(generator, pool, torch.ones(8), num_steps=1000)
    assert isinstance(model, VAEModel)
    images = pool.images.float() / 127.5 - 1
    with torch.no_grad():
        latents, _ = model.posterior(images, pool.labels)
        again = model.decode(latents, pool.labels)
    assert (again - images).abs().mean() < 0.1
