"""Small files that are complete or absent, and locks; readers of results need no torch for these."""

import json
import os
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from collapse_bench.errors import RunDirError


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        RunDirError: if it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirError(
            f"cannot read {path}: {error}; restore it from a copy, or start anew in another folder"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file that is complete or absent."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file that is complete or absent.

    Raises:
        RunDirError: if the disk refuses.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8")
        sync_file(unfinished)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise RunDirError(f"cannot write {path}: {error}; free some space or choose another folder") from error


def sync_file(path: Path) -> None:
    """Forces a file's bytes to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


PATIENCE_S = 0.5
"""How long to wait for a lock that one wants: who only looks whether it is held holds it for an instant."""


def is_locked(path: Path, patience_s: float = 0.0) -> bool:
    """Whether a process holds the lock of this file; locks of processes that were killed are free.

    Args:
        path: of the lock.
        patience_s: how long to wait for it; without, somebody else who looks at this instant counts as well.
    """
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=patience_s):
            return False
    except Timeout:
        return True
