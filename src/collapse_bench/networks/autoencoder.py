"""Encoder and decoder networks of variational autoencoders."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from collapse_bench.errors import ConfigError
from collapse_bench.types import ImageSpec


@final
class Encoder(nn.Sequential):
    """Layers in a row; a condition joins the features where they are flattened."""

    def forward(self, images: Float[Tensor, "n c h w"], condition: Float[Tensor, "n k"]) -> Float[Tensor, "n l"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the last layer says.

        Args:
            images: in [-1, 1].
            condition: numbers that the encoder is told; k is 0 for one that is told nothing.
        """
        x = images
        for layer in self:
            x = layer(x)
            if isinstance(layer, nn.Flatten):
                x = torch.cat([x, condition.to(x.dtype)], dim=1)
        return x


@final
class UnitInterval(nn.Module):
    """Images in [-1, 1] as images in [0, 1]."""

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Half of the image plus one half."""
        return (images + 1.0) / 2.0


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

    def build(
        self, spec: ImageSpec, num_latents: int, encoder_condition: int, decoder_condition: int
    ) -> tuple[Encoder, nn.Module]:
        """The encoder (images and condition -> 2 x num_latents) and the decoder (latents and condition -> images).

        Args:
            spec: images.
            num_latents: length of the latent vector.
            encoder_condition: numbers that the encoder is told.
            decoder_condition: numbers that the decoder is told.
        """
        encoder = Encoder(
            nn.Flatten(),
            nn.Linear(spec.num_values + encoder_condition, self.width),
            nn.ReLU(),
            nn.Linear(self.width, 2 * num_latents),
        )
        decoder = nn.Sequential(
            nn.Linear(num_latents + decoder_condition, self.width),
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
        unit_input: the encoder sees grey levels in [0, 1] instead of [-1, 1]; images are padded with zeros.
        latent_relu: a ReLU follows the decoder's first, fully connected layer.
    """

    channels: int = 32
    unit_input: bool = False
    latent_relu: bool = True

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ConfigError(f"generator.network.channels must be at least 1, got {self.channels}")

    def build(
        self, spec: ImageSpec, num_latents: int, encoder_condition: int, decoder_condition: int
    ) -> tuple[Encoder, nn.Module]:
        """See ``MLPAutoencoder.build``.

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
        encoder = Encoder(
            *([UnitInterval()] if self.unit_input else []),
            nn.Conv2d(spec.channels, first, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, second, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(num_inner + encoder_condition, 2 * num_latents),
        )
        decoder = nn.Sequential(
            nn.Linear(num_latents + decoder_condition, num_inner),
            *([nn.ReLU()] if self.latent_relu else []),
            nn.Unflatten(1, inner),
            nn.ConvTranspose2d(second, first, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(first, spec.channels, 4, stride=2, padding=1),
        )
        return encoder, decoder
