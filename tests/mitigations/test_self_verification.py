from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from chains import TINY, FinishedChain, composed
from curating import Bench, ListedModel, noise, points

from collapse_bench.cli.config import build
from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.generators.population import PopulationModel
from collapse_bench.mitigations.self_verification import SelfVerification, mean_losses
from collapse_bench.pool import Pool
from collapse_bench.seeding import Role, isolated_rng
from collapse_bench.types import ImageSpec


def curator(candidates_per_kept: float = 2.0, num_draws: int = 4) -> SelfVerification:
    return SelfVerification(candidates_per_kept=candidates_per_kept, num_draws=num_draws)


def test_it_keeps_what_the_model_has_the_lowest_loss_for(tmp_path: Path) -> None:
    # The loss of a listed model is the mean grey level.
    assert Bench(tmp_path, points(200, 10, 150, 90, 30, 250)).kept(curator(), 3) == [1, 3, 4]


def test_losses_are_averaged_over_draws(tmp_path: Path) -> None:
    bench = Bench(tmp_path, points(51, 204))

    def noisy(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).mean(1) + torch.randn(len(images))

    bench.model.loss = noisy  # type: ignore[method-assign]
    pool = Pool.real(points(*[51] * 500, *[204] * 500), torch.zeros(1000, dtype=torch.int64), "listed")
    losses = mean_losses(bench.model, pool, num_draws=25, seed=0)
    # (51 / 127.5 - 1) and (204 / 127.5 - 1), each image with noise of standard deviation 1 / 5.
    for half, expected in ((losses[:500], -0.6), (losses[500:], 0.6)):
        assert abs(half.mean().item() - expected) < 4 * 0.2 / 500**0.5
        assert 0.17 < half.std().item() < 0.23


@pytest.mark.slow
def test_two_judges_agree_on_three_of_four_images(tmp_path: Path) -> None:
    """Where two judgements correlate as noise and signal of equal size do, the kept halves share 3/4.

    That is a correlation of 1/sqrt(2), and halves of two normals that correlate by r share 1/2 + arcsin(r) / pi.
    """
    cell = (*TINY, "generator.network.width=64", "dataset.num_real=400", "budget.num_steps_initial=300")
    now = FinishedChain(tmp_path, *cell, "budget.num_generations=0").now(0)
    model = now.chain.model
    assert isinstance(model, Model)
    pool = now.sample(model, 400, Role.REFINE)
    kept = [set(mean_losses(model, pool, 8, seed).argsort()[:200].tolist()) for seed in range(6)]
    shared = [len(kept[i] & kept[j]) / 200 for i in range(6) for j in range(i)]
    assert sum(shared) / len(shared) > 0.75


@pytest.mark.parametrize("family", ["flow", "ddpm", "edm", "vae", "gaussian"])
def test_equal_images_are_judged_alike_whatever_their_number(family: str) -> None:
    with isolated_rng(0):
        generator = build(composed(f"generator={family}")["generator"], "generator")
        model = generator.empty_model(ImageSpec(1, 8, 8, ("a", "b"))).eval()
    image = noise(1, size=8)
    pool = Pool.real(torch.cat([noise(1999, size=8, seed=1), image, image]), torch.zeros(2001).long(), "listed")
    losses = mean_losses(model, pool, 2, seed=3)
    alone = mean_losses(model, pool.take(torch.tensor([2000])), 2, seed=3)
    assert torch.allclose(losses[[1999, 2000]], alone.expand(2), rtol=1e-4)


@pytest.mark.parametrize("family", ["flow", "gaussian"])
def test_it_chooses_by_losses_of_any_precision(family: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(20))
    with isolated_rng(0):
        model = build(composed(f"generator={family}")["generator"], "generator").empty_model(bench.setting.spec).eval()
    pool = Pool.real(noise(20), torch.zeros(20).long(), "listed")
    chosen = curator().select(pool, 10, SimpleNamespace(model=model), bench.now)  # type: ignore[arg-type]
    losses = mean_losses(model, pool, 4, bench.now.stream(Role.CURATE).seed)
    assert sorted(chosen.tolist()) == sorted(losses.argsort()[:10].tolist())


def test_every_member_of_a_population_judges_its_own_and_keeps_its_share(tmp_path: Path) -> None:
    """Losses of one member are a thousand times those of the other."""
    bench = Bench(tmp_path, points(10, 200, 20, 100, 30, 150))
    loud = Bench(tmp_path, points(1)).model
    loud.loss = lambda images, labels: 1000 * (2 + images.flatten(1).mean(1))  # type: ignore[method-assign]
    population = PopulationModel(bench.setting.spec, {"quiet": bench.model, "loud": loud})
    candidates = replace(
        Pool.real(points(10, 200, 20, 100, 30, 150), torch.full((6,), -1), "x"),
        source=torch.tensor([0, 0, 0, 0, 1, 1]),
        sources=population.sources,
    )
    draw = SimpleNamespace(model=population)
    index = curator().select(candidates, 3, draw, bench.now)  # type: ignore[arg-type]
    assert sorted(index.tolist()) == [0, 2, 4]


def test_its_evaluations_are_metered(tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(20))
    bench.curate(curator(num_draws=4), 10)
    assert bench.now.spent.judging_evaluations == 20 * 4


def test_it_looks_at_no_real_image_and_at_no_global_random_state(tmp_path: Path) -> None:
    bench = Bench(tmp_path, noise(20))
    state = torch.random.get_rng_state()
    bench.curate(curator(), 10)
    assert bench.now.spent.real_images_seen == {}
    assert torch.equal(torch.random.get_rng_state(), state)


def test_with_no_more_candidates_than_needed_it_is_the_control(tmp_path: Path) -> None:
    Bench(tmp_path, noise(10)).assert_equals_control(curator(1), 10)


def test_no_draw_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_draws"):
        curator(num_draws=0)


def test_the_loss_is_that_of_the_model_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ListedModel, "loss", lambda self, images, labels: -images.flatten(1).mean(1))
    assert Bench(tmp_path, points(200, 10, 150, 90)).kept(curator(), 2) == [0, 2]
