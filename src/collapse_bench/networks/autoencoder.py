"""Encoder and decoder networks of variational autoencoders."""

from dataclasses import dataclass
from typing import final

from torch import nn

from collapse_bench.errors import ConfigError
from collapse_bench.types import ImageSpec


@final
@dataclass(frozen=True)
class MLPAutoencoder:
    """Recipe of a fully connected encoder and decoder with one hidden layer each (Kingma and Welling 2014).

    Args:
        width: hidden units.
    """

    width: int = 512

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"generator.network.width must be at least 1, got {self.width}")

    def build(self, spec: ImageSpec, num_latents: int, condition_width: int) -> tuple[nn.Module, nn.Module]:
        """The encoder (images -> 2 x num_latents) and the decoder (latents and condition -> logits)."""
        encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(spec.num_values, self.width), nn.ReLU(), nn.Linear(self.width, 2 * num_latents)
        )
        decoder = nn.Sequential(
            nn.Linear(num_latents + condition_width, self.width),
            nn.ReLU(),
            nn.Linear(self.width, spec.num_values),
            nn.Unflatten(1, spec.shape),
        )
        return encoder, decoder


@final
@dataclass(frozen=True)
class ConvAutoencoder:
    """Recipe of a convolutional encoder and decoder with two strided layers each.

    Args:
        channels: channels of the first layer; the second has twice as many.
    """

    channels: int = 32

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ConfigError(f"generator.network.channels must be at least 1, got {self.channels}")

    def build(self, spec: ImageSpec, num_latents: int, condition_width: int) -> tuple[nn.Module, nn.Module]:
        """The encoder (images -> 2 x num_latents) and the decoder (latents and condition -> logits).

        Raises:
            ConfigError: if the image sides are not divisible by 4.
        """
        if spec.height % 4 or spec.width % 4:
            raise ConfigError(
                f"the convolutional autoencoder halves the image twice and needs sides divisible by 4, got "
                f"{spec.height}x{spec.width}; choose another dataset.image_size"
            )
        first, second = self.channels, 2 * self.channels
        inner = (second, spec.height // 4, spec.width // 4)
        num_inner = second * inner[1] * inner[2]
        encoder = nn.Sequential(
            nn.Conv2d(spec.channels, first, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, second, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(num_inner, 2 * num_latents),
        )
        decoder = nn.Sequential(
            nn.Linear(num_latents + condition_width, num_inner),
            nn.ReLU(),
            nn.Unflatten(1, inner),
            nn.ConvTranspose2d(second, first, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(first, spec.channels, 4, stride=2, padding=1),
        )
        return encoder, decoder
