"""Images that were made elsewhere: a folder of image files, a NumPy file or a Parquet file."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from collapse_bench.errors import ConfigError, DataError
from collapse_bench.types import ImageSpec

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Only these, because Pillow starts other programs for some of the rest.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_GREY_MODES = ("1", "L", "LA", "La")
_COLOURS = {1: "grey", 3: "RGB"}
_MIN_IMAGES = 2
_LAYOUTS = "[n, h, w], [n, h, w, c] or [n, c, h, w]"


def read_samples(path: Path, spec: ImageSpec) -> UInt8[Tensor, "n c h w"]:
    """Foreign images, in an order that depends on their pixels only.

    So the same images give the same numbers, however the files are named and whatever they are stored in. Nothing is
    resized or rescaled, because that would change what is measured. Transparency is dropped.

    Args:
        path: a folder with image files at any depth; a ``.npy`` or ``.npz`` file with one uint8 array of images; or a
            ``.parquet`` file with one column of encoded images, as bytes or as Hugging Face's struct of ``bytes`` and
            ``path``.
        spec: of the data set that the images are compared with.

    Raises:
        DataError: if the file is missing or damaged, or its images are fewer than two or do not fit the data set.
        ConfigError: if the data set has no pictures, or the file is of no known kind.
    """
    if spec.dtype != "uint8":
        raise ConfigError(
            f"samples={path}: the data set holds no pictures to compare with; choose dataset=... with some"
        )
    if path.is_dir():
        images = _read_folder(path, spec)
    elif path.suffix not in (".npy", ".npz", ".parquet"):
        raise ConfigError(f"samples={path} must be a folder of images, or a .npy, .npz or .parquet file")
    elif not path.exists():
        raise DataError(f"samples={path}: there is no such file; give the path of a folder or file of images")
    else:
        images = _read_parquet(path, spec) if path.suffix == ".parquet" else _read_array(path, spec)
    if images.max() == 1:
        raise DataError(f"{path}: all values are 0 or 1, but grey levels go from 0 to 255; multiply them by 255")
    order = sorted(range(len(images)), key=lambda i: images[i].tobytes())
    # Without the copy, the strides of a single channel depend on the file, and with them torch's choice of arithmetic.
    return torch.from_numpy(images[order]).clone(memory_format=torch.contiguous_format)


def _read_folder(path: Path, spec: ImageSpec) -> UInt8[np.ndarray, "n c h w"]:
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in _SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        hint = f"; it is a run: give it as run={path}" if (path / "run.json").exists() else "; give another folder"
        raise DataError(f"{path} has no images ({', '.join(_SUFFIXES)}) at any depth{hint}")
    return _decode_all(path, [str(file) for file in files], files, spec)


def _read_array(path: Path, spec: ImageSpec) -> UInt8[np.ndarray, "n c h w"]:
    try:
        with path.open("rb") as file:
            # Never pickles: they can run any code.
            loaded = np.load(file, allow_pickle=False)
            members = [loaded] if isinstance(loaded, np.ndarray) else [loaded[name] for name in loaded.files]
    except Exception as error:  # NumPy and zlib raise whatever a damaged file makes them stumble over.
        raise DataError(f"cannot read {path}: {error}; store one plain uint8 array with np.save or np.savez") from error
    arrays = [member for member in members if isinstance(member, np.ndarray)]
    candidates = [array for array in arrays if array.ndim in (3, 4)]  # beside them there may be labels
    if len(candidates) != 1:
        shapes = ", ".join(str(list(array.shape)) for array in arrays) or "none"
        raise DataError(f"{path} must hold exactly one array of images {_LAYOUTS}; its arrays: {shapes}")
    images = candidates[0]
    _refuse_few(path, len(images))
    if images.dtype != np.uint8:
        raise DataError(f"{path} holds {_found(images)}; grey levels must be uint8 from 0 to 255: {_remedy(images)}")
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[1:] != spec.shape and images.shape[3] <= 4:
        images = images.transpose(0, 3, 1, 2)
    _refuse_misfit(str(path), images.shape[1:], spec)
    return np.ascontiguousarray(images)


def _read_parquet(path: Path, spec: ImageSpec) -> UInt8[np.ndarray, "n c h w"]:
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        names = [field.name for field in schema if _holds_images(field.type)]
        rows = file.read(columns=names)[names[0]].to_pylist() if len(names) == 1 else []
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot read {path}: {error}; write it again") from error
    if len(names) != 1:
        raise DataError(
            f"{path} must have exactly one column of encoded images (bytes, or a struct with a field 'bytes'); "
            f"its columns: {', '.join(f'{field.name} ({field.type})' for field in schema)}"
        )
    contents = [row["bytes"] if isinstance(row, dict) else row for row in rows]
    for i, content in enumerate(contents):
        if not content:
            raise DataError(f"{path}, row {i}: no image; store the encoded image itself, not only its path")
    sources = [io.BytesIO(content) for content in contents]
    return _decode_all(path, [f"{path}, row {i}," for i in range(len(sources))], sources, spec)


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_images(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _decode_all(
    path: Path, names: Sequence[str], sources: Sequence[Path] | Sequence[io.BytesIO], spec: ImageSpec
) -> UInt8[np.ndarray, "n c h w"]:
    _refuse_few(path, len(sources))
    images = np.empty((len(sources), *spec.shape), dtype=np.uint8)

    def decode_into(i: int) -> None:
        image = _decode(names[i], sources[i])
        _refuse_misfit(names[i], image.shape, spec)
        images[i] = image

    with ThreadPoolExecutor() as threads:
        # Results are read in order, so the error is that of the first bad image, whichever thread is fastest.
        for _ in threads.map(decode_into, range(len(sources))):
            pass
    return images


def _decode(name: str, source: Path | io.BytesIO) -> UInt8[np.ndarray, "c h w"]:
    try:
        with Image.open(source, formats=_FORMATS) as file:
            mode = file.mode
            # Cameras store the rotation beside the pixels.
            image = ImageOps.exif_transpose(file).convert("L" if mode in _GREY_MODES else "RGB")
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them stumble over.
        raise DataError(f"cannot read the image {name}: {error}; replace or remove it") from error
    if mode.startswith(("I", "F")):
        raise DataError(f"{name} has more than 8 bits per channel; store it with 8 bits per channel")
    return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


def _refuse_few(path: Path, count: int) -> None:
    if count < _MIN_IMAGES:
        raise DataError(
            f"{path} holds {count} images; give at least {_MIN_IMAGES}, better as many as the control set has"
        )


def _refuse_misfit(name: str, shape: Sequence[int], spec: ImageSpec) -> None:
    if tuple(shape) == spec.shape:
        return
    (channels, height, width), remedies = shape, []
    if channels != spec.channels:
        remedies.append(f"store all samples in {_colour(spec.channels)}")
    if (height, width) != (spec.height, spec.width):
        remedies.append(f"make samples of {spec.height}x{spec.width}")
        if height == width:
            remedies[-1] += f" or bring the real images to their size with dataset.image_size={height}"
    raise DataError(
        f"{name} is {height}x{width} {_colour(channels)} (height x width), but the real images are "
        f"{spec.height}x{spec.width} {_colour(spec.channels)}; {' and '.join(remedies)}"
    )


def _colour(channels: int) -> str:
    return _COLOURS.get(channels, f"with {channels} channels")


def _found(images: np.ndarray) -> str:
    return (
        f"{images.dtype} from {images.min():g} to {images.max():g}" if images.dtype.kind in "iuf" else f"{images.dtype}"
    )


def _remedy(images: np.ndarray) -> str:
    """How to make grey levels of numbers in another range."""
    if images.dtype.kind in "iuf":
        low, high = images.min(), images.max()
        if low >= 0 and high <= 1:
            return "store (x * 255).round().astype('uint8')"
        if low >= -1 and high <= 1:
            return "store ((x + 1) * 127.5).round().astype('uint8')"
        if low >= 0 and high <= 255:
            return "store x.round().astype('uint8')"
    return "bring the values to this range and store them with .astype('uint8')"
