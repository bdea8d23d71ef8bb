"""Experiments that claim to be a published protocol have all of its numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from chains import assemble_config, composed, opened_run_dir
from torch import Tensor, nn
from torch.nn import functional as F

from collapse_bench.cli.config import build
from collapse_bench.generators.vae import VAE, VAEModel
from collapse_bench.loop import run_generations
from collapse_bench.networks.autoencoder import ConvAutoencoder
from collapse_bench.seeding import isolated_rng
from collapse_bench.training import Optimisation
from collapse_bench.types import ImageSpec

SHUMAILOV = "experiment=shumailov2024_mnist_vae"
MNIST = ImageSpec(1, 28, 28, tuple("0123456789"))


def shumailov(*overrides: str) -> dict[str, Any]:
    """All parts of the protocol but the metrics and the encoder, by group."""
    config = composed(SHUMAILOV, *overrides)
    return {name: build(config[name], name) for name in ("dataset", "generator", "sampler", "regime", "budget")}


class PublishedVAE(nn.Module):
    """The networks in the code of Shumailov et al. 2024, written down anew from its layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, kernel_size=4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(64, 128, kernel_size=4, stride=2, padding=1)
        self.fc_mean = nn.Linear(128 * 7 * 7, 20)
        self.fc_log_variance = nn.Linear(128 * 7 * 7, 20)
        self.fc = nn.Linear(20, 128 * 7 * 7)
        self.deconv2 = nn.ConvTranspose2d(128, 64, kernel_size=4, stride=2, padding=1)
        self.deconv1 = nn.ConvTranspose2d(64, 1, kernel_size=4, stride=2, padding=1)

    def encode(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.relu(self.conv2(F.relu(self.conv1(grey)))).flatten(1)
        return self.fc_mean(hidden), self.fc_log_variance(hidden)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(self.deconv1(F.relu(self.deconv2(self.fc(latents).view(-1, 128, 7, 7)))))


def test_the_vae_of_shumailov_has_its_647081_parameters() -> None:
    model = shumailov()["generator"].empty_model(MNIST)
    assert model.num_parameters == 647_081
    assert model.num_parameters == sum(p.numel() for p in PublishedVAE().parameters())


def test_the_vae_of_shumailov_is_that_of_the_published_code() -> None:
    with isolated_rng(0):
        model, published = shumailov()["generator"].empty_model(MNIST), PublishedVAE()
    assert isinstance(model, VAEModel)
    with torch.no_grad():
        ours = [p for name, p in model.named_parameters()]
        layers = (published.conv1, published.conv2, None, published.fc, published.deconv2, published.deconv1)
        theirs: list[Tensor] = []
        for layer in layers:
            heads = (published.fc_mean, published.fc_log_variance)
            theirs += (
                [torch.cat([h.weight for h in heads]), torch.cat([h.bias for h in heads])]
                if layer is None
                else [layer.weight, layer.bias]
            )
        for mine, other in zip(ours, theirs, strict=True):
            mine.copy_(other)
        grey = torch.rand(6, 1, 28, 28)
        labels = torch.zeros(6, dtype=torch.int64)
        for mine, other in zip(model.posterior(2 * grey - 1, labels), published.encode(grey), strict=True):
            torch.testing.assert_close(mine, other)
        latents = torch.randn(6, 20)
        torch.testing.assert_close((model.decode(latents, labels) + 1) / 2, published.decode(latents))
        # The loss of a batch: summed cross-entropy and divergence, with the same noise.
        torch.manual_seed(1)
        loss = model.loss(2 * grey - 1, labels).sum()
        torch.manual_seed(1)
        mean, log_variance = published.encode(grey)
        again = published.decode(mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean))
        divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        expected = F.binary_cross_entropy(again, grey, reduction="sum") + divergence
        torch.testing.assert_close(loss, expected)


def test_the_protocol_of_shumailov_has_every_published_number() -> None:
    parts = shumailov()
    generator, sampler, budget, dataset = (parts[name] for name in ("generator", "sampler", "budget", "dataset"))
    assert isinstance(generator, VAE)
    assert generator.start == "scratch"
    assert generator.network == ConvAutoencoder(channels=64, unit_input=True, latent_relu=False)
    assert (generator.num_latents, generator.beta, generator.likelihood) == (20, 1.0, "bernoulli")
    assert not generator.conditional
    assert generator.optimisation == Optimisation(
        batch_size=256,
        learning_rate=1e-3,
        weight_decay=1e-5,
        optimiser="adam",
        batch_loss="sum",
        num_warmup_steps=0,
        decay="none",
        max_grad_norm=None,
        ema_width=None,
        ema_decay=None,
    )
    assert (sampler.output, sampler.quantize, sampler.temperature, sampler.truncation) == ("mean", False, 1.0, None)
    assert type(parts["regime"]).__name__ == "ReplaceOnTheFly"
    batches_per_epoch = -(-60_000 // 256)
    assert budget.num_steps_initial == budget.num_steps == 30 * batches_per_epoch == 7050
    assert budget.num_generations == 5
    assert (dataset.kind, dataset.num_real, dataset.control_from) == ("mnist", 60_000, "test")
    assert (dataset.num_reference, dataset.num_control) == (5_000, 5_000)
    latents = build(composed(SHUMAILOV)["metrics"], "metrics")["latents"]
    assert latents.num_images == 100


@pytest.mark.slow
def test_the_chain_of_shumailov_records_the_latents_of_100_samples_of_every_generation(
    shared_data: Path, tmp_path: Path
) -> None:
    if not (shared_data / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST: looked for {shared_data / 'MNIST' / 'raw'}")
    small = (
        f"dataset.root={shared_data}",
        "dataset.num_real=100",
        "dataset.num_reference=150",
        "dataset.num_control=150",
        "generator.optimisation.batch_size=16",
        "budget.num_generations=2",
        "budget.num_steps_initial=3",
        "budget.num_steps=3",
        "budget.num_synthetic=150",
        "budget.num_floor_splits=2",
        "encoder.pca.classifier.num_steps=3",
        "trainer.num_threads=1",
    )
    config = composed(SHUMAILOV, *small)
    parts = assemble_config(config, build(config["dataset"], "dataset").load(), tmp_path / "store")
    with opened_run_dir(tmp_path / "run") as run_dir:
        records = run_generations(parts, 0, run_dir)
    assert [dict(r.train_pool) for r in records] == [{"real": 100}, {"gen_000 live": 0}, {"gen_001 live": 0}]
    for record in records:
        scores = {(score.metric, score.of): score for score in record.scores}
        for name in ("latent_sd", "latent_mean"):
            assert scores[name, "model"].num_samples == scores[name, "control"].num_samples == 100
            assert scores[name, "model"].value > 0
        assert scores["recall", "model"].num_samples == 150
    sd = [s.value for r in records for s in r.scores if (s.metric, s.of) == ("latent_sd", "model")]
    assert len(set(sd)) == 3
    floor = [s.value for r in records for s in r.scores if (s.metric, s.of) == ("latent_sd", "control")]
    assert len(set(floor)) == 1, "all generations are seen by the encoder of generation 0"
