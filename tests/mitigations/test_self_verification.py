from pathlib import Path

import pytest
import torch
from curating import Bench, ListedModel, noise, points

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.self_verification import SelfVerification, mean_losses
from collapse_bench.pool import Pool


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
    losses = mean_losses(bench.model, pool, num_draws=25)
    # (51 / 127.5 - 1) and (204 / 127.5 - 1), each image with noise of standard deviation 1 / 5.
    for half, expected in ((losses[:500], -0.6), (losses[500:], 0.6)):
        assert abs(half.mean().item() - expected) < 4 * 0.2 / 500**0.5
        assert 0.17 < half.std().item() < 0.23


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
