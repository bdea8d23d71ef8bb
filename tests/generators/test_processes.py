import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from gaussian_truth import COSINE, FLOW, KARRAS, LINEAR, GaussianTruth, amplitudes, published_signal
from torch import Tensor, nn

from collapse_bench.errors import ConfigError
from collapse_bench.generators.processes import DDPM, EDM, FlowMatching, Process, nearest_noise
from collapse_bench.pool import UNLABELLED
from collapse_bench.seeding import isolated_rng

LOGIT_NORMAL = FlowMatching(times="logit_normal", coupling="independent")
PROCESSES = {"flow": FLOW, "logit_normal": LOGIT_NORMAL, "cosine": COSINE, "linear": LINEAR, "edm": KARRAS}


class Recorder(nn.Module):
    """A network that gives ones and remembers what it was asked."""

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        self.x, self.time = x, time
        return torch.ones_like(x)


def training_levels(process: Process, count: int) -> Tensor:
    with isolated_rng(0):
        return process.losses(lambda x, level: x, torch.zeros(count, 1, 1, 1), None)[1]


@pytest.mark.parametrize("name", PROCESSES)
def test_the_loss_of_the_best_prediction_is_the_variance_that_is_left(name: str) -> None:
    """So training and prediction speak of the same noisy images, levels and targets."""
    process, sd, count = PROCESSES[name], 0.7, 100_000
    model = GaussianTruth(process, 0.3, sd)
    with isolated_rng(1):
        images = 0.3 + sd * torch.randn(count, 1, 2, 2)
        losses, level = process.losses(lambda x, level: model.predict(x, level, torch.zeros(count)), images, None)
    alpha, sigma = amplitudes(process, level)
    variance = alpha**2 * sd**2 + sigma**2
    if isinstance(process, FlowMatching):
        left = sd**2 + 1 - (alpha * sd**2 - sigma) ** 2 / variance
    elif isinstance(process, DDPM):
        left = alpha**2 * sd**2 / variance
    else:
        left = sd**2 * sigma**2 / variance * (sigma**2 + 0.5**2) / (sigma * 0.5) ** 2
    difference = losses - left
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(count)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_denoised_image_is_the_mean_of_what_a_noisy_one_may_come_from(name: str) -> None:
    process = PROCESSES[name]
    model = GaussianTruth(process, 0.3, 0.7)
    level = {"edm": torch.tensor([0.1, 1.0, 10.0])}.get(
        name, torch.tensor([5, 400, 900]) if isinstance(process, DDPM) else torch.tensor([0.9, 0.5, 0.1])
    )
    x = torch.linspace(-2, 2, 12).view(3, 1, 2, 2)
    alpha, sigma = (a.view(-1, 1, 1, 1) for a in amplitudes(process, level))
    expected = 0.3 + alpha * 0.49 / (alpha**2 * 0.49 + sigma**2) * (x - alpha * 0.3)
    denoised = process.denoised(x, level, model.predict(x, level, torch.zeros(3)))
    assert torch.allclose(denoised.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PROCESSES)
def test_log_snr_is_that_of_the_amplitudes(name: str) -> None:
    process = PROCESSES[name]
    level = training_levels(process, 100)
    alpha, sigma = amplitudes(process, level)
    assert torch.allclose(process.log_snr(level).double(), 2 * (alpha / sigma).log(), rtol=1e-4, atol=1e-4)
    ends = torch.tensor([0, 999]) if isinstance(process, DDPM) else torch.tensor([0.0 if name != "edm" else 1e-3, 1.0])
    assert torch.isfinite(process.log_snr(ends)).all()


def test_training_draws_the_levels_of_the_papers() -> None:
    assert scipy.stats.kstest(training_levels(FLOW, 5000), "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(training_levels(LOGIT_NORMAL, 5000).logit(), "norm", (0.5, 1.0)).pvalue > 1e-3
    assert scipy.stats.kstest(training_levels(KARRAS, 5000).log(), "norm", (-1.2, 1.2)).pvalue > 1e-3
    steps = training_levels(DDPM(schedule="linear", num_levels=25), 5000)
    assert scipy.stats.chisquare(steps.bincount(minlength=25)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("process", "values"),
    [  # of diffusers 0.42.1, DDPMScheduler().alphas_cumprod for the schedules "linear" and "squaredcos_cap_v2"
        (LINEAR, {0: 0.9999, 99: 0.897018, 499: 0.0785872, 899: 2.75206e-4, 999: 4.03583e-5}),
        (COSINE, {0: 0.999959, 99: 0.972093, 499: 0.493843, 899: 0.0240917, 999: 2.42873e-9}),
    ],
    ids=["linear", "cosine"],
)
def test_schedules_are_the_published_ones(process: DDPM, values: dict[int, float]) -> None:
    signal = process.signal(torch.arange(1000))
    assert np.allclose(signal, published_signal(process), rtol=1e-10)
    assert {k: signal[k].item() for k in values} == pytest.approx(values, rel=1e-5)
    assert (signal.diff() < 0).all()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_other_numbers_of_levels_end_in_the_same_noise(schedule: str) -> None:
    usual = published_signal(COSINE if schedule == "cosine" else LINEAR)
    for num_levels in (25, 100, 4000):
        signal = DDPM(schedule=schedule, num_levels=num_levels).signal(torch.arange(num_levels))  # type: ignore[arg-type]
        assert 0 < signal[-1] < 1e-3
        assert signal[num_levels * 3 // 5 - 1] == pytest.approx(usual[599], rel=0.5 if num_levels == 25 else 0.2)


def test_the_ddpm_network_sees_its_step_as_a_time() -> None:
    network = Recorder()
    COSINE.predict(network, torch.zeros(2, 1, 1, 1), torch.tensor([0, 999]), torch.zeros(2))
    assert network.time.tolist() == pytest.approx([0.001, 1.0])


def test_preconditioning_by_hand() -> None:
    # sigma = sigma_data = 0.5: c_skip = 1/2, c_out = 0.25 / sqrt(0.5), c_in = sqrt(2) (Karras et al. 2022, table 1).
    network = Recorder()
    denoised = KARRAS.predict(network, torch.full((1, 1, 1, 1), 0.6), torch.tensor([0.5]), torch.zeros(1))
    assert network.x.item() == pytest.approx(0.6 * math.sqrt(2), rel=1e-6)
    assert denoised.item() == pytest.approx(0.3 + 0.25 / math.sqrt(0.5), rel=1e-6)
    KARRAS.predict(network, torch.zeros(2, 1, 1, 1), torch.tensor([0.002, 80.0]), torch.zeros(2))
    assert network.time.tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


def test_an_edm_network_that_says_nothing_has_a_loss_of_one_at_every_level() -> None:
    with isolated_rng(0):
        images = 0.5 * torch.randn(200_000, 1, 1, 1)
        sigma_data = 0.5

        def silent(x: Tensor, sigma: Tensor) -> Tensor:
            return x * sigma_data**2 / (sigma.view(-1, 1, 1, 1) ** 2 + sigma_data**2)

        losses, sigma = KARRAS.losses(silent, images, None)
    for part in losses[sigma.argsort()].chunk(4):
        assert part.mean().item() == pytest.approx(1.0, abs=4 * part.std().item() / math.sqrt(len(part)))


def test_the_coupling_is_the_cheapest_of_all_permutations() -> None:
    rng = torch.Generator().manual_seed(0)
    for _ in range(20):
        images, noise = torch.randn(4, 1, 2, 2, generator=rng), torch.randn(4, 1, 2, 2, generator=rng)
        costs = {p: (noise[list(p)] - images).square().sum().item() for p in itertools.permutations(range(4))}
        coupled = nearest_noise(noise, images, None)
        assert torch.equal(coupled, noise[list(min(costs, key=costs.__getitem__))])


def test_minibatch_couplings_shorten_paths_and_keep_noise_and_images() -> None:
    images = torch.randn(64, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for coupling in ("independent", "minibatch_ot"):
        process = FlowMatching(times="uniform", coupling=coupling)  # type: ignore[arg-type]
        with isolated_rng(1):
            # A velocity of zero has the length of the path as its loss.
            losses, time = process.losses(lambda x, t: torch.zeros_like(x), images, None)
        seen[coupling] = losses, time
    assert torch.equal(seen["independent"][1], seen["minibatch_ot"][1])
    assert seen["minibatch_ot"][0].mean() < 0.6 * seen["independent"][0].mean()


@pytest.mark.parametrize("conditional", [True, False])
def test_a_conditional_model_is_trained_from_all_noise_for_every_class(conditional: bool) -> None:
    """Sampling asks for a class from any noise; a coupling across classes would give each the noise that is near it."""
    values = 3.0 * (torch.arange(6) - 2.5).repeat_interleave(3)  # a class of three equal images each
    labels = torch.arange(6).repeat_interleave(3)
    model = GaussianTruth(FlowMatching(times="uniform", coupling="minibatch_ot"), 0.0, 1.0, class_shift=1.0)
    model.conditional = conditional
    noise: list[Tensor] = []

    def silent(x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        time, values_there = time.view(-1, 1, 1, 1), values.view(-1, 1, 1, 1)
        noise.append((x - time * values_there) / (1.0 - time))
        return torch.zeros_like(x)

    model.predict = silent
    with isolated_rng(0):
        for _ in range(200):
            model.loss(values.view(-1, 1, 1, 1).expand(-1, 1, 2, 2), labels)
    median = torch.stack(noise)[:, labels == 5].median().item()
    if conditional:
        assert abs(median) < 4 * 1.25 / 2400**0.5
    else:
        assert median > 0.3, "across classes the brightest one has the brightest noise"


@pytest.mark.parametrize("name", PROCESSES)
def test_training_leaves_the_class_out_as_often_as_asked_and_evaluation_never(name: str) -> None:
    model, count = GaussianTruth(PROCESSES[name], 0.0, 1.0, class_shift=1.0), 20_000
    model.condition_dropout = 0.3
    images, labels = torch.zeros(count, 1, 2, 2), torch.ones(count, dtype=torch.int64)
    with isolated_rng(0):
        model.train().loss(images, labels)
        model.eval().loss(images, labels)
        model.train().conditional = False
        model.loss(images, labels)
    training, evaluating, unconditional = model.asked
    dropped = training == UNLABELLED
    assert abs(dropped.float().mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / count)
    assert (training[~dropped] == 1).all()
    assert (evaluating == 1).all()
    assert (unconditional == 1).all()


@pytest.mark.parametrize("name", PROCESSES)
def test_gated_levels_have_no_loss(name: str) -> None:
    process = PROCESSES[name]
    model, images = GaussianTruth(process, 0.0, 1.0), torch.ones(200, 1, 2, 2)
    labels = torch.zeros(200, dtype=torch.int64)
    results = []
    for gate in (None, math.inf, 0.0, -math.inf):
        with isolated_rng(0):
            results.append(model.loss(images, labels, None if gate is None else torch.full((200,), gate)))
    plain, all_levels, noisy_levels, no_level = results
    snr = process.log_snr(training_levels_of(process, images))
    assert torch.equal(plain, all_levels)
    assert torch.equal(noisy_levels, torch.where(snr <= 0, plain, 0.0))
    assert 0 < (noisy_levels > 0).sum() < 200
    assert (no_level == 0).all()


def training_levels_of(process: Process, images: Tensor) -> Tensor:
    with isolated_rng(0):
        return process.losses(lambda x, level: x, images, None)[1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DDPM(schedule="cosine", num_levels=1), "num_levels must be at least 2"),
        (lambda: DDPM(schedule="linear", num_levels=20), "its last variance would be 1 or more"),
        (lambda: EDM(sigma_data=0.0, log_mean=0.0, log_sd=1.0), "sigma_data and log_sd must be above 0"),
        (lambda: EDM(sigma_data=0.5, log_mean=0.0, log_sd=-1.0), "sigma_data and log_sd must be above 0"),
    ],
)
def test_impossible_processes_are_refused(build, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()
