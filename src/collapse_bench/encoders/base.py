"""What an encoder is: a recipe that gives, for one set of real images, a fixed map from images to features."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from collapse_bench.distributed import gathered, own_part
from collapse_bench.pool import Pool
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec


@dataclass(frozen=True, eq=False)
class Encoded:
    """Images as a metric sees them.

    Args:
        features: one row per image.
        probabilities: class probabilities of the frozen classifier, or ``None`` where the encoder has no classes.
    """

    features: Float[Tensor, "n d"]
    probabilities: Float[Tensor, "n k"] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def accuracy(self, labels: Int64[Tensor, " n"]) -> float | None:
        """Share of images whose most probable class is their label, in [0, 1]; None without classes."""
        return None if self.probabilities is None else (self.probabilities.argmax(1) == labels).double().mean().item()


class FittedEncoder(nn.Module, ABC):
    """A fixed map from images to features; it is never trained again."""

    batch_size: int = 1000
    """Images encoded at once; features do not depend on it beyond float arithmetic."""

    num_networks: int = 1
    """Networks that look at an image."""

    package: str = ""
    """The package whose code it runs and its version, where that is none that every fit depends on."""

    @abstractmethod
    def forward(self, images: Tensor) -> Encoded:
        """Features (and class probabilities, where there are classes) of one batch.

        Args:
            images: uint8 or float32 images, on the encoder's device.
        """

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return next((tensor.device for tensor in self.state_dict().values()), torch.device("cpu"))

    @final
    @torch.no_grad()
    def encode(self, images: Tensor) -> Encoded:
        """Features of any number of images, on the CPU; several processes encode a part of them each and get all.

        Args:
            images: uint8 or float32 images on any device.
        """
        own = images[own_part(len(images))]
        parts = gathered(lambda: self._encode(own), f"features of {len(images)} images")
        probabilities = [part.probabilities for part in parts if part.probabilities is not None]
        return Encoded(
            torch.cat([part.features for part in parts]), torch.cat(probabilities) if probabilities else None
        )

    def _encode(self, images: Tensor) -> Encoded:
        """As ``encode``, by this process alone."""
        self.eval()
        batches = [self(batch.to(self.device)) for batch in images.split(self.batch_size)]
        features = torch.cat([batch.features.cpu() for batch in batches])
        probabilities = [batch.probabilities.cpu() for batch in batches if batch.probabilities is not None]
        return Encoded(features, torch.cat(probabilities) if probabilities else None)


class Encoder(ABC):
    """A recipe for features. Concrete encoders are frozen dataclasses."""

    has_probabilities: ClassVar[bool]
    """Whether the encoder also gives class probabilities."""

    @property
    def gradient_steps(self) -> int:
        """Gradient steps that a fit takes."""
        return 0

    @property
    def learns_from_real(self) -> bool:
        """Whether a fit looks at the real images."""
        return True

    def check(self, real: Pool, spec: ImageSpec) -> None:  # noqa: B027 (most encoders learn from any images, or none)
        """Raises ConfigError if it cannot be learnt from these real images.

        Args:
            real: what it would be fitted on.
            spec: shape and classes of the images.
        """

    @abstractmethod
    def fit(self, real: Pool, spec: ImageSpec, options: TrainerOptions, store: Store) -> FittedEncoder:
        """The encoder for these real images; trained at most once per content, then read from the store.

        Args:
            real: real images, never held-out ones: those of the training pool, or with a smaller pool more of them.
            spec: shape and classes of the images.
            options: where and in what arithmetic it is trained and evaluated.
            store: where trained weights are kept.
        """
