from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from collapse_bench.datasets.image_folder import ImageFolder
from collapse_bench.errors import ConfigError, DataError

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def folder(root: Path, **options: Any) -> ImageFolder:
    return ImageFolder(name="mine", root=str(root), **options)


def save(path: Path, width: int = 8, height: int = 8, mode: str = "RGB", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    Image.fromarray(pixels.squeeze(2) if bands == 1 else pixels, mode).save(path)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two classes with three images of 8x8 each."""
    for i, name in enumerate(("ant", "bee")):
        for j in range(3):
            save(tmp_path / "images" / name / f"{j}.png", seed=3 * i + j)
    return tmp_path / "images"


# JPEG copy of CIFAR-10


def test_a_folder_of_jpegs_is_read_in_order_and_split(cifar_jpegs: Path) -> None:
    data = folder(cifar_jpegs / "train").load()
    assert data.spec.shape == (3, 32, 32)
    assert data.spec.class_names == CIFAR_CLASSES
    assert [len(data.pool), len(data.held_out.reference), len(data.held_out.control)] == [150, 75, 75]
    files = sorted((cifar_jpegs / "train").rglob("*.jpg"))
    for image, label, i in zip(data.pool.images, data.pool.labels, data.pool.image_id, strict=True):
        assert torch.equal(image, torch.from_numpy(np.array(Image.open(files[i]))).permute(2, 0, 1))
        assert files[i].parent.name == CIFAR_CLASSES[label]


def test_the_test_root_is_the_reference(cifar_jpegs: Path) -> None:
    data = folder(cifar_jpegs / "train", test_root=str(cifar_jpegs / "test")).load()
    assert [len(data.pool), len(data.held_out.reference), len(data.held_out.control)] == [240, 60, 60]
    assert sorted(data.held_out.reference.image_id.tolist()) == list(range(300, 360))
    assert data.held_out.reference.labels.bincount().tolist() == [6] * 10


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 48])
def test_size_and_channels_can_be_chosen(cifar_jpegs: Path, channels: int, size: int) -> None:
    data = folder(cifar_jpegs / "test", channels=channels, image_size=size, classes=["cat", "dog"]).load()
    assert data.spec.shape == (channels, size, size)
    assert data.pool.images.shape == (len(data.pool), channels, size, size)
    assert data.pool.images.dtype == torch.uint8
    assert data.spec.class_names == ("cat", "dog")


def test_two_reads_are_equal(cifar_jpegs: Path) -> None:
    first, second = (folder(cifar_jpegs / "test", image_size=20).read() for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)


# Made for the purpose


def test_other_files_and_hidden_files_are_ignored(small: Path) -> None:
    (small / "ant" / "notes.txt").write_text("not an image")
    (small / "ant" / ".hidden.png").write_bytes(b"not an image")
    (small / "readme.md").write_text("not a class")
    save(small / ".cache" / "thumb.png")
    save(small / "ant" / ".thumbs" / "0.png")
    raw = folder(small).read()
    assert raw.class_names == ("ant", "bee")
    assert len(raw.images) == 6


def test_deeper_folders_and_all_usual_types_belong_to_their_class(small: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "c.bmp", "d.webp", "deeper/e.tiff", "deeper/f.gif"):
        save(small / "bee" / name)
    raw = folder(small).read()
    assert raw.labels.tolist() == [0] * 3 + [1] * 9


def test_oblong_images_keep_their_shape_and_become_central_squares_when_a_size_is_chosen(tmp_path: Path) -> None:
    pixels = np.zeros((4, 12, 3), dtype=np.uint8)
    pixels[:, 4:8] = 200
    (tmp_path / "stripe").mkdir()
    for i in range(4):
        Image.fromarray(pixels).save(tmp_path / "stripe" / f"{i}.png")
    assert folder(tmp_path).load().spec.shape == (3, 4, 12)
    square = folder(tmp_path, image_size=4).load()
    assert square.spec.shape == (3, 4, 4)
    assert (square.pool.images == 200).all()


def test_images_of_many_sizes_are_read_when_a_size_is_chosen(small: Path) -> None:
    save(small / "bee" / "9.png", width=30, height=17)
    assert folder(small, image_size=8).read().images.shape == (7, 3, 8, 8)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_8_bit_mode_is_converted(small: Path, mode: str, channels: int) -> None:
    path = save(small / "ant" / "00.png", mode=mode)
    raw = folder(small, channels=channels).read()
    expected = np.array(Image.open(path).convert("L" if channels == 1 else "RGB")).reshape(8, 8, channels)
    assert torch.equal(raw.images[1], torch.from_numpy(expected).permute(2, 0, 1))


def test_the_rotation_that_a_camera_stores_is_applied(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "0.png", exif=exif)
    turned = torch.from_numpy(pixels[::-1, ::-1].copy()).permute(2, 0, 1)
    assert torch.equal(folder(tmp_path).read().images[0], turned)


def unsaid(dataset: ImageFolder, error: type[Exception], *words: object) -> list[str]:
    """Those of ``words`` that the refusal to load does not say."""
    with pytest.raises(error) as caught:
        dataset.load()
    return [str(word) for word in words if str(word) not in str(caught.value)]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert unsaid(folder(tmp_path / "nowhere"), DataError, tmp_path / "nowhere", "dataset.root", "one sub-folder") == []


def test_an_empty_folder_and_one_without_class_folders_are_named(tmp_path: Path) -> None:
    assert unsaid(folder(tmp_path), DataError, tmp_path, "no class sub-folders", "sub-folder of its own") == []
    save(tmp_path / "0.png")
    assert unsaid(folder(tmp_path), DataError, tmp_path, "no class sub-folders", "sub-folder of its own") == []


def test_a_class_folder_without_images_is_named(small: Path) -> None:
    (small / "cow").mkdir()
    (small / "cow" / "notes.txt").write_text("no image")
    assert unsaid(folder(small), DataError, small / "cow", "no images", ".png", "remove it") == []


@pytest.mark.parametrize("content", ["truncated", "garbage", "empty"])
@pytest.mark.parametrize("name", ["1.png", "9.jpg"])
def test_a_damaged_image_is_named(small: Path, name: str, content: str) -> None:
    path = save(small / "bee" / name, width=64, height=64)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "garbage": b"x" * 500, "empty": b""}[content])
    assert unsaid(folder(small, image_size=8), DataError, "cannot read the image", path, "replace or delete it") == []


def test_all_images_that_cannot_be_used_are_named_at_once(small: Path) -> None:
    first = sorted((small / "ant").iterdir())[0]
    first.write_bytes(b"x" * 500)
    odd = [save(small / "bee" / "1.png", width=5, height=9), save(small / "bee" / "2.png", width=7, height=7)]
    said = ("3 of ", "images cannot be used", first, *odd, "9x5", "8x8", "dataset.image_size")
    assert unsaid(folder(small), DataError, *said) == []


def test_no_more_than_ten_images_that_cannot_be_used_are_named(small: Path) -> None:
    for i in range(20):
        (small / "bee" / f"x{i:02d}.png").write_bytes(b"x")
    said = ("20 of ", small / "bee" / "x09.png", "and 10 more")
    assert unsaid(folder(small), DataError, *said, "x10.png") == ["x10.png"]


def test_test_images_of_another_size_are_named(small: Path, tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        save(tmp_path / "test" / name / "0.png", width=9)
    bad = tmp_path / "test" / "ant" / "0.png"
    assert unsaid(folder(small, test_root=str(tmp_path / "test")), DataError, bad, "8x9", "dataset.image_size") == []


def test_images_with_16_bits_per_channel_are_refused(small: Path) -> None:
    path = small / "ant" / "3.png"
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(path)
    assert unsaid(folder(small), DataError, path, "more than 8 bits", "convert it") == []


def test_test_classes_that_differ_are_named(small: Path, tmp_path: Path) -> None:
    save(tmp_path / "test" / "ant" / "0.png")
    save(tmp_path / "test" / "cow" / "0.png")
    test_root = tmp_path / "test"
    dataset = folder(small, test_root=str(test_root))
    assert unsaid(dataset, DataError, "dataset.test_root", test_root, "bee, cow", "add or remove") == []


def test_a_missing_test_root_is_named(small: Path, tmp_path: Path) -> None:
    assert unsaid(folder(small, test_root=str(tmp_path / "no")), DataError, tmp_path / "no", "dataset.test_root") == []


def test_images_cannot_be_both_trained_on_and_measured_with(small: Path) -> None:
    save(small / "ant" / "test" / "ant" / "0.png")
    for test_root in (small, small / "ant" / "test", small.parent):
        assert unsaid(folder(small, test_root=str(test_root)), ConfigError, "dataset.test_root", "side by side") == []


def test_channels_other_than_1_and_3_are_refused(small: Path) -> None:
    assert unsaid(folder(small, channels=2), ConfigError, "dataset.channels", "1 (grey) or 3 (RGB)", "got 2") == []
