"""Data that the tests of the metrics share."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from collapse_bench.encoders.base import Encoded


@dataclass(frozen=True)
class Mixture:
    """A mixture of equal spherical Gaussians, with its exact class posterior as the frozen classifier."""

    means: Tensor
    sd: float = 1.0

    def classes(self, num_images: int, rng: torch.Generator) -> Tensor:
        return torch.randint(len(self.means), (num_images,), generator=rng)

    def draw(self, classes: Tensor, rng: torch.Generator, sd: float | None = None) -> Tensor:
        noise = torch.randn(len(classes), self.means.shape[1], generator=rng)
        return self.means[classes] + (self.sd if sd is None else sd) * noise

    def encode(self, features: Tensor) -> Encoded:
        squared = (features[:, None] - self.means).square().sum(2)
        return Encoded(features, (-squared / (2 * self.sd**2)).softmax(1))

    def fresh(self, num_images: int, rng: torch.Generator) -> Encoded:
        return self.encode(self.draw(self.classes(num_images, rng), rng))


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(20)


@pytest.fixture(scope="session")
def mixture() -> Mixture:
    """Five classes in eight dimensions, far enough apart for a classifier that is nearly always right."""
    return Mixture(means=5 * torch.eye(8)[:5])
