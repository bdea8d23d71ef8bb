import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, TINY_OPTION, FinishedChain, assert_equal_chains, composed, parts_of
from torch import Tensor
from torch.nn import functional as F

from collapse_bench.cli.config import build
from collapse_bench.errors import ConfigError, TrainingError
from collapse_bench.generators.base import Model
from collapse_bench.generators.diffusion import NoisyModel
from collapse_bench.generators.processes import FlowMatching
from collapse_bench.ledger import TRAINED
from collapse_bench.mitigations.discriminator import Discriminator
from collapse_bench.mitigations.time_gate import TimeGate, noisy
from collapse_bench.now import Now
from collapse_bench.pool import REAL, Pool
from collapse_bench.seeding import isolated_rng
from collapse_bench.types import ImageSpec, to_uint8

CHAIN = (*TINY, *TINY_FLOW, "regime=augment")
TIME_GATE = ("mitigation=time_gate", *TINY_OPTION["time_gate"])


PROCESS = FlowMatching(times="uniform", coupling="independent")


class Constant(NoisyModel):
    """The same velocity everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__(ImageSpec(1, 2, 2, ("a", "b")), False, PROCESS, 0.0)
        self.value = torch.nn.Parameter(torch.tensor(value))

    def predict(self, x: Tensor, level: Tensor, labels: Tensor) -> Tensor:
        return self.value.expand_as(x)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> FinishedChain:
    return FinishedChain(tmp_path_factory.mktemp("time_gate"), *CHAIN, *TIME_GATE)


def test_the_gated_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    times = torch.tensor([0.5, 0.5, 0.9, 0.9, 0.9, 0.9])
    expected = [0.0, 0.0, *[2 * math.log(9)] * 4]  # 2 log 9 = 4.39
    assert PROCESS.log_snr(times).tolist() == pytest.approx(expected, abs=1e-5)
    gate = torch.tensor([0.5, -0.5, 5.0, 4.0, math.inf, -math.inf])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: times)
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.zeros(shape))
    images, labels = torch.full((6, 1, 2, 2), 1.0), torch.zeros(6, dtype=torch.int64)
    # The velocity of the path is image - noise = 1, the model's is 3.
    assert Constant(3.0).loss(images, labels).tolist() == [4.0] * 6
    assert Constant(3.0).loss(images, labels, gate).tolist() == [4.0, 0.0, 4.0, 0.0, 4.0, 0.0]


@pytest.mark.parametrize("time", [0.0, 1.0])
def test_the_ends_of_the_path_have_finite_levels(time: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.full((2,), time))
    gate = torch.tensor([math.inf, -math.inf])
    losses = Constant(3.0).loss(torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64), gate)
    assert losses[0] > 0
    assert losses[1] == 0


def test_an_image_that_is_left_out_has_no_gradient(chain: FinishedChain) -> None:
    def gradient(gate: Tensor | None, present: slice) -> Tensor:
        model = chain.now(1).chain.fitted
        assert isinstance(model, NoisyModel)
        model.zero_grad()
        with isolated_rng(3):
            images, labels = torch.randn(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
            losses = model.loss(images, labels) if gate is None else model.loss(images, labels, gate)
        losses[present].sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    out = torch.tensor([math.inf, math.inf, -math.inf, -math.inf])
    assert gradient(out, slice(2, 4)).abs().sum() == 0
    assert torch.allclose(gradient(out, slice(4)), gradient(None, slice(2)), atol=1e-6)
    assert torch.equal(gradient(torch.full((4,), math.inf), slice(4)), gradient(None, slice(4)))


def fit(chain: FinishedChain, gate: Tensor | None) -> tuple[Model, Now]:
    now, pool = chain.now(1), chain.pool(1)
    return now.fit(chain.parts.generator, pool, torch.ones(len(pool)), gate=gate), now


def test_a_gate_decides_the_fit_unless_it_is_open_for_all(chain: FinishedChain) -> None:
    num_images = len(chain.pool(1))
    (open_for_all, reused), (none, _) = fit(chain, torch.full((num_images,), math.inf)), fit(chain, None)
    half = torch.where(torch.arange(num_images) % 2 == 0, math.inf, -1.0)
    (gated, anew), (_, again) = fit(chain, half), fit(chain, half)
    assert all(torch.equal(a, b) for a, b in zip(none.parameters(), open_for_all.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(none.parameters(), gated.parameters(), strict=True))
    assert (anew.spent.reused, again.spent.reused) == ((), ("fit",))
    assert reused.losses != anew.losses


def test_nothing_left_is_an_error(chain: FinishedChain) -> None:
    num_images = len(chain.pool(1))
    with pytest.raises(TrainingError, match="every image of the training pool is left out at every noise level"):
        fit(chain, torch.full((num_images,), -math.inf))
    with pytest.raises(TrainingError, match="at every noise level that generation 1 drew"):
        fit(chain, torch.full((num_images,), -25.0))  # a time of 4e-6, which no 96 draws hit


def test_a_real_image_that_is_left_out_was_not_seen(chain: FinishedChain) -> None:
    born = chain.pool(1).born
    _, now = fit(chain, torch.where(torch.arange(len(born)) < 60, -math.inf, math.inf))
    assert now.spent.real_images_seen["generator"] == (born[60:] == REAL).sum()


def test_noisy_images_by_hand() -> None:
    # At a level of log 3, alpha^2 = 3/4 and sigma^2 = 1/4.
    view = noisy(torch.full((1, 1, 1, 1), 2.0), torch.tensor([math.log(3)]), torch.full((1, 1, 1, 1), 4.0))
    assert view.flatten().tolist() == pytest.approx([2 * math.sqrt(0.75) + 4 * 0.5, math.log(3) / 4])


def test_the_gate_by_hand(chain: FinishedChain, monkeypatch: pytest.MonkeyPatch) -> None:
    """A discriminator that knows the level alone: its odds of being real are 1 : 2^level."""
    weigher, now, pool = chain.parts.mitigation.weigher, chain.now(2), chain.pool(2)

    def realness(self: Discriminator, views: Tensor, *_: object) -> Tensor:
        return -4.0 * views[:, -1, 0, 0] * math.log(2)

    monkeypatch.setattr(Discriminator, "realness", realness)
    # 1 / (1 + 2^level) is at least 0.45 up to a level of log2(0.55 / 0.45) = 0.29; the grid is -4, -3, ..., 6.
    gate = weigher.gate(pool.visible(), now)
    assert gate.tolist() == [math.inf if born == REAL else 0.0 for born in pool.born]
    # ... and at least 0.01 up to log2(99) = 6.63, above the highest level.
    assert replace(weigher, tolerance=0.49).gate(pool.visible(), now).unique().tolist() == [math.inf]
    monkeypatch.setattr(Discriminator, "realness", lambda self, views, *_: torch.full((len(views),), -1.0))
    assert weigher.gate(pool.visible(), now)[pool.born != REAL].unique().tolist() == [-math.inf]


def blurred(images: Tensor) -> Tensor:
    return to_uint8(F.avg_pool2d(F.pad(images.float(), (1, 1, 1, 1), mode="replicate"), 3, stride=1) / 127.5 - 1)


def noised(images: Tensor) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + 60 * noise).round().clamp(0, 255).to(torch.uint8)


SPOILT = {"blurred": blurred, "noised": noised}


@dataclass(frozen=True)
class Spoilt:
    """In place of a sampler: real images, spoilt."""

    how: str

    def sample(self, model: Model, seeds: Tensor) -> tuple[Tensor, Tensor]:
        images = build(composed("dataset=digits")["dataset"], "dataset").load().pool.images
        return SPOILT[self.how](images[torch.arange(len(seeds))]), torch.full_like(seeds, -1)


@pytest.mark.slow
@pytest.mark.parametrize("how", SPOILT)
def test_spoilt_images_are_used_under_noise_only_and_those_like_real_ones_always(
    how: str, chain: FinishedChain
) -> None:
    """The previous model makes spoilt images; in the pool are such ones, of other digits, and faultless ones."""
    digits = build(composed("dataset=digits")["dataset"], "dataset").load().pool
    trusted, others = digits.take(torch.arange(600)), digits.take(torch.arange(600, 897))
    bad = replace(others, images=SPOILT[how](others.images))
    pool = Pool.concat([trusted, others, bad])
    pool = replace(pool, born=torch.where(torch.arange(len(pool)) < 600, REAL, 0))
    setting = replace(chain.parts.setting, trusted=trusted, sampler=Spoilt(how))
    weigher = build(composed("mitigation=time_gate")["mitigation"], "mitigation").weigher
    gates = weigher.gate(pool.visible(), Now(1, 0, setting, chain.now(1).chain))
    known, like_real, spoilt = gates.split([600, 297, 297])
    assert (known == math.inf).all()
    assert (like_real == math.inf).double().mean() > 0.8
    assert (spoilt == math.inf).double().mean() < 0.2
    assert (spoilt > -math.inf).double().mean() > 0.8, "under much noise they may be used"
    assert spoilt.quantile(0.5) < 4


def test_where_origin_is_lost_trusted_images_alone_are_spared(
    chain: FinishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = ("regime=contaminate", "regime.num_trusted=20", *TIME_GATE)
    parts = parts_of(composed(*TINY, *TINY_FLOW, *hidden), chain.parts.setting.store.root)
    now = Now(1, 0, parts.setting, chain.now(1).chain)
    pool = parts.regime.mix(now)
    monkeypatch.setattr(Discriminator, "realness", lambda self, views, *_: torch.full((len(views),), -1.0))
    gate = parts.mitigation.weigher.gate(pool.visible(), now)
    trusted = {image.numpy().tobytes() for image in parts.setting.real.images[:20]}
    assert gate.tolist() == [math.inf if i.numpy().tobytes() in trusted else -math.inf for i in pool.images]
    assert 0 < (gate == math.inf).sum() <= 20


def test_every_later_generation_trains_one_and_says_what_it_flags(chain: FinishedChain) -> None:
    assert chain.records[0].spent.artefacts == ()
    for t in (1, 2):
        spent = chain.records[t].spent
        assert spent.artefacts == (f"time_gate_{t}",)
        assert spent.real_images_seen == {f"time_gate_{t}": 64, "generator": 64}
        assert (spent.gradient_steps, spent.networks_trained, spent.other_samples) == (6 + 4, 2, 64)
        assert spent.judging_evaluations >= 40, "each sample of the pool, until it passes"
        assert {s.of for s in chain.records[t].scores if s.metric == "flagged"} == {"model", "kept", "control"}


def test_the_ledger_of_a_chain_has_the_gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimeGate, "_passes", lambda self, images, level, *_: torch.full((len(images),), level <= 2.0))
    chain = FinishedChain(tmp_path, *CHAIN, *TIME_GATE)
    first, later = (pd.read_parquet(chain.run_dir.generation(t) / TRAINED) for t in (0, 1))
    assert first["gate"].unique().tolist() == [math.inf]
    assert later.groupby("born")["gate"].unique().map(list).to_dict() == {REAL: [math.inf], 0: [2.0]}


def test_images_are_flagged_if_they_are_left_out_at_the_highest_level(chain: FinishedChain) -> None:
    weigher, now, pool = chain.parts.mitigation.weigher, chain.now(2), chain.pool(2)
    weigher = replace(weigher, tolerance=0.0)
    gate, flags = weigher.gate(pool.visible(), now), weigher.flags(pool.images, now)
    synthetic = pool.born != REAL
    assert torch.equal(flags[synthetic], gate[synthetic] < math.inf)
    assert 0 < flags.sum() < len(flags)


def test_a_pool_of_real_images_needs_no_gate(chain: FinishedChain) -> None:
    now = chain.now(1)
    assert chain.parts.mitigation.weigher.gate(now.setting.real.visible(), now) is None
    assert now.spent.gradient_steps == 0


def test_full_tolerance_is_the_control_and_costs_nothing(tmp_path: Path) -> None:
    arm = FinishedChain(tmp_path / "arm", *CHAIN, *TIME_GATE, "mitigation.weigher.tolerance=0.5")
    assert_equal_chains(arm, FinishedChain(tmp_path / "control", *CHAIN))


def test_a_chain_of_which_nothing_is_left_stops_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimeGate, "_passes", lambda self, images, *_: torch.zeros(len(images), dtype=torch.bool))
    with pytest.raises(TrainingError, match=r"nothing is left to train on\. Keep real images"):
        FinishedChain(tmp_path, *TINY, *TINY_FLOW, "regime=replace", *TIME_GATE)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (TINY_GAUSSIAN, "a GaussianModel, which is not fitted to noisy images; choose generator=flow"),
        ((*TINY, "generator=vae"), "a VAEModel, which is not fitted to noisy images"),
        ((*TINY, "generator=population"), "a PopulationModel, which is not fitted to noisy images"),
        ((*TINY, "regime=contaminate", "regime.num_trusted=7"), r"and there are 7; raise regime\.num_trusted"),
        ((*TINY, "mitigation.weigher.tolerance=0.6"), r"tolerance must lie in \[0, 0.5\], got 0.6"),
        ((*TINY, "mitigation.weigher.lowest_log_snr=7"), "lowest_log_snr must lie below highest_log_snr"),
        ((*TINY, "mitigation.weigher.num_levels=1"), "num_levels of at least 2"),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(overrides: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        parts_of(composed("mitigation=time_gate", *overrides), tmp_path)
