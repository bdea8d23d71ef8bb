"""Encoders with published weights: a file on disk or a download, verified by its checksum before it is used."""

import hashlib
import re
import textwrap
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib import import_module
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import ClassVar, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from collapse_bench.distributed import from_main
from collapse_bench.encoders.base import Encoder, FittedEncoder
from collapse_bench.errors import ConfigError, DataError
from collapse_bench.pool import Pool
from collapse_bench.seeding import isolated_rng
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.types import ImageSpec, to_uint8


@dataclass(frozen=True)
class Pretrained(Encoder):
    """A network that was trained elsewhere: the same for all real images, and never trained here.

    Args:
        weights: file of the published weights; ``None`` is torch hub's folder of checkpoints, into which they are
            downloaded where they are missing.
        sha256: checksum of that file, 64 hexadecimal digits; no other file is loaded.
    """

    has_probabilities: ClassVar[bool] = False

    option: ClassVar[str]
    """Its name on the command line."""
    package: ClassVar[str]
    """What to install for its network, an optional dependency."""
    module: ClassVar[str]
    """What that package is imported as."""
    url: ClassVar[str]
    """Where the weights were published."""

    weights: str | None
    sha256: str

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ConfigError(
                f"encoder.{self.option}.sha256 must be 64 hexadecimal digits in lower case, got {self.sha256!r}"
            )

    @property
    def learns_from_real(self) -> bool:
        """No."""
        return False

    @final
    def fit(self, real: Pool, spec: ImageSpec, options: TrainerOptions, store: Store) -> FittedEncoder:
        """The network with its published weights; it looks at no real image and stores nothing.

        Raises:
            ConfigError: if the images are not pictures, or the library that has the network is not installed.
            DataError: if the weights are missing, are not those of the checksum, or do not fit the network.
        """
        if spec.dtype != "uint8" or spec.channels not in (1, 3):
            raise ConfigError(
                f"encoder={self.option} needs grey or RGB pictures, got {spec.channels} channels of {spec.dtype}; use "
                "encoder=pixels metrics=features"
            )
        try:
            import_module(self.module)
        except ImportError as error:
            raise ConfigError(
                f"encoder={self.option} needs {self.package}, which cannot be imported ({error}); install it with: "
                f"pip install {self.package}"
            ) from error
        path, tensors = from_main(self._located)
        try:
            with isolated_rng(0):  # building the network draws parameters, which the weights then replace
                fitted = self._load(tensors)
        except RuntimeError as error:
            differences = textwrap.shorten(str(error).partition("\n")[2] or str(error), 300)
            raise DataError(
                f"encoder={self.option}: {path} (sha256 {self.sha256}) holds the weights of another network: "
                f"{differences}"
            ) from error
        fitted.package = f"{self.package} {version(self.package)}"
        return fitted.requires_grad_(False).to(options.device).eval()

    @abstractmethod
    def _load(self, tensors: Mapping[str, Tensor]) -> FittedEncoder:
        """The network with these weights, in float32 on the CPU.

        Args:
            tensors: the published weights by name.

        Raises:
            RuntimeError: if names or shapes are not those of the network; the first line is a heading.
        """

    def _located(self) -> tuple[Path, Mapping[str, Tensor]]:
        """The file and what is in it."""
        path = self._locate()
        return path, self._read(path)

    def _locate(self) -> Path:
        """The file of the weights, downloaded where it is missing and no other place is named."""
        if self.weights is not None:
            path = Path(self.weights).expanduser().absolute()
            if not path.is_file():
                raise DataError(f"encoder={self.option}: did not find its weights {path}; {self._remedy}")
            return path
        path = Path(torch.hub.get_dir(), "checkpoints", self.url.rpartition("/")[2]).absolute()
        if not path.is_file():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                # Appears under its name when it is complete and its checksum is right.
                torch.hub.download_url_to_file(self.url, str(path), self.sha256, progress=False)
            except (OSError, RuntimeError, HTTPException) as error:
                raise DataError(
                    f"encoder={self.option}: could not download its weights to {path}: {error}; {self._remedy}"
                ) from error
        return path

    def _read(self, path: Path) -> Mapping[str, Tensor]:
        """The tensors of a file with the right checksum."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"encoder={self.option}: cannot read {path}: {error}; check its permissions") from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise DataError(
                f"encoder={self.option}: {path} is damaged or another file than is meant (its sha256 is {found}); "
                f"{self._remedy}. For other weights of this network give encoder.{self.option}.sha256"
            )
        try:
            tensors = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # what is not a checkpoint is reported by many types of exceptions
            tensors, reason = None, error
        else:
            reason = None
        if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            raise DataError(
                f"encoder={self.option}: {path} (sha256 {found}) is not a file of named tensors; {self._remedy}"
            ) from reason
        return tensors

    @property
    def _remedy(self) -> str:
        return (
            f"put the file {self.url} (sha256 {self.sha256}) there, or say where it is with "
            f"encoder.{self.option}.weights=PATH (encoder.{self.option}_classes.features.weights=PATH with classes)"
        )


def to_rgb(images: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n 3 h w"]:
    """Pictures as RGB grey levels 0..255; the one channel of grey pictures is repeated.

    Args:
        images: of one or three channels; float32 in [-1, 1] becomes the nearest grey levels.
    """
    levels = images if images.dtype == torch.uint8 else to_uint8(images)
    return levels.expand(-1, 3, -1, -1)
