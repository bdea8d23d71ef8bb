import itertools
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.optim import optimizer as optimizer_module

from collapse_bench.errors import ConfigError, TrainingError
from collapse_bench.pool import Pool
from collapse_bench.training import (
    Batches,
    ExponentialAverage,
    FitJob,
    Optimisation,
    PowerAverage,
    TrainerOptions,
    power_exponent,
    train,
)

CPU = torch.device("cpu")
OPTIONS = TrainerOptions(num_threads=1)
PLAIN = Optimisation(batch_size=8, learning_rate=0.05)


def indexed_pool(count: int) -> Pool:
    """A pool whose labels are positions, so that a batch says which images are in it."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return Pool.real(images, torch.arange(count), "test")


def drawn(weights: Tensor, batch_size: int, num_batches: int, seed: int = 0) -> Tensor:
    """Positions of the images of all batches, one row per batch."""
    batches = Batches(indexed_pool(len(weights)), weights, batch_size, num_batches, seed, CPU)
    rows = [labels for _, labels in batches]
    assert len(rows) == len(batches) == num_batches
    return torch.stack(rows)


@pytest.mark.parametrize("batch_size", [1, 4, 10, 25])
def test_equal_weights_show_every_image_once_per_epoch(batch_size: int) -> None:
    # 25 is more than the pool holds: such a batch straddles epochs.
    epochs = drawn(torch.full((10,), 0.3), batch_size, num_batches=100).flatten().split(10)
    whole = [epoch for epoch in epochs if len(epoch) == 10]
    assert len(whole) == 10 * batch_size
    assert all(epoch.sort().values.tolist() == list(range(10)) for epoch in whole)
    assert len({tuple(epoch.tolist()) for epoch in whole[:10]}) == 10


def test_images_of_weight_zero_are_absent() -> None:
    equal = drawn(torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]), 3, 4)
    assert [epoch.sort().values.tolist() for epoch in equal] == [[1, 2, 4]] * 4
    unequal = drawn(torch.tensor([0.0, 1.0, 2.0, 0.0, 3.0, 0.0]), 100, 20)
    assert set(unequal.flatten().tolist()) == {1, 2, 4}


def test_unequal_weights_draw_in_proportion() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.5], dtype=torch.float64)
    counts = drawn(weights, 100, 200).flatten().bincount(minlength=5)
    expected = weights / weights.sum() * counts.sum()
    assert scipy.stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


def test_unequal_weights_draw_independently() -> None:
    sequence = drawn(torch.tensor([1.0, 2.0]), 100, 200).flatten().double()
    centred = sequence - sequence.mean()
    # An image as often as another, but drawn without replacement, would repel itself.
    correlation = (centred[1:] * centred[:-1]).mean() / centred.var()
    assert abs(correlation) < 5 / math.sqrt(len(sequence))


@pytest.mark.parametrize("weights", [torch.ones(7), torch.tensor([0.1, 0.0, 0.7, 3.0, 1e-4])])
@pytest.mark.parametrize("factor", [1e-20, 0.1, 8.0, 3.7, 1e20])
def test_scaling_all_weights_changes_nothing(weights: Tensor, factor: float) -> None:
    assert torch.equal(drawn(weights.double() * factor, 6, 50), drawn(weights.double(), 6, 50))


def test_the_type_of_the_weights_changes_nothing() -> None:
    weights = torch.tensor([1, 0, 2, 5])
    assert torch.equal(drawn(weights.float(), 6, 50), drawn(weights.double(), 6, 50))
    assert torch.equal(drawn(weights, 6, 50), drawn(weights.double(), 6, 50))


@pytest.mark.parametrize("weights", [torch.ones(7), torch.arange(7.0)])
def test_batches_are_a_function_of_their_seed(weights: Tensor) -> None:
    torch.manual_seed(1)
    first = drawn(weights, 4, 20, seed=5)
    torch.manual_seed(2)
    assert torch.equal(drawn(weights, 4, 20, seed=5), first)
    assert not torch.equal(drawn(weights, 4, 20, seed=6), first)


def test_batches_are_what_networks_see() -> None:
    ((images, labels),) = Batches(indexed_pool(256), torch.ones(256), 256, 1, 0, CPU)
    assert images.dtype == torch.float32
    assert torch.equal(images[:, 0, 0, 0], labels / 127.5 - 1)
    raw = torch.tensor([[[[-7.0]]], [[[1e3]]]])
    pool = Pool.real(raw, torch.arange(2), "gaussian")
    ((images, labels),) = Batches(pool, torch.ones(2), 2, 1, 0, CPU)
    assert torch.equal(images, raw[labels])


def test_each_image_of_a_batch_comes_with_its_gate() -> None:
    gate = torch.tensor([math.inf, 1.5, -math.inf, 0.0, -2.0], dtype=torch.float64)
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0])
    plain = list(Batches(indexed_pool(5), weights, 3, 6, 0, CPU))
    gated = list(Batches(indexed_pool(5), weights, 3, 6, 0, CPU, gate))
    for (images, labels), (same_images, same_labels, gates) in zip(plain, gated, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)
        assert torch.equal(gates, gate[labels].float())


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (torch.tensor([1.0, math.nan, 1.0]), "must be numbers"),
        (torch.tensor([-math.inf, -math.inf, 1.0]), "left out at every noise level: nothing is left to train on"),
    ],
)
def test_gates_that_make_no_sense_are_refused(gate: Tensor, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Batches(indexed_pool(3), torch.tensor([1.0, 1.0, 0.0]), 2, 1, 0, CPU, gate)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.zeros(3), "nothing is left to train on"),
        (torch.tensor([1.0, -1e-9, 1.0]), "not negative"),
        (torch.tensor([1.0, math.nan, 1.0]), "finite"),
        (torch.tensor([1.0, math.inf, 1.0]), "finite"),
        (torch.ones(2), "2 weights for a pool of 3 images"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: Tensor, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Batches(indexed_pool(3), weights, 2, 1, 0, CPU)
    with pytest.raises(TrainingError, match=message):
        train(Line(), Line().compute_loss, indexed_pool(3), weights, PLAIN, job(1))


class Line(nn.Module):
    """Predicts the label from the pixels; its loss may draw noise from the global state."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        nn.init.constant_(self.layer.weight, 0.1)
        nn.init.constant_(self.layer.bias, -0.2)
        self.noise = noise

    def compute_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        images = images + self.noise * torch.randn_like(images)
        return (self.layer(images.flatten(1)).squeeze(1) - labels).square()


def float_pool(count: int = 64) -> Pool:
    """Labels are a linear function of the images."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(-3, 4, (count, 1, 2, 2), generator=rng)
    labels = images.flatten(1) @ torch.tensor([1, -2, 3, 1]) + 2
    return Pool.real(images.float(), labels, "line")


def job(num_steps: int, seed: int = 0, **rest) -> FitJob:
    return FitJob(num_steps, seed, OPTIONS, "generation 3", **rest)


@dataclass
class Watched:
    """What the optimiser did at every step."""

    rates: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    parameters: list[Tensor] = field(default_factory=list)


@contextmanager
def watched_optimiser() -> Iterator[Watched]:
    seen = Watched()

    def note(optimiser: torch.optim.Optimizer, *_: object) -> None:
        # Gradients are there until the next step begins.
        gradients = [p.grad for group in optimiser.param_groups for p in group["params"]]
        seen.norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
        seen.rates.append(optimiser.param_groups[0]["lr"])
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        seen.parameters.append(torch.cat([p.detach().flatten().clone() for p in parameters]))

    hook = optimizer_module.register_optimizer_step_post_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def fitted(optimisation: Optimisation, fit: FitJob, noise: float = 0.0) -> tuple[Line, tuple]:
    network, pool = Line(noise), float_pool()
    return network, train(network, network.compute_loss, pool, torch.ones(len(pool)), optimisation, fit)


def flat(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_a_tiny_regression_is_learnt() -> None:
    network, losses = fitted(PLAIN, job(400))
    # The labels' variance is about 60; the line goes through them exactly.
    assert losses[0][1] > 10
    assert losses[-1][1] < 1e-2
    assert torch.allclose(flat(network), torch.tensor([1.0, -2.0, 3.0, 1.0, 2.0]), atol=0.05)


def test_training_ignores_images_of_weight_zero() -> None:
    pool = float_pool()
    wrong = torch.where(torch.arange(64) % 2 == 0, pool.labels, 1000)
    weights = (torch.arange(64) % 2 == 0).float()
    mislabelled, halved = Line(), Line()
    train(mislabelled, mislabelled.compute_loss, Pool.real(pool.images, wrong, "x"), weights, PLAIN, job(10))
    half = pool.take(torch.arange(0, 64, 2))
    train(halved, halved.compute_loss, half, torch.ones(32), PLAIN, job(10))
    assert torch.equal(flat(mislabelled), flat(halved))


def test_training_is_deterministic_bit_for_bit() -> None:
    optimisation = Optimisation(batch_size=8, ema_width=0.1, max_grad_norm=1.0)
    (first, losses), (second, again), (other, _) = (fitted(optimisation, job(30, seed), 0.3) for seed in (1, 1, 2))
    assert torch.equal(flat(first), flat(second))
    assert losses == again
    assert not torch.equal(flat(first), flat(other))


def test_training_neither_reads_nor_changes_the_global_random_state() -> None:
    results = []
    for seed in (1, 2):
        network, pool = Line(noise=0.3), float_pool()
        torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)  # noqa: NPY002
        before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002
        train(network, network.compute_loss, pool, torch.ones(len(pool)), PLAIN, job(5))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (random.getstate(), repr(np.random.get_state())) == before[1:]  # noqa: NPY002
        results.append(flat(network))
    assert torch.equal(*results)


@pytest.mark.parametrize("num_steps", [1, 7, 20, 61])
def test_a_fit_makes_exactly_its_steps_and_its_losses_cover_them(num_steps: int) -> None:
    network, pool = Line(), float_pool()
    each: list[float] = []

    def compute_loss(images: Tensor, labels: Tensor) -> Tensor:
        loss = network.compute_loss(images, labels)
        each.append(loss.mean().item())
        return loss

    with watched_optimiser() as seen:
        losses = train(network, compute_loss, pool, torch.ones(len(pool)), PLAIN, job(num_steps))
    assert len(seen.rates) == len(each) == num_steps
    steps = [step for step, _ in losses]
    assert steps[-1] == num_steps
    assert len(steps) <= 20
    # Every entry is the mean since the previous one.
    for before, (step, mean) in zip([0, *steps], losses, strict=False):
        assert before < step
        assert mean == pytest.approx(sum(each[before:step]) / (step - before), rel=1e-12)


def test_whoever_watches_is_told_about_the_last_step() -> None:
    told: list[tuple[int, int, float]] = []
    fitted(PLAIN, job(60, on_step=lambda *step: told.append(step)))
    assert [step for step, _, _ in told] == [25, 50, 60]
    assert all(num_steps == 60 and math.isfinite(loss) for _, num_steps, loss in told)


def test_a_fitted_network_is_in_eval_mode_on_its_device() -> None:
    network, _ = fitted(PLAIN, job(1))
    assert not any(module.training for module in network.modules())
    assert all(p.device == OPTIONS.device for p in network.parameters())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("step", [1, 24, 25, 26, 60])
def test_a_loss_that_is_not_finite_stops_the_fit_and_names_the_step(step: int, bad: float) -> None:
    network, pool = Line(), float_pool()
    num_calls = 0

    def compute_loss(images: Tensor, labels: Tensor) -> Tensor:
        nonlocal num_calls
        num_calls += 1
        return network.compute_loss(images, labels) * (bad if num_calls == step else 1.0)

    with pytest.raises(
        TrainingError, match=rf"became {bad} at step {step} of 60 of generation 3; lower .*learning_rate"
    ):
        train(network, compute_loss, pool, torch.ones(len(pool)), PLAIN, job(60))
    # Losses are looked at 25 at a time.
    assert step <= num_calls < step + 25


def test_the_optimiser_follows_the_schedule() -> None:
    optimisation = Optimisation(batch_size=8, learning_rate=0.01, num_warmup_steps=3)
    with watched_optimiser() as seen:
        fitted(optimisation, job(40))
    assert seen.rates == pytest.approx([0.01 * optimisation.rate_at(k, 40) for k in range(40)], rel=1e-12)


def test_the_learning_rate_rises_and_decays_to_zero() -> None:
    rates = [Optimisation(num_warmup_steps=50).rate_at(k, 1000) for k in range(1001)]
    assert rates[0] == pytest.approx(1 / 51)
    assert rates[50] == 1.0
    assert rates[1000] == pytest.approx(0.0, abs=1e-15)
    assert all(after > before for before, after in itertools.pairwise(rates[:51]))
    assert all(after < before for before, after in itertools.pairwise(rates[50:]))
    # Half-way down after half of the decay.
    assert rates[525] == pytest.approx(0.5)


def test_without_decay_the_learning_rate_stays_at_its_peak() -> None:
    rates = [Optimisation(num_warmup_steps=4, decay="none").rate_at(k, 100) for k in range(101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert set(rates[4:]) == {1.0}


@pytest.mark.parametrize(("num_steps", "peak"), [(1, 0), (9, 0), (10, 1), (100, 10), (10_000, 50)])
def test_warm_up_takes_at_most_a_tenth_of_the_steps(num_steps: int, peak: int) -> None:
    rates = [Optimisation(num_warmup_steps=50).rate_at(k, num_steps) for k in range(num_steps)]
    assert max(rates) == rates[peak] == 1.0
    assert all(0 < rate <= 1 for rate in rates)


def test_gradients_are_scaled_down_to_the_norm() -> None:
    with watched_optimiser() as free:
        fitted(PLAIN, job(10))
    with watched_optimiser() as clipped:
        fitted(Optimisation(batch_size=8, learning_rate=0.05, max_grad_norm=0.5), job(10))
    assert min(free.norms) > 1
    assert clipped.norms == pytest.approx([0.5] * 10, rel=1e-4)


class Idle(nn.Module):
    """Its loss does not depend on its parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, -0.5]))

    def compute_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return (0.0 * self.weight).sum() + 0.0 * images.flatten(1).sum(1)


@pytest.mark.parametrize("batch_loss", ["mean", "sum"])
def test_coupled_weight_decay_goes_through_adam_and_decoupled_does_not(batch_loss: str) -> None:
    options = {"learning_rate": 0.1, "weight_decay": 0.01, "num_warmup_steps": 0, "decay": "none"}
    ends = {}
    for optimiser in ("adamw", "adam"):
        network, pool = Idle(), float_pool()
        optimisation = Optimisation(batch_size=8, **options, optimiser=optimiser, batch_loss=batch_loss)
        train(network, network.compute_loss, pool, torch.ones(64), optimisation, job(1))
        ends[optimiser] = network.weight.detach()
    # A thousandth of the weight; and the learning rate itself, because Adam divides a gradient by its own size.
    assert torch.allclose(ends["adamw"], torch.tensor([2.0, -0.5]) * (1 - 0.001), rtol=1e-6)
    assert torch.allclose(ends["adam"], torch.tensor([1.9, -0.4]), rtol=1e-5)


def test_adam_is_the_optimiser_of_torch_on_the_sum_of_a_batch() -> None:
    optimisation = Optimisation(
        batch_size=64, learning_rate=0.01, weight_decay=0.3, optimiser="adam", batch_loss="sum", decay="none"
    )
    network, losses = fitted(optimisation, job(5))
    pool, by_hand = float_pool(), Line()
    reference = torch.optim.Adam(by_hand.parameters(), lr=0.01, weight_decay=0.3)
    means = []
    for _ in range(5):
        reference.zero_grad()
        each = by_hand.compute_loss(pool.images, pool.labels)
        each.sum().backward()
        means.append(each.mean().item())
        reference.step()
    assert torch.allclose(flat(network), flat(by_hand), rtol=1e-4)
    assert losses[-1][1] == pytest.approx(means[-1], rel=1e-4), "what is recorded is the mean"


def test_the_gradient_of_the_sum_is_that_of_the_mean_times_the_size_of_the_batch() -> None:
    with watched_optimiser() as mean:
        fitted(PLAIN, job(1))
    with watched_optimiser() as total:
        fitted(Optimisation(batch_size=8, learning_rate=0.05, batch_loss="sum"), job(1))
    assert total.norms == pytest.approx([8 * mean.norms[0]], rel=1e-5)


GAMMAS_OF_WIDTHS = [0.01, 0.05, 0.1, 0.2, 0.279]


@pytest.mark.parametrize("width", GAMMAS_OF_WIDTHS)
def test_the_power_exponent_gives_the_relative_width(width: float) -> None:
    num_steps = 100_000
    j = np.arange(1, num_steps + 1) / num_steps
    share = j ** power_exponent(width)
    share /= share.sum()
    deviation = math.sqrt((share * (j - (share * j).sum()) ** 2).sum())
    assert deviation == pytest.approx(width, rel=1e-3)


def shares(width: float, num_updates: int) -> Tensor:
    """The integral of t^gamma over the time of each update, as a share of the whole."""
    return (torch.arange(num_updates + 1).double() / num_updates).pow(power_exponent(width) + 1).diff()


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25])
@pytest.mark.parametrize("num_updates", [1, 2, 500])
def test_the_power_average_is_the_weighted_sum(width: float, num_updates: int) -> None:
    network = nn.Linear(2, 3).double()
    average = PowerAverage(network, width)
    rng = torch.Generator().manual_seed(0)
    path = torch.rand(num_updates, 9, generator=rng, dtype=torch.float64)
    for point in path:
        nn.utils.vector_to_parameters(point.clone(), network.parameters())
        average.update()
    assert torch.equal(flat(network), path[-1])
    average.apply()
    assert torch.allclose(flat(network), shares(width, num_updates) @ path, rtol=1e-10)


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25])
def test_the_shares_of_the_power_average_approach_the_power_law(width: float) -> None:
    num_updates, gamma = 500, power_exponent(width)
    power = torch.arange(1, num_updates + 1).double() ** gamma
    difference = (shares(width, num_updates) - power / power.sum()).abs().sum()
    # Integral against sum: the relative difference at j is about gamma / (2 j).
    assert difference < (gamma + 1) / num_updates


def test_the_power_average_does_not_depend_on_where_the_network_started() -> None:
    results = []
    for start in (0.0, 1e6):
        network = nn.Linear(1, 1)
        nn.init.constant_(network.weight, start)
        average = PowerAverage(network, 0.1)
        nn.init.constant_(network.weight, 2.0)
        average.update()
        average.apply()
        results.append(network.weight.item())
    assert results == [2.0, 2.0]


def test_the_exponential_average_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False).double()
    average = ExponentialAverage(network, 0.5)
    for value in (1.0, 2.0, 4.0):
        nn.init.constant_(network.weight, value)
        average.update()
    average.apply()
    # Weights 1/4, 1/2 and 1, over their sum of 7/4; the initial parameter has none.
    assert network.weight.item() == pytest.approx((1.0 + 2 * 2.0 + 4 * 4.0) / 7, rel=1e-12)


@pytest.mark.parametrize("average", ["power", "exponential"])
def test_a_fit_returns_the_average_of_its_own_path(average: str) -> None:
    option = {"ema_width": 0.1} if average == "power" else {"ema_decay": 0.9}
    optimisation = Optimisation(batch_size=8, learning_rate=0.05, **option)
    weights = shares(0.1, 40) if average == "power" else 0.9 ** torch.arange(39, -1, -1).double()
    with watched_optimiser() as seen:
        network, _ = fitted(optimisation, job(40))
    path = torch.stack(seen.parameters).double()
    assert torch.allclose(flat(network).double(), weights / weights.sum() @ path, rtol=1e-4, atol=1e-6)
    with watched_optimiser() as plain:
        last, _ = fitted(PLAIN, job(40))
    # The average is beside the path, not on it.
    assert torch.equal(torch.stack(plain.parameters), torch.stack(seen.parameters))
    assert torch.equal(flat(last), plain.parameters[-1])


def test_mixed_precision_keeps_the_parameters_in_32_bits() -> None:
    options = TrainerOptions(precision="bf16-mixed", num_threads=1)
    network, losses = fitted(PLAIN, FitJob(5, 0, options, "generation 0"))
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert all(math.isfinite(loss) for _, loss in losses)
    assert losses != fitted(PLAIN, FitJob(5, 0, OPTIONS, "generation 0"))[1], "products were rounded to 16 bits"


def test_channels_last_is_a_matter_of_the_fit_alone() -> None:
    network = nn.Conv2d(2, 3, 3)
    seen: set[bool] = set()

    def compute_loss(images: Tensor, labels: Tensor) -> Tensor:
        seen.add(network.weight.is_contiguous(memory_format=torch.channels_last))
        return network(images).flatten(1).square().mean(1)

    pool = Pool.real(torch.randn(8, 2, 5, 5), torch.zeros(8, dtype=torch.int64), "noise")
    options = TrainerOptions(num_threads=1, channels_last=True)
    train(network, compute_loss, pool, torch.ones(8), PLAIN, FitJob(2, 0, options, "a fit"))
    assert seen == {True}
    assert network.weight.is_contiguous()


def test_encoders_are_fitted_in_one_process_and_full_precision_whatever_the_models_are() -> None:
    options = TrainerOptions(
        precision="bf16-mixed", compile=True, channels_last=True, strategy="ddp", num_processes=2, num_threads=1
    )
    assert options.exact == OPTIONS


def test_a_gradient_that_is_nan_in_the_last_step_stops_the_fit() -> None:
    network, num_calls = Line(), 0

    def compute_loss(images: Tensor, labels: Tensor) -> Tensor:
        nonlocal num_calls
        num_calls += 1
        losses = network.compute_loss(images, labels)
        if num_calls == 10:
            losses.register_hook(lambda gradient: gradient * math.nan)
        return losses

    with pytest.raises(TrainingError, match="became NaN or infinite in the last step of generation 3"):
        train(network, compute_loss, float_pool(), torch.ones(64), PLAIN, job(10))


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=cuda.*use trainer=cpu"):
        TrainerOptions(accelerator="cuda")
    assert TrainerOptions().device == CPU


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "16-mixed"}, r"trainer\.precision=16-mixed needs a GPU"),
        ({"num_threads": 0}, r"trainer\.num_threads must be at least 1, got 0"),
    ],
)
def test_trainer_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainerOptions(**options)
    assert TrainerOptions(precision="bf16-mixed", num_threads=1).precision == "bf16-mixed"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", -1e-3),
        ("learning_rate", math.nan),
        ("weight_decay", -0.1),
        ("num_warmup_steps", -1),
        ("max_grad_norm", 0.0),
        ("ema_width", 0.0),
        ("ema_width", 0.28),
        ("ema_width", -0.1),
        ("ema_decay", 0.0),
        ("ema_decay", 1.0),
    ],
)
def test_optimisation_that_makes_no_sense_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must .* got {value}"):
        Optimisation(**{name: value})
    assert Optimisation(batch_size=1, learning_rate=1e-9, ema_width=0.279).ema_width == 0.279


def test_two_averages_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="two averages of the parameters; set one of them to null"):
        Optimisation(ema_width=0.1, ema_decay=0.999)


def test_parameters_order_and_noise_have_seeds_of_their_own() -> None:
    job = FitJob(1, 5, TrainerOptions(num_threads=1), "a fit")
    assert len({job.seed, job.seed_of("order"), job.seed_of("noise")}) == 3
    assert job.seed_of("order") == replace(job, num_steps=2).seed_of("order") != replace(job, seed=6).seed_of("order")
