"""Pixels as features."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from scipy.linalg import eigh
from torch import Tensor

from collapse_bench.encoders.base import Encoded, Encoder, FittedEncoder
from collapse_bench.errors import ConfigError
from collapse_bench.fingerprint import code_version, fingerprint
from collapse_bench.pool import Pool
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec, to_float


@final
@dataclass(frozen=True)
class Pixels(Encoder):
    """The flattened image itself, or its first principal components; there are no classes.

    Args:
        num_components: principal components of the real images to project on; ``None`` keeps all pixels.
    """

    has_probabilities: ClassVar[bool] = False

    num_components: int | None

    @property
    def learns_from_real(self) -> bool:
        """Whether there are principal components to be learnt."""
        return self.num_components is not None

    def check(self, real: Pool, spec: ImageSpec) -> None:
        """Raises ConfigError if there are not that many components."""
        most = min(len(real), spec.num_values)
        if self.num_components is not None and not 1 <= self.num_components <= most:
            raise ConfigError(f"encoder: num_components must lie between 1 and {most}, got {self.num_components}")

    def fit(self, real: Pool, spec: ImageSpec, options: TrainerOptions, store: Store) -> FittedEncoder:
        """The map for these real images; principal components come from the store where they are known.

        Raises:
            ConfigError: if there are not that many components.
        """
        self.check(real, spec)
        count = self.num_components
        if count is None:
            return _Flatten()

        def build() -> dict[str, Tensor]:
            pixels = to_float(real.images).flatten(1).double()
            centred = pixels - pixels.mean(0)
            # Eigenvectors of the covariance: for many images far cheaper than the singular vectors of all of them; and
            # only those that are wanted: with 3,072 pixels all of them take minutes.
            last = spec.num_values - 1
            _, vectors = eigh((centred.T @ centred).numpy(), subset_by_index=(last + 1 - count, last))
            return {"components": torch.from_numpy(vectors[:, ::-1].copy()).float()}

        tensors, _ = store.get_or_build("encoder", fingerprint(code_version(), self, real.content_hash, options), build)
        return _Project(tensors["components"]).to(options.device)


class _Flatten(FittedEncoder):
    num_networks = 0

    def forward(self, images: Tensor) -> Encoded:
        return Encoded(to_float(images).flatten(1))


class _Project(FittedEncoder):
    num_networks = 0

    components: Tensor

    def __init__(self, components: Float[Tensor, "d k"]) -> None:
        super().__init__()
        self.register_buffer("components", components)

    def forward(self, images: Tensor) -> Encoded:
        return Encoded(to_float(images).flatten(1) @ self.components)
