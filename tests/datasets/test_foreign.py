import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from collapse_bench.datasets.foreign import read_samples
from collapse_bench.errors import ConfigError, DataError
from collapse_bench.types import ImageSpec

GREY = ImageSpec(1, 8, 8, ("a", "b"))
RGB = ImageSpec(3, 8, 6, ("a", "b"))


def pixels(spec: ImageSpec = GREY, num_images: int = 5, seed: int = 0) -> np.ndarray:
    """Random images, uint8 [n, c, h, w], in the order in which they are read."""
    images = np.random.default_rng(seed).integers(0, 256, (num_images, *spec.shape), dtype=np.uint8)
    return images[np.lexsort(images.reshape(num_images, -1).T[::-1])]


def picture(image: np.ndarray) -> Image.Image:
    """One image [c, h, w] as Pillow has it."""
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    picture(image).save(file, "PNG")
    return file.getvalue()


def save_folder(path: Path, images: np.ndarray) -> Path:
    """Images as PNG files at several depths, under names that sort in another order."""
    for i, image in enumerate(images):
        file = path / ("deep/er" if i % 2 else "") / f"{len(images) - i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(image).save(file)
    return path


def save_parquet(path: Path, images: np.ndarray, kind: str = "struct") -> Path:
    encoded = [png(image) for image in images]
    column = [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(encoded)]
    pq.write_table(pa.table({"image": column if kind == "struct" else encoded, "label": [0] * len(images)}), path)
    return path


@pytest.mark.parametrize("spec", [GREY, RGB])
def test_every_kind_of_file_gives_the_same_images(tmp_path: Path, spec: ImageSpec) -> None:
    images = pixels(spec)
    np.save(tmp_path / "channels_first.npy", images[::-1])
    np.save(tmp_path / "channels_last.npy", images.transpose(0, 2, 3, 1))
    np.savez_compressed(tmp_path / "with_labels.npz", arr_0=images, arr_1=np.zeros(len(images), dtype=np.int64))
    places = [tmp_path / "channels_first.npy", tmp_path / "channels_last.npy", tmp_path / "with_labels.npz"]
    if spec.channels == 1:
        np.save(tmp_path / "no_channels.npy", images[:, 0])
        places.append(tmp_path / "no_channels.npy")
    places.append(save_folder(tmp_path / "folder", images))
    places += [save_parquet(tmp_path / f"{kind}.parquet", images, kind) for kind in ("struct", "bytes")]
    for place in places:
        read = read_samples(place, spec)
        assert torch.equal(read, torch.from_numpy(images)), place
        assert read.stride() == torch.empty(images.shape).stride(), place


def test_hidden_and_other_files_in_a_folder_are_ignored(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "folder", pixels())
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "1.png").write_bytes(png(pixels(RGB)[0]))
    (folder / "notes.txt").write_text("made by a model")
    assert len(read_samples(folder, GREY)) == 5


def test_transparency_is_dropped(tmp_path: Path) -> None:
    images = pixels(RGB)
    for i, image in enumerate(images):
        with_alpha = picture(image)
        with_alpha.putalpha(128)
        with_alpha.save(tmp_path / f"{i}.png")
    assert torch.equal(read_samples(tmp_path, RGB), torch.from_numpy(images))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (pixels() / 255, r"float64 from 0\.?\d* to .*uint8 from 0 to 255: store \(x \* 255\)"),
        ((pixels() / 127.5 - 1).astype(np.float32), r"float32 from -.*store \(\(x \+ 1\) \* 127\.5\)"),
        (pixels().astype(np.float64), r"float64 from .*store x\.round\(\)"),
        (pixels().astype(np.int64) * 9, r"int64 from .*bring the values to this range"),
        (np.full((3, 8, 8), np.nan), "float64 from nan to nan.*bring the values to this range"),
        (pixels() > 127, "holds bool; grey levels must be uint8"),
        (np.array([["a"]] * 3)[..., None], "holds <U1; grey levels must be uint8"),
        ((pixels() > 127).astype(np.uint8), "all values are 0 or 1.*multiply them by 255"),
        (pixels(ImageSpec(1, 16, 16, ())), "is 16x16 grey .*real images are 8x8 grey.*dataset.image_size=16"),
        (pixels(ImageSpec(1, 8, 6, ())), "is 8x6 grey .*make samples of 8x8$"),
        (pixels(ImageSpec(3, 8, 8, ())), "is 8x8 RGB .*store all samples in grey$"),
        (pixels(ImageSpec(3, 32, 32, ())), "is 32x32 RGB .*store all samples in grey and make samples of 8x8"),
        (pixels(ImageSpec(4, 8, 8, ())), "is 8x8 with 4 channels"),
        (pixels(num_images=1), "holds 1 images; give at least 2"),
        (pixels()[:0].astype(np.float32), "holds 0 images; give at least 2"),
        (np.zeros((4, 4), dtype=np.uint8), r"exactly one array of images .*its arrays: \[4, 4\]"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "samples.npy", array)
    with pytest.raises(DataError, match=message) as raised:
        read_samples(tmp_path / "samples.npy", GREY)
    assert str(tmp_path / "samples.npy") in str(raised.value)


def test_an_npz_file_with_several_sets_of_images_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=pixels(), b=pixels(seed=1))
    with pytest.raises(DataError, match=r"two\.npz must hold exactly one array.*\[5, 1, 8, 8\], \[5, 1, 8, 8\]"):
        read_samples(tmp_path / "two.npz", GREY)
    np.savez(tmp_path / "none.npz")
    with pytest.raises(DataError, match="its arrays: none"):
        read_samples(tmp_path / "none.npz", GREY)


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_pickles_are_never_run(tmp_path: Path, suffix: str) -> None:
    trap = np.array([Trap(tmp_path / "sprung")] * 3, dtype=object)
    (np.save if suffix == "npy" else np.savez)(tmp_path / f"trap.{suffix}", trap)
    with pytest.raises(DataError, match=rf"cannot read .*trap\.{suffix}: .*allow_pickle=False.*plain uint8 array"):
        read_samples(tmp_path / f"trap.{suffix}", GREY)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["samples.npy", "samples.npz", "samples.parquet", "folder/2.png"])
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, keep: float) -> None:
    images = pixels(num_images=20)
    np.save(tmp_path / "samples.npy", images)
    np.savez_compressed(tmp_path / "samples.npz", images)
    save_parquet(tmp_path / "samples.parquet", images)
    save_folder(tmp_path / "folder", images)
    file = tmp_path / name
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=f"cannot read .*{re.escape(str(file))}: "):
        read_samples(file.parent if file.suffix == ".png" else file, GREY)


def test_a_damaged_row_is_refused_by_number(tmp_path: Path) -> None:
    encoded = [png(image) for image in pixels()]
    pq.write_table(pa.table({"image": [*encoded[:3], b"no image"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"cannot read the image .*a\.parquet, row 3,"):
        read_samples(tmp_path / "a.parquet", GREY)
    pq.write_table(pa.table({"image": [{"bytes": encoded[0], "path": ""}, None]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet, row 1: no image; store the encoded image itself"):
        read_samples(tmp_path / "b.parquet", GREY)
    pq.write_table(pa.table({"image": [encoded[0], png(pixels(RGB)[0])]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"c\.parquet, row 1, is 8x6 RGB"):
        read_samples(tmp_path / "c.parquet", GREY)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"label": [1, 2]}, r"label \(int64\)"),
        ({"a": [b"x"], "b": [b"y"]}, r"a \(binary\), b \(binary\)"),
        ({"image": [{"path": "a.png"}]}, r"image \(struct<path: string>\)"),
    ],
)
def test_a_parquet_file_needs_exactly_one_column_of_images(tmp_path: Path, columns: dict, found: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "samples.parquet")
    with pytest.raises(DataError, match=f"exactly one column of encoded images.*its columns: {found}"):
        read_samples(tmp_path / "samples.parquet", GREY)


def test_mixed_channels_and_depths_in_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "mixed", pixels())
    picture(pixels(ImageSpec(3, 8, 8, ()))[0]).save(folder / "z.png")
    with pytest.raises(DataError, match=r"z\.png is 8x8 RGB .*real images are 8x8 grey; store all samples in grey"):
        read_samples(folder, GREY)
    folder = save_folder(tmp_path / "deep", pixels())
    Image.fromarray(pixels()[0, 0].astype(np.uint16) * 257).save(folder / "z.png")
    with pytest.raises(DataError, match=r"z\.png has more than 8 bits per channel; store it with 8 bits"):
        read_samples(folder, GREY)


def test_a_folder_needs_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no images \(.png, .* at any depth; give another folder"):
        read_samples(tmp_path, GREY)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataError, match="it is a run: give it as run="):
        read_samples(tmp_path, GREY)
    picture(pixels()[0]).save(tmp_path / "1.png")
    with pytest.raises(DataError, match="holds 1 images; give at least 2"):
        read_samples(tmp_path, GREY)


def test_other_files_and_data_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.npz: there is no such file"):
        read_samples(tmp_path / "gone.npz", GREY)
    with pytest.raises(
        ConfigError, match=r"samples\.zip must be a folder of images, or a \.npy, \.npz or \.parquet file"
    ):
        read_samples(tmp_path / "samples.zip", GREY)
    with pytest.raises(ConfigError, match="holds no pictures"):
        read_samples(tmp_path, ImageSpec(4, 1, 1, ("a",), dtype="float32"))


def test_a_zip_file_under_another_name_is_no_array(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "samples.npz", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"samples\.npz must hold exactly one array .*: none"):
        read_samples(tmp_path / "samples.npz", GREY)
