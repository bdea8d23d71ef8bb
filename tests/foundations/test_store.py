import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from collapse_bench import store as store_module
from collapse_bench.errors import RunDirError
from collapse_bench.store import Store, write_tensors

TENSORS = {
    "weight": torch.randn(5, 7, generator=torch.Generator().manual_seed(0)),
    "steps": torch.tensor([2**62, -1]),
    "scalar": torch.tensor(float("nan"), dtype=torch.float64),
    "images": torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "nothing": torch.empty(0, 2),
}


class Builder:
    """Counts how often it builds."""

    def __init__(self, tensors: dict[str, torch.Tensor] = TENSORS) -> None:
        self.tensors, self.num_calls = tensors, 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.num_calls += 1
        return self.tensors


def never() -> dict[str, torch.Tensor]:
    raise AssertionError("built again")


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        (a.dtype, a.shape) == (b.dtype, b.shape)
        and a.contiguous().flatten().view(torch.uint8).equal(b.contiguous().flatten().view(torch.uint8))
        for a, b in zip(first.values(), (second[name] for name in first), strict=True)
    )


def test_an_entry_is_built_once_and_then_reused_bit_for_bit(tmp_path: Path) -> None:
    build = Builder()
    built, first_reused = Store(tmp_path).get_or_build("fit", "key", build)
    found, second_reused = Store(tmp_path).get_or_build("fit", "key", never)
    assert (first_reused, second_reused, build.num_calls) == (False, True, 1)
    assert same_bits(built, TENSORS)
    assert same_bits(found, TENSORS)


def test_entries_of_other_keys_and_kinds_are_others(tmp_path: Path) -> None:
    store, build = Store(tmp_path), Builder()
    for kind, key in (("fit", "a"), ("fit", "b"), ("encoder", "a")):
        assert store.get_or_build(kind, key, build)[1] is False
    assert build.num_calls == 3


def test_what_is_built_comes_without_gradients(tmp_path: Path) -> None:
    build = Builder({"weight": torch.nn.Parameter(torch.ones(2))})
    for enabled in (True, False):
        tensors, _ = Store(tmp_path, enabled=enabled).get_or_build("fit", "key", build)
        assert not tensors["weight"].requires_grad


def test_a_disabled_store_builds_every_time_and_writes_nothing(tmp_path: Path) -> None:
    store, build = Store(tmp_path / "cache", enabled=False), Builder()
    for _ in range(2):
        tensors, reused = store.get_or_build("fit", "key", build)
        assert not reused
        assert same_bits(tensors, TENSORS)
    assert build.num_calls == 2
    assert not (tmp_path / "cache").exists()


RACE = """
import os, sys, time
from pathlib import Path
import torch
from collapse_bench.store import Store

folder = Path(sys.argv[1])

def build():
    with (folder / "calls").open("a") as file:
        file.write(name)
    time.sleep(0.5)  # so that the other one arrives meanwhile
    return {"who": torch.tensor([ord(name)])}

name = "a" if os.fork() else "b"  # one import of torch is dear enough
(folder / f"ready_{name}").touch()
while len(list(folder.glob("ready_*"))) < 2:
    time.sleep(0.005)
tensors, reused = Store(folder / "cache").get_or_build("fit", "key", build)
os.write(1, f"{chr(tensors['who'].item())} {reused}\\n".encode())  # in one piece: print may write a line in several
if name == "a":
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.slow
def test_two_processes_that_want_an_entry_at_once_build_it_once(tmp_path: Path) -> None:
    race = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=True, timeout=120
    )
    builder = (tmp_path / "calls").read_text()
    assert len(builder) == 1
    assert sorted(race.stdout.splitlines()) == [f"{builder} False", f"{builder} True"]


def test_an_unfinished_file_beside_the_entry_is_never_read(tmp_path: Path) -> None:
    entry = tmp_path / "fit" / "key.safetensors"
    write_tensors_of_another(entry.parent, "key.safetensors.4711.tmp")
    tensors, reused = Store(tmp_path).get_or_build("fit", "key", Builder())
    assert not reused
    assert same_bits(tensors, TENSORS)
    assert Store(tmp_path).get_or_build("fit", "key", never)[1]


def write_tensors_of_another(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    write_tensors(folder / name, {"weight": torch.zeros(1)})


@pytest.mark.parametrize("frac_left", [0.0, 0.05, 0.5, 0.99])
def test_a_truncated_entry_is_built_again(tmp_path: Path, frac_left: float) -> None:
    store = Store(tmp_path)
    store.get_or_build("fit", "key", Builder())
    path = tmp_path / "fit" / "key.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(frac_left * len(content))])
    tensors, reused = store.get_or_build("fit", "key", Builder())
    assert not reused
    assert same_bits(tensors, TENSORS)
    assert path.read_bytes() == content


def test_an_entry_that_vanishes_while_it_is_read_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, build = Store(tmp_path), Builder()
    store.get_or_build("fit", "key", build)

    def pruned_by_another_process(path: Path) -> None:
        path.unlink()
        raise FileNotFoundError(path)

    monkeypatch.setattr(store_module, "load_file", pruned_by_another_process)
    assert store.get_or_build("fit", "key", build)[1] is False
    assert build.num_calls == 2


def test_a_failed_build_leaves_no_entry_and_no_lock(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail() -> dict[str, torch.Tensor]:
        raise PermissionError("of the build, not of the store")

    with pytest.raises(PermissionError, match="of the build"):
        store.get_or_build("fit", "key", fail)
    assert list(tmp_path.glob("fit/*.safetensors*")) == []
    assert store.get_or_build("fit", "key", Builder())[1] is False


def entry_names(root: Path) -> list[str]:
    return sorted(path.stem for path in root.glob("*/*.safetensors"))


def test_pruning_keeps_the_most_recently_used_entries_within_the_bound(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for age, key in enumerate("dcba"):
        store.get_or_build("fit", key, Builder())
        then = time.time() - 1000 * (age + 1)
        os.utime(tmp_path / "fit" / f"{key}.safetensors", (then, then))
    size = (tmp_path / "fit" / "a.safetensors").stat().st_size
    # The oldest entry is used again, which makes it the newest.
    assert store.get_or_build("fit", "a", never)[1]

    bounded = Store(tmp_path, max_bytes=3 * size)
    assert not bounded.get_or_build("encoder", "e", Builder())[1]
    assert entry_names(tmp_path) == ["a", "d", "e"]
    for key in "ad":
        assert bounded.get_or_build("fit", key, never)[1]


def test_pruning_never_deletes_what_has_just_been_built(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=1)
    for key in "ab":
        tensors, _ = store.get_or_build("fit", key, Builder())
        assert same_bits(tensors, TENSORS)
        assert entry_names(tmp_path) == [key]


def test_pruning_leaves_an_entry_that_another_process_is_at(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=1)
    store.get_or_build("fit", "a", Builder())
    with FileLock(tmp_path / "fit" / "a.lock"):
        store.get_or_build("fit", "b", Builder())
        assert entry_names(tmp_path) == ["a", "b"]
    store.get_or_build("fit", "c", Builder())
    assert entry_names(tmp_path) == ["c"]


def test_a_store_that_cannot_be_pruned_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, max_bytes=1)
    store.get_or_build("fit", "a", Builder())

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(f"{path} is somebody else's")

    monkeypatch.setattr(Path, "unlink", refuse)
    store.get_or_build("fit", "b", Builder())
    assert entry_names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path, below: str) -> None:
    # The tests may run as root, whom no permission stops; a folder under a regular file stops everyone.
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(RunDirError, match=r"cache folder .*cache\.root=FOLDER.*cache\.enabled=false") as caught:
        Store(file / below).get_or_build("fit", "key", never)
    assert str(file) in str(caught.value)
    assert file.read_text() == ""


def test_a_full_disk_is_one_clear_error_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, TENSORS)
    content = path.read_bytes()

    def full(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "save_file", full)
    with pytest.raises(RunDirError, match=r"model\.safetensors.*No space left on device.*free some space"):
        write_tensors(path, {})
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
