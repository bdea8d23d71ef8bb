"""Your own images: any folder with one sub-folder per class."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from collapse_bench.datasets.base import Dataset, RawImages
from collapse_bench.errors import ConfigError, DataError

_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
_MAX_ERRORS = 10
"""As many bad images are named at once."""

_MODES = {1: "L", 3: "RGB"}


@final
@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Image files in one sub-folder per class; classes and images in alphabetical order.

    Hidden files and files of other types are ignored; deeper sub-folders belong to their class. With ``image_size``
    every image is cropped to its central square and resized; without it all images must have one size. Transparency
    is dropped.

    Args:
        root: folder of class sub-folders.
        test_root: folder of the published test images, with the same class sub-folders; ``None`` where there is no
            such split.
        channels: 1 converts to grey, 3 to RGB.
    """

    root: str
    test_root: str | None = None
    channels: int = 3

    def read(self) -> RawImages:
        """All images of ``root`` and ``test_root``.

        Raises:
            DataError: if a folder or image is missing or damaged, or the images do not fit together.
            ConfigError: if ``channels`` is not 1 or 3, or one of the two folders contains the other.
        """
        if self.channels not in _MODES:
            raise ConfigError(f"dataset.channels must be 1 (grey) or 3 (RGB), got {self.channels}")
        root = Path(self.root).expanduser().absolute()
        files = _files_by_class(root)
        class_names = tuple(files)
        paths, labels = _flat(files)
        shape = self._shape(paths)
        if self.test_root is None:
            return RawImages(self._decode_all(paths, shape), labels, class_names)

        test_root = Path(self.test_root).expanduser().absolute()
        _refuse_overlap(root, test_root)
        test_files = _files_by_class(test_root)
        if odd := sorted(set(files) ^ set(test_files)):
            raise DataError(
                f"dataset.test_root: {test_root} must have the class sub-folders of {root}, but only one of the two "
                f"has {', '.join(odd)}; add or remove these sub-folders"
            )
        test_paths, test_labels = _flat(test_files)
        images, test_images = self._decode_all(paths, shape), self._decode_all(test_paths, shape)
        return RawImages(images, labels, class_names, test_images, test_labels)

    def _shape(self, paths: list[Path]) -> tuple[int, ...]:
        """Of the first image that can be read; without a chosen size it is that of all others."""
        for path in paths:
            with suppress(DataError):
                return self._decode(path).shape
        return self._decode(paths[0]).shape

    def _decode_all(self, paths: list[Path], shape: tuple[int, ...]) -> UInt8[Tensor, "n c h w"]:
        images = np.empty((len(paths), *shape), dtype=np.uint8)

        def decode_into(i: int) -> DataError | None:
            try:
                image = self._decode(paths[i])
            except DataError as error:
                return error
            if image.shape != shape:
                return DataError(
                    f"{paths[i]} has {image.shape[1]}x{image.shape[2]} pixels (height x width), but the first image "
                    f"has {shape[1]}x{shape[2]}; set dataset.image_size to crop and resize all images to one size"
                )
            images[i] = image
            return None

        with ThreadPoolExecutor() as threads:
            errors = [error for error in threads.map(decode_into, range(len(paths))) if error is not None]
        if len(errors) > 1:
            shown = "".join(f"\n  {error}" for error in errors[:_MAX_ERRORS])
            more = f"\n  and {len(errors) - _MAX_ERRORS} more" if len(errors) > _MAX_ERRORS else ""
            raise DataError(f"{len(errors)} of {len(paths)} images cannot be used:{shown}{more}")
        if errors:
            raise errors[0]
        return torch.from_numpy(images)

    def _decode(self, path: Path) -> UInt8[np.ndarray, "c h w"]:
        try:
            with Image.open(path) as file:
                deep = file.mode.startswith(("I", "F"))
                # Cameras store the rotation beside the pixels.
                image = ImageOps.exif_transpose(file).convert(_MODES[self.channels])
        except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them stumble over.
            raise DataError(f"cannot read the image {path}: {error}; replace or delete it") from error
        if deep:
            raise DataError(f"{path} has more than 8 bits per channel; convert it to 8 bits per channel")
        if self.image_size is not None:
            image = ImageOps.fit(image, (self.image_size, self.image_size), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(image.height, image.width, self.channels).transpose(2, 0, 1)


def _files_by_class(root: Path) -> dict[str, list[Path]]:
    """The image files of every class, both in alphabetical order."""
    if not root.is_dir():
        raise DataError(
            f"there is no folder {root}; point dataset.root (or dataset.test_root) at a folder with one sub-folder of "
            f"images per class"
        )
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(
            f"{root} has no class sub-folders; put the images of each class into a sub-folder of its own (one "
            f"sub-folder is enough where there are no classes)"
        )
    files = {folder.name: _image_files(folder) for folder in folders}
    for folder in folders:
        if not files[folder.name]:
            raise DataError(
                f"the class sub-folder {folder} has no images ({', '.join(sorted(_SUFFIXES))}); add some or remove it"
            )
    return files


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _flat(files: dict[str, list[Path]]) -> tuple[list[Path], Tensor]:
    """All paths, class by class, and their labels."""
    paths = [path for of_class in files.values() for path in of_class]
    num_images = torch.tensor([len(of_class) for of_class in files.values()])
    return paths, torch.arange(len(files)).repeat_interleave(num_images)


def _refuse_overlap(root: Path, test_root: Path) -> None:
    a, b = root.resolve(), test_root.resolve()
    if a.is_relative_to(b) or b.is_relative_to(a):
        raise ConfigError(
            f"dataset.root {root} and dataset.test_root {test_root} contain the same images, and no image may be both "
            f"trained on and measured with; name two folders that lie side by side"
        )
