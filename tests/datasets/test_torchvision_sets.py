import gzip
import hashlib
import io
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, KMNIST, MNIST, FashionMNIST
from torchvision.datasets.mnist import read_image_file

from collapse_bench.datasets import torchvision_sets
from collapse_bench.datasets.idx import read_idx
from collapse_bench.datasets.torchvision_sets import TorchvisionDataset
from collapse_bench.errors import ConfigError, DataError

IDX_SETS = {"mnist": MNIST, "fashion_mnist": FashionMNIST, "kmnist": KMNIST}
NUM_TRAIN, NUM_TEST = 60, 20


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(header + array.tobytes())


def tiny_arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 256, (NUM_TRAIN, 28, 28), dtype=np.uint8),
        (np.arange(NUM_TRAIN) % 10).astype(np.uint8),
        rng.integers(0, 256, (NUM_TEST, 28, 28), dtype=np.uint8),
        (np.arange(NUM_TEST) % 10).astype(np.uint8),
    ]


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def publish_idx(kind: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A tiny data set in the place of the published one: its files, by name; its checksums are the published ones."""
    names = [name for name, _ in MNIST.resources]
    files = {name: idx_bytes(array) for name, array in zip(names, tiny_arrays(), strict=True)}
    monkeypatch.setattr(IDX_SETS[kind], "resources", [(name, md5(content)) for name, content in files.items()])
    return files


def put(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def publish_cifar10(monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, dict[str, bytes], np.ndarray]:
    """A tiny CIFAR-10: its archive, the files in it, and its training images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_TRAIN, 3, 32, 32), dtype=np.uint8)
    batches: dict[str, Any] = {
        "data_batch_1": {"data": images.reshape(NUM_TRAIN, -1), "labels": [i % 10 for i in range(NUM_TRAIN)]},
        "test_batch": {"data": images[:NUM_TEST].reshape(NUM_TEST, -1), "labels": [i % 10 for i in range(NUM_TEST)]},
        "batches.meta": {"label_names": ["airplane", "automobile", *(f"class{i}" for i in range(2, 10))]},
    }
    files = {name: pickle.dumps(batch) for name, batch in batches.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    archive = buffer.getvalue()
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5(files["data_batch_1"])]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(files["test_batch"])]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(files["batches.meta"])})
    return archive, files, images


def dataset(kind: str, root: Path, **options: Any) -> TorchvisionDataset:
    return TorchvisionDataset(name=kind, kind=kind, root=str(root), **options)


def listing(folder: Path) -> list[tuple[Path, int]]:
    return sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))


# Real MNIST


def test_mnist_is_50_000_10_000_10_000_read_from_a_read_only_folder(mnist_root: Path) -> None:
    before = listing(mnist_root)
    data = dataset("mnist", mnist_root, download=False).load()
    assert [len(data.pool), len(data.held_out.reference), len(data.held_out.control)] == [50_000, 10_000, 10_000]
    assert data.pool.images.dtype == torch.uint8
    assert data.spec.shape == (1, 28, 28)
    assert data.spec.class_names == tuple("0123456789")
    # Published counts of the test split.
    assert data.held_out.reference.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    train_counts = data.pool.labels.bincount() + data.held_out.control.labels.bincount()
    assert train_counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    # Published mean grey level of the training images, 0.1307 of 255.
    total = sum(pool.images.sum(dtype=torch.int64).item() for pool in (data.pool, data.held_out.control))
    assert total / (60_000 * 784 * 255) == pytest.approx(0.1307, abs=5e-5)
    assert listing(mnist_root) == before


def test_idx_files_are_decoded_as_torchvision_decodes_them(mnist_root: Path, tmp_path: Path) -> None:
    archive = mnist_root / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    unpacked = tmp_path / "t10k-images-idx3-ubyte"
    unpacked.write_bytes(gzip.decompress(archive.read_bytes()))
    assert torch.equal(read_idx(archive), read_image_file(str(unpacked)))


def test_a_truncated_mnist_archive_is_refused(mnist_root: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(mnist_root / "MNIST" / "raw", raw, copy_function=shutil.copyfile)
    raw.chmod(0o755)
    damaged = raw / "train-images-idx3-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:5_000_000])
    with pytest.raises(DataError) as caught:
        dataset("mnist", tmp_path, download=False).load()
    for word in (str(damaged), "damaged", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "delete it", "dataset.download=true"):
        assert word in str(caught.value)


# Tiny data sets in the place of the published ones


@pytest.mark.parametrize("kind", IDX_SETS)
def test_idx_sets_are_read_in_order_with_their_class_names(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / IDX_SETS[kind].__name__ / "raw", publish_idx(kind, monkeypatch))
    raw = dataset(kind, tmp_path).read()
    images, labels, test_images, test_labels = (torch.from_numpy(array) for array in tiny_arrays())
    assert torch.equal(raw.images, images.unsqueeze(1))
    assert torch.equal(raw.labels, labels.long())
    assert raw.test_images is not None
    assert raw.test_labels is not None
    assert torch.equal(raw.test_images, test_images.unsqueeze(1))
    assert torch.equal(raw.test_labels, test_labels.long())
    assert len(raw.class_names) == 10
    assert raw.class_names[1] == {"mnist": "1", "fashion_mnist": "Trouser", "kmnist": "ki"}[kind]


def test_unpacked_files_without_a_published_checksum_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = publish_idx("kmnist", monkeypatch)
    put(tmp_path / "KMNIST" / "raw", files)
    expected = dataset("kmnist", tmp_path).read().images
    put(tmp_path / "KMNIST" / "raw", {name.removesuffix(".gz"): b"truncated" for name in files})
    assert torch.equal(dataset("kmnist", tmp_path).read().images, expected)


@pytest.mark.parametrize("kind", IDX_SETS)
def test_missing_idx_files_name_the_folder_the_files_and_the_option(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        dataset(kind, tmp_path, download=False).load()
    folder = tmp_path / IDX_SETS[kind].__name__ / "raw"
    for word in (kind, "train-images-idx3-ubyte.gz", "t10k-labels", str(folder), "dataset.root", "dataset.download"):
        assert word in str(caught.value)


@pytest.mark.parametrize("kind", [*IDX_SETS, "cifar10"])
def test_an_offline_download_says_what_was_tried_and_where_files_go(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torchvision_sets, "download_url", offline)
    with pytest.raises(DataError) as caught:
        dataset(kind, tmp_path, download=True).load()
    tried = [CIFAR10.url] if kind == "cifar10" else [mirror + "train-images" for mirror in IDX_SETS[kind].mirrors]
    folder = tmp_path if kind == "cifar10" else tmp_path / IDX_SETS[kind].__name__ / "raw"
    last = CIFAR10.filename if kind == "cifar10" else "t10k-labels-idx1-ubyte.gz"
    for word in (kind, *tried, "Name or service not known", str(folder), last, "dataset.root"):
        assert word in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_download_fetches_only_what_is_missing_and_leaves_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = publish_idx("mnist", monkeypatch)
    monkeypatch.setattr(MNIST, "mirrors", ["http://broken/", "http://good/"])
    names = list(files)
    put(tmp_path / "MNIST" / "raw", {names[0]: files[names[0]]})
    asked = []

    def deliver(url: str, folder: str, filename: str, checksum: str) -> None:
        asked.append(url)
        assert checksum == md5(files[filename])
        if url.startswith("http://broken/"):
            raise RuntimeError("File not found or corrupted.")
        (Path(folder) / filename).write_bytes(files[filename])

    monkeypatch.setattr(torchvision_sets, "download_url", deliver)
    raw = dataset("mnist", tmp_path).read()
    assert len(raw.images) == NUM_TRAIN
    assert asked == [mirror + name for name in names[1:] for mirror in ("http://broken/", "http://good/")]
    assert sorted(path.name for path in (tmp_path / "MNIST" / "raw").iterdir()) == sorted(names)


def test_a_download_into_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "MNIST").write_text("a file where a folder should be")
    with pytest.raises(DataError) as caught:
        dataset("mnist", tmp_path).load()
    for word in ("mnist", "cannot write", str(tmp_path / "MNIST" / "raw"), "dataset.root"):
        assert word in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "MNIST" / "raw", publish_idx("mnist", monkeypatch))

    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(torchvision_sets, "calculate_md5", denied)
    with pytest.raises(DataError, match=r"cannot read .*train-images.*check its permissions"):
        dataset("mnist", tmp_path).load()


def test_an_unknown_kind_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.kind .*mnist, fashion_mnist, kmnist, cifar10, got 'cifar100'"):
        dataset("cifar100", tmp_path).load()


def test_cifar10_is_read_from_its_archive_and_nothing_is_written_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, _, images = publish_cifar10(monkeypatch)
    put(tmp_path, {CIFAR10.filename: archive})
    before = listing(tmp_path)
    raw = dataset("cifar10", tmp_path, download=False).read()
    assert torch.equal(raw.images, torch.from_numpy(images))
    assert raw.labels.tolist() == [i % 10 for i in range(NUM_TRAIN)]
    assert raw.class_names[:2] == ("airplane", "automobile")
    assert raw.test_images is not None
    assert torch.equal(raw.test_images, torch.from_numpy(images[:NUM_TEST]))
    assert listing(tmp_path) == before
    assert dataset("cifar10", tmp_path).load().spec.shape == (3, 32, 32)


def test_cifar10_is_read_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, files, images = publish_cifar10(monkeypatch)
    put(tmp_path / CIFAR10.base_folder, files)
    assert torch.equal(dataset("cifar10", tmp_path, download=False).read().images, torch.from_numpy(images))


@pytest.mark.parametrize("damaged", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_truncated_unpacked_cifar10_file_is_refused(
    damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files, _ = publish_cifar10(monkeypatch)
    put(tmp_path / CIFAR10.base_folder, files | {damaged: files[damaged][:-10]})
    with pytest.raises(DataError) as caught:
        dataset("cifar10", tmp_path).load()
    for word in ("cifar10", str(tmp_path / CIFAR10.base_folder), "checksum", "delete", "dataset.download=true"):
        assert word in str(caught.value)


def test_a_truncated_cifar10_archive_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, _, _ = publish_cifar10(monkeypatch)
    put(tmp_path, {CIFAR10.filename: archive[:-10]})
    monkeypatch.setattr(torchvision_sets, "extract_archive", lambda *_: pytest.fail("unpacked a damaged archive"))
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz is damaged"):
        dataset("cifar10", tmp_path).load()


def test_a_full_temporary_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, _, _ = publish_cifar10(monkeypatch)
    put(tmp_path, {CIFAR10.filename: archive})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torchvision_sets, "extract_archive", full)
    with pytest.raises(DataError, match=r"cannot unpack .*No space left.*TMPDIR"):
        dataset("cifar10", tmp_path).load()


def test_missing_cifar10_names_the_archive_and_the_option(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        dataset("cifar10", tmp_path, download=False).load()
    for word in ("cifar10", CIFAR10.filename, str(tmp_path), "dataset.root", "dataset.download=true"):
        assert word in str(caught.value)
