import tarfile
from pathlib import Path

import pytest

from collapse_bench.datasets import torchvision_sets

JPEGS_PER_CLASS = {"train": 30, "test": 6}
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, *_: object) -> None:
        raise AssertionError(f"a test reached for {url}")

    monkeypatch.setattr(torchvision_sets, "download_url", refuse)


@pytest.fixture(scope="session")
def mnist_root(shared_data: Path) -> Path:
    if not (shared_data / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST: looked for {shared_data / 'MNIST' / 'raw'}")
    return shared_data


@pytest.fixture(scope="session")
def cifar_jpegs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first few JPEG files of every class of CIFAR-10, in ``train`` and ``test``."""
    archive = shared_data / "cifar10_jpeg.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no JPEG copy of CIFAR-10: looked for {archive}")
    folder = tmp_path_factory.mktemp("cifar")
    wanted = {
        f"cifar10_jpeg/{split}/{name}/{i:04d}.jpg"
        for split, count in JPEGS_PER_CLASS.items()
        for name in CIFAR_CLASSES
        for i in range(count)
    }
    with tarfile.open(archive, "r|xz") as tar:
        for member in tar:
            if member.name in wanted:
                tar.extract(member, folder, filter="data")
    return folder / "cifar10_jpeg"
