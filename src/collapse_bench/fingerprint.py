"""Content hashes: the same hash means the same inputs, whatever the process, the path or the day."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_PACKAGE = Path(__file__).parent
_CANNOT_CHANGE_A_FIT = ("analysis", "cli", "conf")


def fingerprint(*things: object) -> str:
    """A 32-digit hexadecimal hash of tensors, arrays, dataclasses, mappings, sequences and plain values.

    Parts of the benchmark are frozen dataclasses, so a part's hash is its class, the source file of that class
    and its arguments.

    Raises:
        TypeError: for an object of any other kind, because hashing its address would never match again.
    """
    digest = hashlib.blake2b(digest_size=16)
    for thing in things:
        _update(digest, thing)
    return digest.hexdigest()


def _update(digest: "hashlib.blake2b", thing: object) -> None:
    if isinstance(thing, Tensor):
        array = thing.detach().cpu().contiguous()
        digest.update(f"tensor {array.dtype} {tuple(array.shape)} ".encode())
        digest.update(array.view(torch.uint8).numpy().tobytes() if array.ndim else repr(array.item()).encode())
    elif isinstance(thing, np.ndarray) and not thing.dtype.hasobject:
        digest.update(f"array {thing.dtype} {thing.shape} ".encode())
        digest.update(np.ascontiguousarray(thing).tobytes())
    elif isinstance(thing, torch.nn.Module):
        digest.update(f"module {type(thing).__qualname__} ".encode())
        _update(digest, dict(sorted(thing.state_dict().items())))
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        cls = type(thing)
        digest.update(f"dataclass {cls.__module__}.{cls.__qualname__} {foreign_source(cls)} ".encode())
        _update(digest, {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)})
    elif isinstance(thing, Mapping):
        digest.update(f"mapping {len(thing)} ".encode())
        for key, value in thing.items():
            _update(digest, key)
            _update(digest, value)
    elif isinstance(thing, (list, tuple)):
        digest.update(f"sequence {len(thing)} ".encode())
        for value in thing:
            _update(digest, value)
    elif thing is None or isinstance(thing, (str, int, float, bool, bytes)):
        digest.update(f"{type(thing).__name__} {thing!r} ".encode())
    else:
        raise TypeError(f"cannot fingerprint a {type(thing).__qualname__}; pass tensors, dataclasses or plain values")


@functools.cache
def foreign_source(cls: type) -> str:
    """Hash of the source file of a class that lives outside this package; its own code is in ``code_version``."""
    path = Path(inspect.getfile(cls))
    if path.is_relative_to(_PACKAGE):
        return ""
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


@functools.cache
def code_version() -> str:
    """Hash of everything that could change what a fit computes: this package's source and the libraries."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(_PACKAGE.rglob("*.py")):
        relative = path.relative_to(_PACKAGE)
        if relative.parts[0] not in _CANNOT_CHANGE_A_FIT:
            digest.update(relative.as_posix().encode() + b"\0" + path.read_bytes())
    for name, version in library_versions().items():
        digest.update(f"{name}=={version} ".encode())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of the libraries that the numbers depend on."""
    names = (
        "collapse-bench",
        "torch",
        "torchvision",
        "pytorch-lightning",
        "torchmetrics",
        "numpy",
        "scikit-learn",
    )
    return {name: importlib.metadata.version(name) for name in names}
