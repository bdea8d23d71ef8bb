"""What samplers of diffusion and flow models make of a perfect model of Gaussian images."""

import itertools
import math

import pytest
import torch
from gaussian_truth import COSINE, FLOW, KARRAS, LINEAR, GaussianTruth, published_signal
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.processes import DDPM, Process
from collapse_bench.samplers.ddpm import DDPMSampler
from collapse_bench.samplers.edm import HeunSampler
from collapse_bench.samplers.flow import FlowSampler
from collapse_bench.samplers.noisy import Field, NoisySampler

PLAIN = {"temperature": 1.0, "truncation": None, "guidance": 0.0, "quantize": False, "batch_size": 500}
MEAN, SD = 0.2, 0.5


def flow(num_steps: int, method: str, **options) -> FlowSampler:
    return FlowSampler(**{**PLAIN, "num_steps": num_steps, "early_stop": 0.0, "method": method, **options})


def ddpm(num_steps: int, eta: float = 0.0, **options) -> DDPMSampler:
    return DDPMSampler(**{**PLAIN, "num_steps": num_steps, "early_stop": 0.0, "eta": eta, "clip": False, **options})


def edm(num_steps: int, churn: float = 0.0, **options) -> HeunSampler:
    sigmas = {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}
    churning = {"churn": churn, "churn_noise": 1.0, "churn_min": 0.0, "churn_max": None}
    return HeunSampler(**{**PLAIN, "num_steps": num_steps, "early_stop": 0.0, **sigmas, **churning, **options})


def sampled(sampler: NoisySampler, model: GaussianTruth, count: int = 8) -> Tensor:
    sampler.check(model)
    return sampler.sample_batch(model, torch.arange(count), torch.zeros(count, dtype=torch.int64)).double()


def line(sampler: NoisySampler, process: Process) -> tuple[float, float]:
    """Slope and offset of samples as a function of the first noise, for deterministic samplers of Gaussian images."""
    model = GaussianTruth(process, MEAN, SD)
    noise = sampler.noise(torch.arange(8), model.spec.shape, draw=0).double()
    samples = sampled(sampler, model)
    offset = sampled(type(sampler)(**{**vars(sampler), "temperature": 0.0}), model).mean().item()
    slope = ((samples - offset) * noise).sum() / noise.square().sum()
    assert torch.allclose(samples, offset + slope * noise, atol=1e-3), "all pixels of all images follow one line"
    return slope.item(), offset


def error(sampler: NoisySampler, process: Process) -> float:
    """How far slope and offset are from those of the exact differential equation."""
    levels = sampler.levels(process)
    last = levels[sampler.num_steps_taken] if sampler.num_steps_taken < sampler.num_steps else None
    slope, offset = GaussianTruth(process, MEAN, SD).exact_line(levels[0], last)
    found_slope, found_offset = line(sampler, process)
    return math.hypot(found_slope - sampler.initial(torch.ones(1)).item() * slope, found_offset - offset)


@pytest.mark.parametrize(
    ("make", "process", "counts", "order"),
    [
        (lambda n: flow(n, "euler"), FLOW, [20, 40, 80], 1),
        # Of second order in general; for Gaussian images its leading error cancels.
        (lambda n: flow(n, "midpoint"), FLOW, [10, 20, 40], 3),
        (edm, KARRAS, [20, 40, 80], 2),
        (ddpm, COSINE, [10, 20, 40], 1),
        (ddpm, LINEAR, [10, 20, 40], 1),
    ],
    ids=["euler", "midpoint", "heun", "ddim-cosine", "ddim-linear"],
)
def test_solvers_converge_to_the_law_at_their_order(make, process: Process, counts: list[int], order: int) -> None:
    errors = [error(make(count), process) for count in counts]
    assert errors[-1] < 0.05
    rates = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert rates == pytest.approx([order] * 2, abs=0.25)


def spread(sampler: NoisySampler, process: Process) -> tuple[float, float, int]:
    """Mean and variance of samples, and how many values they are of."""
    samples = sampled(sampler, GaussianTruth(process, MEAN, SD, size=8), count=400)
    return samples.mean().item(), samples.var().item(), samples.numel()


@pytest.mark.slow
@pytest.mark.parametrize("process", [COSINE, LINEAR], ids=["cosine", "linear"])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ancestral_sampling_with_all_levels_has_the_law_of_the_images(process: DDPM, eta: float) -> None:
    mean, variance, count = spread(ddpm(1000, eta), process)
    assert mean == pytest.approx(MEAN, abs=4 * SD / math.sqrt(count) + 0.002)
    assert variance == pytest.approx(SD**2, rel=4 * math.sqrt(2 / count) + 0.01)


def test_churn_keeps_the_law_and_changes_the_images() -> None:
    mean, variance, count = spread(edm(60, churn=30.0), KARRAS)
    assert mean == pytest.approx(MEAN, abs=4 * SD / math.sqrt(count) + 0.002)
    assert variance == pytest.approx(SD**2, rel=4 * math.sqrt(2 / count) + 0.01)
    model = GaussianTruth(KARRAS, MEAN, SD)
    assert (sampled(edm(60, churn=30.0), model) - sampled(edm(60), model)).abs().mean() > 0.1


def test_a_step_of_ancestral_sampling_is_the_posterior_of_ho_et_al() -> None:
    """Ho et al. 2020 (arXiv:2006.11239), eq. 6 and 7, between neighbouring levels."""
    sampler, model = ddpm(1000, eta=1.0), GaussianTruth(LINEAR, MEAN, SD)
    seeds, x = torch.arange(3), torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    field = Field(sampler, model, torch.zeros(3, dtype=torch.int64))
    signal, levels = published_signal(LINEAR), sampler.levels(LINEAR)
    assert levels == list(range(999, -1, -1))
    for level in (999, 500, 1):
        before = signal[level - 1]
        beta = 1 - signal[level] / before
        image = field.denoised(x, level).double()
        mean = math.sqrt(before) * beta / (1 - signal[level]) * image
        mean = mean + math.sqrt(1 - beta) * (1 - before) / (1 - signal[level]) * x
        sd = math.sqrt((1 - before) / (1 - signal[level]) * beta)
        k = levels.index(level)
        expected = mean + sd * sampler.noise(seeds, (1, 2, 2), draw=k + 1)
        assert torch.allclose(sampler.step(field, x, k, levels, seeds).double(), expected, atol=1e-5)
    # The last step adds no noise.
    assert torch.equal(sampler.step(field, x, 999, levels, seeds), sampler.step(field, x, 999, levels, seeds + 1))


def test_ddim_is_deterministic_and_ancestral_sampling_is_not_after_the_start() -> None:
    model, x, seeds = GaussianTruth(COSINE, MEAN, SD), torch.ones(2, 1, 2, 2), torch.arange(2)
    for eta in (0.0, 1.0):
        sampler = ddpm(10, eta)
        field, levels = Field(sampler, model, torch.zeros(2)), sampler.levels(COSINE)
        steps = [sampler.step(field, x, 3, levels, s) for s in (seeds, seeds + 5)]
        assert torch.equal(*steps) == (eta == 0)


def test_ddim_steps_are_equally_spaced_levels() -> None:
    assert ddpm(4).levels(COSINE) == [999, 666, 333, 0]
    assert ddpm(1).levels(COSINE) == [999]
    for count in (3, 7, 50, 999):
        levels = ddpm(count).levels(COSINE)
        assert len(set(levels)) == count
        assert sorted(levels, reverse=True) == levels


def test_a_clipped_image_stays_within_the_grey_levels_at_every_step() -> None:
    bright = GaussianTruth(COSINE, 3.0, 1e-3)
    assert torch.allclose(sampled(ddpm(10, clip=True), bright), torch.ones(8, 1, 2, 2).double(), atol=1e-5)
    assert sampled(ddpm(10), bright).mean() == pytest.approx(3.0, abs=0.1)
    inside = GaussianTruth(COSINE, 0.0, 0.01)
    # The denoised images of a narrow law are inside anyway.
    assert torch.equal(sampled(ddpm(10, clip=True), inside), sampled(ddpm(10), inside))


def test_single_steps_of_flow_solvers_by_hand() -> None:
    model = GaussianTruth(FLOW, 0.0, 1.0)  # velocity (2 t - 1) x / (t^2 + (1 - t)^2): -x at 0, 0 at 1/2
    noise = flow(1, "euler").noise(torch.arange(8), (1, 2, 2), 0).double()
    assert torch.allclose(sampled(flow(1, "euler"), model), 0.0 * noise, atol=1e-6)
    assert torch.allclose(sampled(flow(2, "euler"), model), 0.5 * noise, atol=1e-6)
    assert torch.allclose(sampled(flow(1, "midpoint"), model), noise, atol=1e-6)


def test_two_steps_of_heuns_method_by_hand() -> None:
    # sigma 2, 1, 0 and denoised images x / (1 + sigma^2). Slopes (x - x/5) / 2 = 0.4 x, and at 0.6 x with sigma 1:
    # 0.3 x; so x becomes x - 0.35 x = 0.65 x, and Euler's step to 0 gives the denoised 0.325 x.
    sampler = edm(2, sigma_min=1.0, sigma_max=2.0, rho=1.0)
    noise = sampler.noise(torch.arange(8), (1, 2, 2), 0).double()
    assert torch.allclose(sampled(sampler, GaussianTruth(KARRAS, 0.0, 1.0)), 0.325 * 2.0 * noise, atol=1e-6)


def test_a_churned_step_by_hand() -> None:
    # One step of churn 0.25 raises sigma from 2 to 2.5 with noise of standard deviation 2 sqrt(2.5^2 - 2^2) = 3 for a
    # factor of 2, then goes to the denoised image x / (1 + 2.5^2).
    sampler = edm(1, churn=0.25, churn_noise=2.0, sigma_min=1.0, sigma_max=2.0)
    first, fresh = (sampler.noise(torch.arange(8), (1, 2, 2), draw).double() for draw in (0, 1))
    expected = (2.0 * first + 3.0 * fresh) / 7.25
    assert torch.allclose(sampled(sampler, GaussianTruth(KARRAS, 0.0, 1.0)), expected, atol=1e-5)
    for outside in ({"churn_min": 2.1}, {"churn_max": 1.9}):
        calm = edm(1, churn=0.25, sigma_min=1.0, sigma_max=2.0, **outside)
        assert torch.allclose(sampled(calm, GaussianTruth(KARRAS, 0.0, 1.0)), 2.0 * first / 5.0, atol=1e-5)
    # However much is asked for, sigma grows by no more than sqrt(2).
    most = edm(1, churn=100.0, sigma_min=1.0, sigma_max=2.0)
    expected = (2.0 * first + 2.0 * fresh) / 9.0
    assert torch.allclose(sampled(most, GaussianTruth(KARRAS, 0.0, 1.0)), expected, atol=1e-5)


def test_sigmas_are_those_of_karras_et_al() -> None:
    sigmas = edm(18).levels(KARRAS)
    assert len(sigmas) == 18
    # diffusers 0.42.1, EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, rho=7.0) with 18 steps
    assert [sigmas[k] for k in (0, 9, 17)] == pytest.approx([80.0, 1.9233, 0.002], rel=1e-4)


STOPPABLE = {"flow": (flow(40, "midpoint"), FLOW), "ddpm": (ddpm(1000), COSINE), "edm": (edm(100), KARRAS)}


@pytest.mark.parametrize("family", STOPPABLE)
def test_a_sampler_that_stops_early_gives_images_smoothed_with_noise(family: str) -> None:
    """Khelifa et al. 2026: the law of early-stopped samples is that of noisy images at the level of the stop."""
    sampler, process = STOPPABLE[family]
    stopped = type(sampler)(**{**vars(sampler), "early_stop": 0.3})
    slope, offset = line(stopped, process)
    levels, model = sampler.levels(process), GaussianTruth(process, MEAN, SD)
    mean, sd = model.law(levels[round(0.7 * sampler.num_steps)])
    # The noise that sampling starts from stands for noisy images of the first level.
    first_sd = sampler.initial(torch.ones(1)).item() / model.law(levels[0])[1]
    assert slope == pytest.approx(first_sd * sd, rel=0.01)
    assert offset == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize("family", STOPPABLE)
def test_stopping_at_the_end_is_not_stopping(family: str) -> None:
    sampler, process = STOPPABLE[family]
    model = GaussianTruth(process, MEAN, SD)
    whole = sampled(sampler, model, 2)
    almost = type(sampler)(**{**vars(sampler), "early_stop": 0.4 / sampler.num_steps})
    assert torch.equal(sampled(almost, model, 2), whole), "less than half a step is none"


SAMPLERS = {
    "euler": (flow(10, "euler"), FLOW),
    "midpoint": (flow(10, "midpoint"), FLOW),
    "ddim": (ddpm(10), COSINE),
    "ancestral": (ddpm(10, 1.0), COSINE),
    "heun": (edm(10), KARRAS),
    "churn": (edm(10, 5.0), KARRAS),
    "one step of heun": (edm(1), KARRAS),
}


@pytest.mark.parametrize("guidance", [0.0, 1.0])
@pytest.mark.parametrize("early_stop", [0.0, 0.3, 0.49])
@pytest.mark.parametrize("name", SAMPLERS)
def test_evaluations_are_metered_as_they_are_made(name: str, early_stop: float, guidance: float) -> None:
    sampler, process = SAMPLERS[name]
    sampler = type(sampler)(**{**vars(sampler), "early_stop": early_stop, "guidance": guidance})
    model = GaussianTruth(process, MEAN, SD, class_shift=0.1)
    sampled(sampler, model)
    assert len(model.asked) == sampler.num_evaluations


def test_known_numbers_of_evaluations() -> None:
    assert edm(18).num_evaluations == 35
    assert edm(18, early_stop=0.5).num_evaluations == 18
    assert flow(10, "midpoint").num_evaluations == 20
    assert flow(10, "midpoint", guidance=0.1).num_evaluations == 40
    assert ddpm(50).num_evaluations == 50


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ddpm(10, eta=1.5), r"eta must lie in \[0, 1\]"),
        (lambda: ddpm(1001).check(GaussianTruth(COSINE, 0.0, 1.0)), "num_steps=1001, and the model has 1000"),
        (lambda: edm(10, sigma_min=0.0), "sigma_min must be above 0 and below sigma_max"),
        (lambda: edm(10, sigma_min=90.0), "sigma_min must be above 0 and below sigma_max"),
        (lambda: edm(10, rho=0.0), "rho must be above 0"),
        (lambda: edm(10, churn=-1.0), "churn and churn_noise not negative"),
    ],
)
def test_impossible_options_are_refused(build, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()
