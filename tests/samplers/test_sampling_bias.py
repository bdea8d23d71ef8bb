"""Guidance, temperature and truncation: one meaning for every family."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from gaussian_truth import COSINE, FLOW, KARRAS, GaussianTruth

from collapse_bench.errors import ConfigError
from collapse_bench.pool import UNLABELLED
from collapse_bench.samplers.base import Sampler
from collapse_bench.samplers.ddpm import DDPMSampler
from collapse_bench.samplers.edm import HeunSampler
from collapse_bench.samplers.flow import FlowSampler
from collapse_bench.seeding import image_normal

PLAIN = {"temperature": 1.0, "truncation": None, "guidance": 0.0, "quantize": False, "batch_size": 500}


def flow(**options) -> FlowSampler:
    return FlowSampler(**{**PLAIN, "num_steps": 20, "early_stop": 0.0, "method": "midpoint", **options})


def ddpm(**options) -> DDPMSampler:
    return DDPMSampler(**{**PLAIN, "num_steps": 20, "early_stop": 0.0, "eta": 0.0, "clip": False, **options})


def edm(**options) -> HeunSampler:
    sigmas = {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}
    churning = {"churn": 0.0, "churn_noise": 1.0, "churn_min": 0.0, "churn_max": None}
    return HeunSampler(**{**PLAIN, "num_steps": 18, "early_stop": 0.0, **sigmas, **churning, **options})


FAMILIES = {"flow": (flow, FLOW), "ddpm": (ddpm, COSINE), "edm": (edm, KARRAS)}
SEEDS = torch.arange(200)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_guidance_the_model_is_asked_with_the_class_only(family: str) -> None:
    make, process = FAMILIES[family]
    model, labels = GaussianTruth(process, 0.0, 0.5, class_shift=0.2), torch.arange(200) % 2
    with torch.no_grad():
        make().sample_batch(model, SEEDS, labels)
    assert all(torch.equal(asked, labels) for asked in model.asked)
    assert len(model.asked) == make().num_evaluations
    model.asked.clear()
    make(guidance=1.0).sample_batch(model, SEEDS, labels)
    assert all(torch.equal(asked, labels) for asked in model.asked[::2])
    assert all((asked == UNLABELLED).all() for asked in model.asked[1::2])


def test_guidance_by_hand() -> None:
    labels = torch.tensor([0, 1])
    outputs = {0: 2.0, 1: 5.0, UNLABELLED: 1.0}
    sampler = flow(guidance=0.5)
    guided = sampler.guided(lambda labels: torch.tensor([outputs[k] for k in labels.tolist()]), labels)
    assert guided.tolist() == [2.0 + 0.5 * (2.0 - 1.0), 5.0 + 0.5 * (5.0 - 1.0)]


@pytest.mark.parametrize("family", FAMILIES)
def test_guidance_moves_normal_classes_away_from_the_mean_of_all_in_proportion_to_w(family: str) -> None:
    """The guided score of equal normal laws is that of a normal law whose mean is shifted by 1 + w."""
    make, process = FAMILIES[family]
    labels = torch.arange(200) % 2
    for w in (0.0, 0.5, 3.0):
        model = GaussianTruth(process, 0.1, 0.5, class_shift=0.2)
        samples = make(guidance=w).sample_batch(model, SEEDS, labels)
        # A model without guidance whose classes are as far apart.
        wider = GaussianTruth(process, 0.1, 0.5, class_shift=0.2 * (1 + w))
        assert torch.allclose(samples, make().sample_batch(wider, SEEDS, labels), atol=1e-3)


def test_guidance_needs_a_model_that_was_trained_for_it() -> None:
    with pytest.raises(ConfigError, match=r"generator\.conditional=true and generator\.condition_dropout=0\.1"):
        flow(guidance=1.0).check(GaussianTruth(FLOW, 0.0, 1.0))
    flow(guidance=1.0).check(GaussianTruth(FLOW, 0.0, 1.0, class_shift=1.0))
    flow().check(GaussianTruth(FLOW, 0.0, 1.0))


def test_without_truncation_noise_is_the_images_own() -> None:
    plain = image_normal(SEEDS, (3, 5), 7)
    assert torch.equal(flow().noise(SEEDS, (3, 5), 7), plain)
    assert torch.equal(flow(temperature=0.5).noise(SEEDS, (3, 5), 7), 0.5 * plain)
    assert torch.allclose(flow(truncation=8.0).noise(SEEDS, (3, 5), 7), plain, atol=1e-5), "hardly anything is cut off"


@pytest.mark.parametrize("truncation", [0.04, 0.5, 1.0, 2.0])
def test_truncated_noise_has_the_truncated_normal_law(truncation: float) -> None:
    noise = flow(truncation=truncation).noise(torch.arange(500), (64,), 0)
    law = scipy.stats.truncnorm(-truncation, truncation)
    assert noise.abs().max() <= truncation * (1 + 1e-6)
    assert scipy.stats.kstest(noise.flatten()[:5000], law.cdf).pvalue > 1e-3
    variance, fourth = law.moment(2), law.moment(4)
    standard_error = math.sqrt((fourth - variance**2) / noise.numel())
    assert noise.square().mean().item() == pytest.approx(variance, abs=4 * standard_error)
    assert noise.mean().item() == pytest.approx(0.0, abs=4 * math.sqrt(variance / noise.numel()))
    # It is the same image, less far out.
    assert np.array_equal(noise[0].argsort(), image_normal(torch.arange(1), (64,), 0)[0].argsort())


def test_temperature_and_truncation_act_together() -> None:
    noise = flow(truncation=1.0, temperature=3.0).noise(SEEDS, (64,), 0)
    assert torch.equal(noise, 3.0 * flow(truncation=1.0).noise(SEEDS, (64,), 0))


@pytest.mark.parametrize("family", FAMILIES)
def test_temperature_scales_the_spread_of_every_deterministic_sampler(family: str) -> None:
    make, process = FAMILIES[family]
    model, labels = GaussianTruth(process, 0.1, 0.5), torch.zeros(200, dtype=torch.int64)
    cold, mild, warm = (make(temperature=t).sample_batch(model, SEEDS, labels) for t in (0.0, 0.5, 1.0))
    assert torch.allclose(cold, cold[:1, :, :1, :1].expand_as(cold), atol=1e-5), "without noise all are one image"
    assert torch.allclose(mild - cold, 0.5 * (warm - cold), atol=1e-4)


@pytest.mark.parametrize(("make", "process"), [(ddpm, COSINE), (edm, KARRAS)], ids=["ddpm", "edm"])
def test_temperature_and_truncation_reach_fresh_noise_too(make, process) -> None:
    fresh = {"eta": 1.0} if make is ddpm else {"churn": 10.0}
    model, labels = GaussianTruth(process, 0.1, 0.5), torch.zeros(200, dtype=torch.int64)
    warm = make(**fresh).sample_batch(model, SEEDS, labels)
    cold = make(**fresh, temperature=0.0).sample_batch(model, SEEDS, labels)
    assert torch.allclose(cold, cold[:1, :, :1, :1].expand_as(cold), atol=1e-5)
    truncated = make(**fresh, truncation=0.1).sample_batch(model, SEEDS, labels)
    ratio = scipy.stats.truncnorm(-0.1, 0.1).std()
    # All noise enters linearly, so the spread falls as that of the noise does.
    assert truncated.std() / warm.std() == pytest.approx(ratio, rel=4 / math.sqrt(warm.numel()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must not be negative"),
        ({"truncation": 0.0}, r"truncation must be above 0 \(or null\)"),
        ({"guidance": -1.0}, "guidance must not be negative"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"early_stop": 1.0}, r"early_stop must lie in \[0, 1\)"),
        ({"early_stop": -0.1}, r"early_stop must lie in \[0, 1\)"),
        ({"early_stop": 0.98}, r"early_stop=0.98 leaves out all \d+ steps"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    for make in (flow, ddpm, edm):
        with pytest.raises(ConfigError, match=message):
            make(**options)


def test_a_sampler_refuses_the_models_of_another_process() -> None:
    made: dict[str, tuple[Sampler, GaussianTruth]] = {
        name: (make(), GaussianTruth(process, 0.0, 1.0)) for name, (make, process) in FAMILIES.items()
    }
    for ours, theirs in itertools.product(made, repeat=2):
        sampler, model = made[ours][0], made[theirs][1]
        assert sampler.fits(model) == (ours == theirs)
        if ours != theirs:
            with pytest.raises(ConfigError, match=f"cannot sample what the generator makes .{model.family}"):
                sampler.check(model)
