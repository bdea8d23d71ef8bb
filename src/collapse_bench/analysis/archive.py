"""The files of runs, in their folders or packed into one archive ``runs.tar.xz``, as committed results have them."""

import io
import json
import lzma
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from collapse_bench.errors import RunDirError, in_one_line
from collapse_bench.files import sync_file
from collapse_bench.records import Record, Score

ARCHIVE = "runs.tar.xz"
"""Name of the archive in a folder of results. It holds records, configurations and states, no images and no models."""

# The seed is averaged over; other data has another reference set, which is refused, as another encoder is; versions,
# and that of the code, are reported apart.
_NO_ARM = ("seed", "data", "measured_with", "code")
_GENERATION = re.compile(r"gen_\d{3,}")
_FILES = re.compile(rf"(run\.json|status\.json|config\.yaml|{_GENERATION.pattern}/record\.json)")


def arm_settings(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Every config key that decides a number, without the seed: what an arm is, from the ``identity`` of a run."""
    return {key: value for key, value in identity.items() if key not in _NO_ARM and not key.startswith("versions.")}


@dataclass(frozen=True)
class RunFiles:
    """The files of one run.

    Args:
        path: the run directory; in an archive, the archive with the directory's name in it, for people to read.
        packed: content by name, of a run in an archive; ``None`` for one that is on the disk.
    """

    path: Path
    packed: Mapping[str, bytes] | None = None

    @property
    def generations(self) -> list[str]:
        """Names of the folders of committed generations, in order; ``gen_NNN.tmp`` is none."""
        names = [p.name for p in self.path.iterdir()] if self.packed is None else [n.split("/")[0] for n in self.packed]
        found = {name for name in names if _GENERATION.fullmatch(name)}
        return sorted(found, key=lambda name: int(name.removeprefix("gen_")))

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).exists() if self.packed is None else name in self.packed

    def read_json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file that holds a mapping.

        Raises:
            RunDirError: if it is missing or damaged; likewise below.
        """
        return self._read(name, json.loads)

    def read_yaml(self, name: str) -> dict[str, Any]:
        """The content of a YAML file that holds a mapping."""
        # libyaml, where there is one, is eight times as fast; a report reads hundreds of configurations.
        return self._read(name, lambda text: yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))

    def read_record(self, name: str) -> Record:
        """A record of this version."""
        content = self.read_json(name)
        try:
            record = Record.from_dict(content)
            if not all(isinstance(score, Score) and isinstance(score.value, int | float) for score in record.scores):
                raise TypeError("a score is not a number")
        except (KeyError, TypeError, ValueError) as error:
            raise RunDirError(f"{self.path / name}: not a record of this version ({one_line(error)})") from error
        return record

    def _read(self, name: str, parse: Callable[[str], Any]) -> dict[str, Any]:
        file = self.path / name
        try:
            content = parse(self._bytes(name).decode("utf-8"))
        except OSError as error:
            raise RunDirError(f"{file}: cannot be read ({error.strerror}); is this a run directory?") from error
        except (ValueError, yaml.YAMLError) as error:
            raise RunDirError(f"{file}: damaged ({one_line(error)})") from error
        if not isinstance(content, dict):
            raise RunDirError(f"{file}: not a file of collapse-bench (expected a mapping)")
        return content

    def _bytes(self, name: str) -> bytes:
        if self.packed is None:
            return (self.path / name).read_bytes()
        if name not in self.packed:
            raise FileNotFoundError(None, "not in the archive")
        return self.packed[name]


def read_archive(file: str | Path) -> list[RunFiles]:
    """The runs in an archive, in memory, in order of their names: nothing is written to the disk.

    Only records, configurations and states are read, whatever else there is.

    Raises:
        RunDirError: if the archive is missing, damaged, cut short, or holds no run.
    """
    file = Path(file)
    packed: dict[PurePosixPath, dict[str, bytes]] = {}
    try:
        # To the end of the stream before anything is parsed, so that a file that is cut short never looks like fewer
        # runs.
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(file.read_bytes()))) as archive:
            for folder, name, member in _members(archive):
                content = archive.extractfile(member)
                packed.setdefault(folder, {})[name] = content.read() if content else b""
    except OSError as error:
        raise RunDirError(f"{file}: cannot be read ({error.strerror or one_line(error)})") from error
    except (lzma.LZMAError, tarfile.TarError, EOFError) as error:
        raise RunDirError(f"{file}: damaged or cut short ({one_line(error)}); fetch it again") from error
    runs = [RunFiles(file / folder, files) for folder, files in sorted(packed.items()) if "run.json" in files]
    if not runs:
        raise RunDirError(f"{file}: no runs found: looked for files run.json in the archive")
    return runs


def write_archive(folders: Iterable[Path], root: Path, file: Path) -> None:
    """Packs the records, configurations and states of runs; equal runs give equal archives.

    Args:
        folders: run directories.
        root: the folder that they are in, at any depth; or the one of them that there is.
        file: the archive, which is replaced.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in sorted(folders):
            for path in sorted(folder.rglob("*")):
                if _FILES.fullmatch(path.relative_to(folder).as_posix()):
                    # Neither times nor users: they say nothing about the numbers.
                    member = tarfile.TarInfo(path.relative_to(root.parent if folder == root else root).as_posix())
                    member.size = path.stat().st_size
                    with path.open("rb") as content:
                        archive.addfile(member, content)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(lzma.compress(buffer.getvalue(), preset=9))
        sync_file(unfinished)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def one_line(error: Exception) -> str:
    """An error as one line of text."""
    return in_one_line(f"{type(error).__name__}: {error}")


def _members(archive: tarfile.TarFile) -> Iterator[tuple[PurePosixPath, str, tarfile.TarInfo]]:
    """The files of runs, each with its run's folder and its name in there."""
    for member in archive:
        path = PurePosixPath(member.name)
        for folder in path.parents:
            name = path.relative_to(folder).as_posix()
            if member.isfile() and _FILES.fullmatch(name):
                yield folder, name, member
