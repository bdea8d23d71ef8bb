"""A store of fitted things on disk, keyed by the hash of all their inputs, shared by the runs of a sweep.

An entry is a safetensors file that appears under its name only when it is complete. Two processes that want the
same entry at once wait for each other: the first one builds it, the second one reads it.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from collapse_bench.distributed import from_main, is_shared
from collapse_bench.errors import RunDirError
from collapse_bench.files import sync_file

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Store:
    """Fitted things on disk by the hash of their inputs.

    Args:
        root: folder of the entries; made when missing.
        max_bytes: when the entries exceed this, the least recently used ones are deleted.
        enabled: ``False`` builds everything anew and stores nothing.
    """

    root: Path
    max_bytes: int = 10 * 2**30
    enabled: bool = True

    def get_or_build(
        self, kind: str, key: str, build: Callable[[], Tensors], *, together: bool = False
    ) -> tuple[dict[str, Tensor], bool]:
        """The entry's tensors (on the CPU) and whether they were reused: the same in all processes that run a chain.

        Args:
            kind: what is stored, for example ``"fit"``; a folder name.
            key: fingerprint of everything that ``build`` depends on; that of the main process counts.
            build: makes the tensors when the store does not hold them.
            together: all processes call ``build``, which shares its work among them; else the main one does.

        Raises:
            RunDirError: if the folder cannot be written.
        """
        if not (together and is_shared()):
            return from_main(lambda: self._get_or_build(kind, key, build))
        with ExitStack() as stack:  # the main process has the lock while all of them build
            found = from_main(
                lambda: self._find(stack.enter_context(self._locked(kind, key))) if self.enabled else None
            )
            if found is not None:
                return found, True
            built = build()
            return from_main(lambda: self._put(kind, key, built)), False

    def _get_or_build(self, kind: str, key: str, build: Callable[[], Tensors]) -> tuple[dict[str, Tensor], bool]:
        if not self.enabled:
            return _to_cpu(build()), False
        with self._locked(kind, key) as path:
            found = self._find(path)
            if found is not None:
                return found, True
            return self._put(kind, key, build()), False

    @contextmanager
    def _locked(self, kind: str, key: str) -> Iterator[Path]:
        """The file of an entry, which is this process's for the length of the block."""
        path = self._path(kind, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_suffix(".lock")).acquire()
        except OSError as error:
            raise RunDirError(
                f"cannot write the cache folder {self.root}: {error}; name another one with cache.root=FOLDER "
                "or turn it off with cache.enabled=false"
            ) from error
        with lock:
            yield path

    def _path(self, kind: str, key: str) -> Path:
        return self.root / kind / f"{key}.safetensors"

    def _find(self, path: Path) -> dict[str, Tensor] | None:
        """The tensors of an entry; ``None`` if there are none, and then nothing unfinished either."""
        if path.exists():
            try:
                tensors = load_file(path)
            except SafetensorError:
                path.unlink(missing_ok=True)  # damaged: build it again
            except FileNotFoundError:  # pruned by another process
                pass
            else:
                with suppress(FileNotFoundError):  # pruned by another process since
                    os.utime(path)
                return tensors
        for unfinished in path.parent.glob(f"{path.name}.*.tmp"):  # of a killed process: we hold the lock
            unfinished.unlink()
        return None

    def _put(self, kind: str, key: str, built: Tensors) -> dict[str, Tensor]:
        """The tensors on the CPU, after they have become an entry."""
        tensors = _to_cpu(built)
        if self.enabled:
            path = self._path(kind, key)
            write_tensors(path, tensors)
            self._prune(keep=path)
        return tensors

    def _prune(self, keep: Path) -> None:
        """Deletes the least recently used entries until the store is within ``max_bytes``; never ``keep``."""
        entries = []
        for path in self.root.glob("*/*.safetensors"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process pruned it
                continue
            entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                return
            if path == keep:
                continue
            # Else somebody is reading it, or it is somebody else's; a store that is too large stops no run.
            with suppress(Timeout, OSError), FileLock(path.with_suffix(".lock"), timeout=0):
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
                total -= size


def write_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file that is complete or absent, also after a crash.

    Raises:
        RunDirError: if the disk is full; what was written before stays as it is.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        save_file({name: t.contiguous() for name, t in tensors.items()}, unfinished, dict(metadata or {}))
        sync_file(unfinished)
        unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        raise RunDirError(
            f"cannot write {path}: {error}; free some space or choose another folder, then run the same command "
            "again: it continues from the last committed generation"
        ) from error


def _to_cpu(tensors: Tensors) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}
