"""Published data sets by torchvision's addresses and checksums: MNIST, Fashion-MNIST, KMNIST, CIFAR-10."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final

import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, KMNIST, MNIST, FashionMNIST
from torchvision.datasets.utils import calculate_md5, download_url, extract_archive

from collapse_bench.datasets.base import Dataset, RawImages
from collapse_bench.datasets.idx import read_idx
from collapse_bench.errors import ConfigError, DataError

_IDX_SETS: dict[str, type[MNIST]] = {"mnist": MNIST, "fashion_mnist": FashionMNIST, "kmnist": KMNIST}
_KINDS = (*_IDX_SETS, "cifar10")


@final
@dataclass(frozen=True, kw_only=True)
class TorchvisionDataset(Dataset):
    """A published data set with a test split, in torchvision's own folders and files.

    Nothing is written next to the files unless they are downloaded, so ``root`` may be read-only. Checksums are
    verified at every load.

    Args:
        kind: ``mnist``, ``fashion_mnist``, ``kmnist`` or ``cifar10``.
        root: folder that holds ``MNIST/raw/*.gz``, ``FashionMNIST/raw/*.gz``, ``KMNIST/raw/*.gz``,
            ``cifar-10-python.tar.gz`` or the unpacked ``cifar-10-batches-py``.
        download: fetch what is not there.
    """

    kind: str
    root: str
    download: bool = True

    def read(self) -> RawImages:
        """All images: 28x28 grey or, for CIFAR-10, 32x32 RGB.

        Raises:
            DataError: if a file is missing, damaged, or cannot be downloaded.
            ConfigError: if ``kind`` is none of the four.
        """
        if self.kind not in _KINDS:
            raise ConfigError(f"dataset.kind must be one of {', '.join(_KINDS)}, got {self.kind!r}")
        root = Path(self.root).expanduser().absolute()
        return self._read_cifar10(root) if self.kind == "cifar10" else self._read_idx(root, _IDX_SETS[self.kind])

    def _read_idx(self, root: Path, published: type[MNIST]) -> RawImages:
        folder = root / published.__name__ / "raw"
        archives = self._verified_archives(folder, dict(published.resources), published.mirrors)
        images, labels, test_images, test_labels = (read_idx(path) for path in archives)
        # torchvision calls MNIST's classes "0 - zero", "1 - one", ...
        class_names = tuple(name.split(" - ")[0] for name in published.classes)
        return RawImages(
            images.unsqueeze(1),
            labels.to(torch.int64),
            class_names,
            test_images.unsqueeze(1),
            test_labels.to(torch.int64),
        )

    def _read_cifar10(self, root: Path) -> RawImages:
        if (root / CIFAR10.base_folder).is_dir():
            return self._read_cifar10_batches(root)
        mirror = CIFAR10.url.removesuffix(CIFAR10.filename)
        (archive,) = self._verified_archives(root, {CIFAR10.filename: CIFAR10.tgz_md5}, [mirror])
        # torchvision reads CIFAR-10 from files only, and root may be read-only or shared by parallel runs.
        with TemporaryDirectory() as unpacked:
            try:
                extract_archive(archive, unpacked)
            except OSError as error:
                raise DataError(
                    f"{self.name}: cannot unpack {archive} into {unpacked}: {error}; set TMPDIR to a folder with "
                    f"200 MB of free space, or unpack it yourself in {root}"
                ) from error
            return self._read_cifar10_batches(Path(unpacked))

    def _read_cifar10_batches(self, root: Path) -> RawImages:
        try:
            train, test = CIFAR10(root, train=True), CIFAR10(root, train=False)
        except (RuntimeError, OSError) as error:
            raise DataError(
                f"{self.name}: a file in {root / CIFAR10.base_folder} is missing or does not match its published "
                f"checksum; delete that folder and put {CIFAR10.filename} into {root}, or set dataset.download=true "
                f"to fetch it"
            ) from error

        def tensors(split: CIFAR10) -> tuple[Tensor, Tensor]:
            return torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(split.targets)

        images, labels = tensors(train)
        return RawImages(images, labels, tuple(train.classes), *tensors(test))

    def _verified_archives(self, folder: Path, checksums: Mapping[str, str], mirrors: Sequence[str]) -> list[Path]:
        """Paths of published files in ``folder``, fetched if they are missing and allowed to be.

        Args:
            folder: where the files are, or where they are put.
            checksums: published md5 of each file, by file name.
            mirrors: addresses of folders that hold all files, each ending in a slash.
        """
        missing = [filename for filename in checksums if not (folder / filename).is_file()]
        if missing and not self.download:
            raise DataError(
                f"{self.name}: did not find {', '.join(missing)} in {folder}; put the published files there, point "
                f"dataset.root at the folder that has them, or set dataset.download=true to fetch them"
            )
        for filename in missing:
            self._fetch(folder, filename, checksums, mirrors)
        for filename, md5 in checksums.items():
            self._verify(folder / filename, md5)
        return [folder / filename for filename in checksums]

    def _fetch(self, folder: Path, filename: str, checksums: Mapping[str, str], mirrors: Sequence[str]) -> None:
        """Downloads one file from the first mirror that delivers it with the right checksum."""
        failures = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Renamed when complete: a killed download leaves no half file, and parallel runs never read one.
            with TemporaryDirectory(dir=folder, prefix=".download_") as partial:
                for mirror in mirrors:
                    try:
                        download_url(mirror + filename, partial, filename, checksums[filename])
                    except (OSError, RuntimeError, HTTPException) as error:
                        failures.append(f"{mirror}{filename} ({error})")
                    else:
                        (Path(partial) / filename).replace(folder / filename)
                        return
        except OSError as error:
            raise DataError(
                f"{self.name}: cannot write the download of {filename} to {folder}: {error}; point dataset.root at a "
                f"folder that you may write to"
            ) from error
        raise DataError(
            f"{self.name}: could not download {filename}; tried {', '.join(failures)}. Without a network, copy "
            f"{', '.join(checksums)} from elsewhere into {folder}, or point dataset.root at the folder that has them"
        )

    def _verify(self, path: Path, md5: str) -> None:
        try:
            found = calculate_md5(path)
        except OSError as error:
            raise DataError(f"{self.name}: cannot read {path}: {error}; check its permissions") from error
        if found != md5:
            raise DataError(
                f"{self.name}: {path} is damaged or not the published file (md5 {found}, published {md5}); delete it "
                f"and copy it again, or set dataset.download=true to fetch it anew"
            )
