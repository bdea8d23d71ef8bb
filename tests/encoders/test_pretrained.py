"""Published weights are verified before they are used, and what is wrong with a file is said in one message."""

import sys
from pathlib import Path

import pytest
import torch
from chains import composed
from weight_files import fitted, saved, sha256

from collapse_bench.cli.config import build
from collapse_bench.encoders.dinov2 import DINOv2
from collapse_bench.encoders.inception import Inception
from collapse_bench.encoders.pretrained import Pretrained
from collapse_bench.errors import ConfigError, DataError

pytestmark = pytest.mark.parametrize("cls", [Inception, DINOv2])

OTHER = "0" * 64
PUBLISHED = {
    Inception: "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    DINOv2: "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
}


def refusal(encoder: Pretrained) -> str:
    with pytest.raises(DataError) as raised:
        fitted(encoder)
    return str(raised.value)


def test_the_published_checksum_is_the_default(cls: type[Pretrained]) -> None:
    encoder = build(composed(f"encoder={cls.option}")["encoder"][cls.option], "encoder")
    assert encoder == cls(weights=None, sha256=PUBLISHED[cls])
    assert not encoder.has_probabilities


@pytest.mark.parametrize("checksum", ["", "6726825d", "Z" * 64, "A" * 64])
def test_a_checksum_has_64_hexadecimal_digits(cls: type[Pretrained], checksum: str) -> None:
    with pytest.raises(ConfigError, match=rf"encoder\.{cls.option}\.sha256 must be 64 hexadecimal digits"):
        cls(weights=None, sha256=checksum)


def test_a_missing_file_is_named_with_its_source_and_checksum(cls: type[Pretrained], tmp_path: Path) -> None:
    message = refusal(cls(weights=str(tmp_path / "absent.pth"), sha256=OTHER))
    assert f"encoder={cls.option}: did not find its weights {tmp_path / 'absent.pth'}" in message
    assert f"put the file {cls.url} (sha256 {OTHER}) there, or say where it is with " in message
    assert f"encoder.{cls.option}.weights=PATH" in message
    with_classes = composed(f"encoder={cls.option}_classes", f"encoder.{cls.option}_classes.features.weights=file.pth")
    assert f"encoder.{cls.option}_classes.features.weights=PATH" in message
    assert with_classes["encoder"][f"{cls.option}_classes"]["features"]["weights"] == "file.pth"


def test_a_file_with_another_checksum_is_not_used(cls: type[Pretrained], tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    found = saved({}, path)["sha256"]
    message = refusal(cls(weights=str(path), sha256=OTHER))
    assert f"{path} is damaged or another file than is meant (its sha256 is {found}); put" in message
    assert f"{cls.url} (sha256 {OTHER})" in message


def test_a_file_that_holds_no_tensors_is_named(cls: type[Pretrained], tmp_path: Path) -> None:
    path = tmp_path / "text.pth"
    path.write_text("<html>not found</html>")
    assert f"{path} (sha256 {sha256(path)}) is not a file of named" in refusal(cls(str(path), sha256(path)))
    torch.save({"epoch": 3}, path)
    assert f"{path} (sha256 {sha256(path)}) is not a file of named" in refusal(cls(str(path), sha256(path)))


def test_code_in_a_file_is_not_run(cls: type[Pretrained], tmp_path: Path) -> None:
    path = tmp_path / "code.pth"
    torch.save(Path("harmless"), path)  # any class would do: only tensors and plain values are unpickled
    assert "is not a file of named tensors" in refusal(cls(str(path), sha256(path)))


def test_a_file_for_another_network_is_named(cls: type[Pretrained], tmp_path: Path) -> None:
    arguments = saved({"fc.weight": torch.zeros(10, 4)}, tmp_path / "small.pth")
    message = refusal(cls(**arguments))
    assert f"{arguments['weights']} (sha256 {arguments['sha256']}) holds the weights of another network: " in message
    assert len(message) < 700


def test_weights_are_downloaded_to_torch_hubs_folder_once(
    cls: type[Pretrained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "published.pth"
    arguments = saved({"fc.weight": torch.zeros(10, 4)}, source)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cls, "url", source.as_uri())
    place = tmp_path / "home" / "hub" / "checkpoints" / "published.pth"
    encoder = cls(weights=None, sha256=arguments["sha256"])
    assert f"{place} (sha256 {arguments['sha256']}) holds the weights of another network" in refusal(encoder)
    source.unlink()
    assert f"{place} (sha256 {arguments['sha256']}) holds the weights of another network" in refusal(encoder)


def test_a_download_that_fails_says_where_to_put_the_file(
    cls: type[Pretrained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "published.pth"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cls, "url", source.as_uri())
    place = tmp_path / "home" / "hub" / "checkpoints" / "published.pth"
    for _ in ("unreachable", "with another checksum"):
        message = refusal(cls(weights=None, sha256=OTHER))
        assert f"could not download its weights to {place}" in message
        assert f"put the file {source.as_uri()} (sha256 {OTHER}) there, or say where it is" in message
        assert list(place.parent.iterdir()) == []
        source.write_text("not the weights")


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    cls: type[Pretrained], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, cls.module, None)
    with pytest.raises(ConfigError, match=f"needs {cls.package}, which cannot be .*: pip install {cls.package}$"):
        fitted(cls(weights=None, sha256=OTHER))


@pytest.mark.parametrize(("channels", "dtype"), [(2, "uint8"), (1, "float32")])
def test_data_that_are_no_pictures_are_refused(cls: type[Pretrained], channels: int, dtype: str) -> None:
    with pytest.raises(ConfigError, match=f"{channels} channels of {dtype}; use encoder=pixels metrics=features"):
        fitted(cls(weights=None, sha256=OTHER), channels, dtype)
