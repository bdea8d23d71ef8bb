"""Images with features and classes for tests of metrics, drawn from a law that is known."""

from dataclasses import dataclass

import torch
from torch import Tensor

from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.pool import REAL


@dataclass(frozen=True)
class Mixture:
    """A mixture of equal spherical Gaussians, with its exact class posterior as the frozen classifier.

    Args:
        means: of the classes, [k, d].
        sd: of every class.
    """

    means: Tensor
    sd: float = 1.0

    def classes(self, num_images: int, rng: torch.Generator) -> Tensor:
        """Classes of fresh images."""
        return torch.randint(len(self.means), (num_images,), generator=rng)

    def draw(self, classes: Tensor, rng: torch.Generator, sd: float | None = None) -> Tensor:
        """Features of fresh images of these classes, with another standard deviation if one is given."""
        noise = torch.randn(len(classes), self.means.shape[1], generator=rng)
        return self.means[classes] + (self.sd if sd is None else sd) * noise

    def encode(self, features: Tensor) -> ImageSet:
        """Images with these features, in all columns; every second one is real, the others are from generation 0."""
        squared = (features[:, None] - self.means).square().sum(2)
        probabilities = (-squared / (2 * self.sd**2)).softmax(1)
        grey = 255 * (features[:, None, :, None] + features[:, None, None, :]).sigmoid()
        return ImageSet(
            images=grey.to(torch.uint8),
            labels=probabilities.argmax(1),
            features=features,
            probabilities=probabilities,
            born=REAL + torch.arange(len(features)) % 2,
        )

    def fresh(self, num_images: int, rng: torch.Generator) -> ImageSet:
        """Fresh images."""
        return self.encode(self.draw(self.classes(num_images, rng), rng))


FIVE_CLASSES = Mixture(means=5 * torch.eye(8)[:5])
"""Five classes in eight dimensions, far enough apart for a classifier that is nearly always right."""
